"""How long to wait before the next try.

Rule: one formula for every retry of the services and for the reconnects to the broker. Only a transaction that lost a
race is repeated by another one, in `adapters.database.transactions`, within milliseconds.
"""

import random
from typing import Final

_MAX_DOUBLINGS: Final = 30


def full_jitter(tries: int, *, longest: float, first: float = 1.0, at_least: float = 0.0) -> float:
    """Seconds before the next try: `at_least`, plus a random part of `first` doubled `tries` times, or of `longest`.

    The random part keeps clients that fail together from retrying together (AWS Architecture Blog, "Exponential Backoff
    And Jitter").
    """
    return at_least + random.uniform(0.0, min(longest, first * 2.0 ** min(tries, _MAX_DOUBLINGS)))  # noqa: S311 - no secret
