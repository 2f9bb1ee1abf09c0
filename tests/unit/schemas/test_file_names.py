r"""A name that is not UTF-8 has one spelling on the wire, and every name can be read back from its spelling.

Rule: the kind is a value that is checked for its shape and not for whether a message can hold it.
"""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.file_names import plain, spelled, unspelled

NASTY = st.lists(st.sampled_from([b"\\", b"x", b"5c", b"ff", b"8", b"\xff", b"\xc3", b"\xa4", "ä".encode(), b"/"]))


@given(st.one_of(st.binary(), NASTY.map(b"".join)))
def test_every_name_is_read_back_from_its_spelling(name: bytes) -> None:
    text = spelled(os.fsdecode(name))
    assert os.fsencode(unspelled(text)) == name
    assert text.encode().decode() == text


@given(st.one_of(st.text(), NASTY.map(lambda found: os.fsdecode(b"".join(found)))))
def test_a_text_that_spells_a_name_is_its_only_spelling(text: str) -> None:
    try:
        name = unspelled(text)
    except SchemaError:
        return
    assert spelled(name) == text


@pytest.mark.parametrize("text", [r"\xc3\xa4", r"\x5c", r"\x5cq", r"a\x5c/b", "\udcff", r"\x5cx41"])
def test_a_second_spelling_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match="spelling"):
        unspelled(text)


@pytest.mark.parametrize("name", ["plain", "ä ☂", "a\\b", r"\xFF", r"\x41", "\\", r"c:\x", "line\nfeed"])
def test_a_name_that_is_utf8_is_its_own_spelling(name: str) -> None:
    assert (spelled(name), unspelled(name), plain(name)) == (name, name, name)
