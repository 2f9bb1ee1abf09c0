"""Makes `time.sleep` work under libfaketime; the interpreter imports this module at its start (see `site`).

Rule: nothing else is here. Python 3.11 sleeps with clock_nanosleep(2) and an absolute time. libfaketime 0.9.10 answers
that with EINVAL when the monotonic clock is not faked.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
