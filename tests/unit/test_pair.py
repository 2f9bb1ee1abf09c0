"""Both machines as a pair: thousands of histories over a link that loses, repeats, delays and reorders.

Rule: a seed determines its history. A failure names its seed.
"""

import random
from collections import Counter

import pytest

from tests.support.pair import Pair

HISTORIES = 2_000
CHUNKS = 4


@pytest.mark.parametrize("chunk", [0, *(pytest.param(chunk, marks=pytest.mark.slow) for chunk in range(1, CHUNKS))])
def test_both_sides_agree_at_the_end_of_every_history(chunk: int) -> None:
    ends: Counter[str] = Counter()
    for seed in range(chunk, HISTORIES, CHUNKS):
        random.seed(seed)
        try:
            ends[Pair(seed).run().state] += 1
        except Exception as error:
            error.add_note(f"tests.support.pair: Pair({seed}).run()")
            raise
    assert ends["completed"] > sum(ends.values()) / 2, ends


def test_a_seed_gives_the_same_history() -> None:
    def play(seed: int) -> str:
        random.seed(seed)
        return repr(Pair(seed).run())

    assert play(7) == play(7)
