"""The forms of a result."""

from control_plane.cli.formats import csv_lines


def test_a_text_that_a_spreadsheet_would_compute_is_a_text_in_csv() -> None:
    """A device may have named it."""
    lines = list(csv_lines([{"a": "=1+1", "b": -1, "c": "x=1"}], ["a", "b", "c"]))
    assert lines == ["a,b,c\r\n", "'=1+1,-1,x=1\r\n"]
