"""The schedule of the nemesis depends on its seed alone."""

import random

from tests.support.nemesis import Act, Strike, Wound, always, schedule


def aimed(drawn: list[int]) -> Wound:
    """A wound that draws a number, and appends it to `drawn` when it is struck."""

    def aim(chance: random.Random) -> Act:
        number = chance.randint(1, 1_000_000)
        return lambda: drawn.append(number)

    return Wound("aimed", aim, most=3)


def played(seed: int, span: float) -> tuple[list[Strike], list[int]]:
    """The strikes of a seed, and the numbers that were drawn for them."""
    drawn: list[int] = []
    strikes = schedule(seed, [aimed(drawn), Wound("other", always(lambda: None), least=1, most=2)], span, rest=1.5)
    for strike in strikes:
        strike.hurt()
    return strikes, drawn


def shape(strikes: list[Strike]) -> list[tuple[float, str, float]]:
    return [(strike.at, strike.wound.name, strike.length) for strike in strikes]


def test_a_seed_gives_one_schedule() -> None:
    (once, drawn), (again, drawn_again) = played(1, 70), played(1, 70)
    assert (shape(once), drawn) == (shape(again), drawn_again)
    assert drawn
    assert shape(once) != shape(played(2, 70)[0])
    assert len(once) > 20
    assert all(0 <= strike.at < 70 for strike in once)
