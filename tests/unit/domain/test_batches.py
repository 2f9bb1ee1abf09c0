"""The names of a batch."""

import pytest

from control_plane.domain.batches import MAX_COUNT, check_names, name_of
from control_plane.domain.errors import BadText


def test_a_pattern_gives_each_device_its_name() -> None:
    assert [name_of("till-{n}", 7), name_of("{n:04}-till", 7), name_of("t{n:02}", 123)] == [
        "till-7",
        "0007-till",
        "t123",
    ]
    assert name_of("till-{serial}", 1, "A.7") == "till-A.7"
    check_names("till-{n:03}", MAX_COUNT, ())
    check_names("till-{serial}", 2, ("A1", "A2"))


@pytest.mark.parametrize(
    ("pattern", "count", "serials"),
    [
        ("till", 2, ()),
        ("till-{n}-{n}", 2, ()),
        ("till-{n}{x}", 2, ()),
        ("till/{n}", 2, ()),
        ("-{n}", 2, ()),
        ("t" * 63 + "{n}", 10, ()),
        ("till-{serial}", 2, ()),
        ("till-{serial}", 2, ("A1",)),
        ("till-{serial}", 2, ("A1", "A1")),
        ("till-{serial}", 2, ("A1", "A/2")),
        ("operator-{n}", 2, ()),
        ("cli-{n}", 2, ()),
        ("{serial}", 2, ("A1", "control-plane")),
    ],
)
def test_what_gives_no_names_is_refused(pattern: str, count: int, serials: tuple[str, ...]) -> None:
    with pytest.raises(BadText):
        check_names(pattern, count, serials)
