"""The agent program with short pauses between its connections, and a clock of the boot that a test may move.

Rule: nothing else differs from `python -m device_agent`. `BAD_DAY_PAUSE` has the longest pause in seconds; the file
`BAD_DAY_SLEPT`, if given, the seconds that the device was suspended so far.
"""

import functools
import os
import sys
import time
from pathlib import Path

from device_agent.__main__ import main
from device_agent.mqtt import connection
from device_agent.mqtt.reconnect import ReconnectBackoff

_real = time.clock_gettime


def _boot_clock(clock: int) -> float:
    slept = float(Path(os.environ["BAD_DAY_SLEPT"]).read_text()) if clock == time.CLOCK_BOOTTIME else 0.0
    return _real(clock) + slept


if __name__ == "__main__":
    longest = float(os.environ["BAD_DAY_PAUSE"])
    vars(connection)["ReconnectBackoff"] = functools.partial(ReconnectBackoff, first=longest / 4, longest=longest)
    if "BAD_DAY_SLEPT" in os.environ:
        time.clock_gettime = _boot_clock
    sys.exit(main())
