"""The wait before a retry."""

import pytest

from control_plane.services.backoff import full_jitter


@pytest.mark.parametrize(("tries", "most"), [(0, 1.0), (3, 8.0), (8, 256.0), (9, 300.0), (2_000, 300.0)])
def test_the_wait_is_a_random_part_of_a_doubling_bounded_one(tries: int, most: float) -> None:
    waits = [full_jitter(tries, longest=300.0, at_least=5.0) for _ in range(200)]
    assert 5.0 <= min(waits) < 5.0 + most / 4
    assert 5.0 + most * 3 / 4 < max(waits) <= 5.0 + most
