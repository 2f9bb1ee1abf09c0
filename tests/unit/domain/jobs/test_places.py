"""Where a fetched file is stored: below its folder, whatever a device calls it."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.jobs.places import MAX_SEGMENT_BYTES, local_place, marked_place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/data/a.csv", "c/data/a.csv"),
        ("/../../x", "c/__/__/x"),
        ("/a/./b", "c/a/_/b"),
        ("//a//", "c/a"),
        ("/", "c/file"),
        ("/con:1\\x.", "c/con_1_x_"),
        ("/.hidden", "c/.hidden"),
    ],
)
def test_a_place_is_the_path_below_the_client(path: str, place: str) -> None:
    """What would lead elsewhere is replaced."""
    assert local_place("c", path) == place


@given(st.text(max_size=60))
def test_no_path_leaves_its_folder(path: str) -> None:
    """Each segment is one plain name."""
    place = local_place("c", path)
    assert posixpath.normpath(place) == place
    assert place.startswith("c/")
    assert place.isprintable()


def test_a_long_name_keeps_its_end_and_stays_distinct() -> None:
    """Two long names that share their end have two places."""
    one, other = (local_place("c", f"/{letter}{'ü' * 300}.csv") for letter in "ab")
    assert one != other
    assert one.endswith(".csv")
    assert all(len(place.removeprefix("c/").encode()) <= MAX_SEGMENT_BYTES for place in (one, other))


def test_a_second_file_of_one_place_is_marked() -> None:
    """Before the ending, so that programs still know the kind of file."""
    assert marked_place("c/a/day.csv", 2) == "c/a/day-2.csv"
    assert marked_place("c/a/.profile", 2) == "c/a/.profile-2"
    assert marked_place("c/a/file", 2) == "c/a/file-2"
