"""How long to wait before the next try, so that a fleet does not come back as one.

Rule: pure. Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"); the random
number comes from the caller.
"""

from typing import Final

MAX_DOUBLINGS: Final = 16


def exponential(tries: int, first: float, longest: float) -> float:
    """`first`, doubled once for each try, at most `longest`; in the unit of `first`.

    >>> [exponential(tries, 1.0, 60.0) for tries in (0, 1, 5, 6, 1000)]
    [1.0, 2.0, 32.0, 60.0, 60.0]
    """
    return min(longest, first * 2.0 ** min(tries, MAX_DOUBLINGS))


def full_jitter(tries: int, first: float, longest: float, chance: float) -> float:
    """Any part of the exponential pause: `chance` is a random number from 0 to 1."""
    return chance * exponential(tries, first, longest)
