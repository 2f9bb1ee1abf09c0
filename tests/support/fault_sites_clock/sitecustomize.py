"""Lets a Python under libfaketime sleep; imported by the interpreter itself as it starts (see `site`).

Rule: nothing but that. Python 3.11 sleeps with clock_nanosleep(2) and an instant, which libfaketime 0.9.10 answers with
EINVAL whenever the monotonic clock is left alone.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
