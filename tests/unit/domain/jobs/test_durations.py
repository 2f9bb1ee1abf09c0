"""Durations, sizes and rates as a person writes them.

Rule: each refused text is refused with the form that is expected.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import BadText
from control_plane.domain.jobs.durations import read_bytes, read_rate, read_seconds, show_seconds
from control_plane.domain.jobs.spec import Rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400),
        ("90s", 90),
        ("1h30m", 5_400),
        ("7d", 604_800),
        ("1.5h", 5_400),
        ("1w", 604_800),
        (90, 90),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read(text: object, seconds: float) -> None:
    """Units may follow each other; a number is seconds."""
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "h", "-1h", "1 h", "tomorrow", "1y", -1, True, None, float("nan"), float("inf"), 2**60]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """A text without a unit is not taken for seconds."""
    with pytest.raises(BadText, match="must be a duration such as 24h"):
        read_seconds(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("50MiB", 50 * 2**20), ("1.5GiB", 3 * 2**29), ("10MB", 10_000_000), ("7", 7), ("7 B", 7), (0, 0), (1024.0, 1024)],
)
def test_a_size_is_read(text: object, count: int) -> None:
    """Binary and decimal units are distinguished."""
    assert read_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "-1", "5 mib", "1e3", -1, 1.5, True, None, "99999999999TiB"])
def test_what_is_no_size_is_refused(text: object) -> None:
    """A size is a whole number of bytes that every JSON parser reads."""
    with pytest.raises(BadText, match="must be a size such as 50MiB"):
        read_bytes(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("1/20m", Rate(1, 1200)), ("50/h", Rate(50, 3600)), (50, Rate(50, 60)), ("3/10s", Rate(3, 10))]
)
def test_a_rate_is_read(text: object, rate: Rate) -> None:
    """A number is a number a minute."""
    assert read_rate(text) == rate


@pytest.mark.parametrize("text", ["", "1", "0/m", "1/0m", "1/m/m", 0, 1.5, True, None])
def test_what_is_no_rate_is_refused(text: object) -> None:
    """A rate of nothing would wait for ever."""
    with pytest.raises(BadText, match="must be a rate such as 1/20m"):
        read_rate(text)


@given(st.integers(1, 10**9))
def test_a_duration_that_is_shown_is_read_as_the_same(seconds: int) -> None:
    """`show_seconds` and `read_seconds` agree."""
    assert read_seconds(show_seconds(seconds)) == seconds
