"""What a client reports in its status that it waits for, as a reason.

Rule: pure. A text that begins with a code of the device's own limits and a colon has that code.
"""

from typing import Final

from control_plane.domain.reasons import Reason, ReasonCode

REPORTED: Final = frozenset(
    {
        ReasonCode.CLIENT_REPORTED,
        ReasonCode.DEVICE_BUDGET,
        ReasonCode.DEVICE_METERED,
        ReasonCode.DEVICE_DISK,
        ReasonCode.DEVICE_BATTERY,
        ReasonCode.DEVICE_LOAD,
    }
)
"""What a client reports in its status: it repeats it every half minute."""

DEVICE_WAITS: Final = REPORTED - {ReasonCode.CLIENT_REPORTED}
"""What a device waits for by its own settings; the codes are those of `schemas.values.DeviceHold`."""


def reported(text: str) -> Reason:
    """The reason that a client has put into its status: a code of its own limits, or only a text.

    >>> reported("device_load: the load of one processor is 3.10, above 2 (MAX_LOAD)").code.value
    'device_load'
    >>> reported("other uploads of this device go first").code.value
    'client_reported'
    """
    code, colon, sentence = text.partition(": ")
    known = colon and code in DEVICE_WAITS
    return Reason(ReasonCode(code), sentence) if known else Reason(ReasonCode.CLIENT_REPORTED, text)
