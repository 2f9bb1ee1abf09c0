"""Cursors: a position survives a round trip in characters that a URL does not quote; any other text is bad input.

Rule: paging itself is tested in tests/contract.
"""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.adapters.cursors import client_position, encode_cursor, upload_position
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Page

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
"""As the database keeps them: no row has a NUL."""


@given(st.tuples(st.floats(allow_nan=False, allow_infinity=False), names, names))
def test_a_position_of_an_upload_survives_a_round_trip(position: tuple[float, str, str]) -> None:
    cursor = encode_cursor(position)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert upload_position(Page(1, cursor)) == position


@given(names)
def test_a_position_of_a_client_survives_a_round_trip(client_id: str) -> None:
    assert client_position(Page(1, encode_cursor((client_id,)))) == client_id


def test_without_a_cursor_a_page_begins_at_the_start() -> None:
    assert upload_position(Page()) is None
    assert client_position(Page()) is None


@given(st.text())
def test_any_other_text_is_bad_input_or_a_position(cursor: str) -> None:
    try:
        position: str | None = client_position(Page(1, cursor))
    except BadInput:
        position = None
    assert position is None or client_position(Page(1, encode_cursor((position,)))) == position


def test_a_position_with_a_nul_is_bad_input() -> None:
    with pytest.raises(BadInput):
        client_position(Page(1, encode_cursor(("a\0",))))


def test_the_cursor_of_another_list_is_bad_input() -> None:
    with pytest.raises(BadInput):
        upload_position(Page(1, encode_cursor(("a",))))
    with pytest.raises(BadInput):
        client_position(Page(1, encode_cursor((1.0, "a", "b"))))
