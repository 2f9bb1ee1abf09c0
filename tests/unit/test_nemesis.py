"""The nemesis' schedule: what a seed stands for."""

import random

from tests.support.nemesis import Act, Strike, Wound, always, schedule


def aimed(told: list[int]) -> Wound:
    """A wound that draws a number."""

    def aim(chance: random.Random) -> Act:
        number = chance.randint(1, 1_000_000)
        return lambda: told.append(number)

    return Wound("aimed", aim, most=3)


def drawn(seed: int, span: float) -> tuple[list[Strike], list[int]]:
    """The strikes of a seed, and the numbers that they tell when each of them is struck."""
    told: list[int] = []
    strikes = schedule(seed, [aimed(told), Wound("other", always(lambda: None), least=1, most=2)], span, rest=1.5)
    for strike in strikes:
        strike.hurt()
    return strikes, told


def shape(strikes: list[Strike]) -> list[tuple[float, str, float]]:
    return [(strike.at, strike.wound.name, strike.length) for strike in strikes]


def test_a_seed_is_one_schedule() -> None:
    (once, told), (again, told_again) = drawn(1, 70), drawn(1, 70)
    assert (shape(once), told) == (shape(again), told_again)
    assert shape(once) != shape(drawn(2, 70)[0])
    assert len(once) > 20
    assert all(0 <= strike.at < 70 for strike in once)
