"""How long to wait before the next try.

Rule: one module for every retry of the services and for the reconnects to the broker. Only a transaction that lost a
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
    return at_least + random.uniform(0.0, _bound(tries, first, longest))  # noqa: S311 - no secret


def equal_jitter(tries: int, *, longest: float, first: float = 1.0) -> float:
    """Seconds before the next try: between half of `first` doubled `tries` times, or of `longest`, and all of it.

    For a limited number of tries, which must not be used up within a moment.
    """
    bound = _bound(tries, first, longest)
    return random.uniform(bound / 2.0, bound)  # noqa: S311 - no secret


def _bound(tries: int, first: float, longest: float) -> float:
    return min(longest, first * 2.0 ** min(tries, _MAX_DOUBLINGS))
