"""Waiting for a fact, with a limit.

Rule: only a look that began after the limit gives up, so that a machine that stood still for a while still gets to see
what came true meanwhile.
"""

import time
from collections.abc import Callable


def came_true(condition: Callable[[], object], patience: float, pause: float = 0.05) -> bool:
    """Whether a condition came true within `patience` seconds; looked at every `pause` seconds, and once after them."""
    end = time.monotonic() + patience
    while True:
        last = time.monotonic() > end
        if condition():
            return True
        if last:
            return False
        time.sleep(pause)
