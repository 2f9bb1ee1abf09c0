"""What a client reports in its status that it waits for, as a reason.

Rule: pure. A text that begins with a code of the device's own limits and a colon has that code.
"""

from typing import Final

from control_plane.domain.reasons import Reason, ReasonCode
from schemas.values import DeviceHold

DEVICE_WAITS: Final = frozenset(ReasonCode(hold) for hold in DeviceHold if hold is not DeviceHold.UNKNOWN)
"""What a device waits for by its own settings."""

REPORTED: Final = DEVICE_WAITS | {ReasonCode.CLIENT_REPORTED}
"""What a client reports in its status, every half minute."""


def reported(text: str) -> Reason:
    """The reason that a client has put into its status: a code of its limits, or only a text.

    >>> reported("device_load: the load of one processor is 3.10, above 2 (MAX_LOAD)").code.value
    'device_load'
    >>> reported("other uploads of this device go first").code.value
    'client_reported'
    """
    code, colon, sentence = text.partition(": ")
    known = colon and code in DEVICE_WAITS
    return Reason(ReasonCode(code), sentence) if known else Reason(ReasonCode.CLIENT_REPORTED, text)
