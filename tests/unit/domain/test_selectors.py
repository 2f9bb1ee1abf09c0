"""Selectors in Kubernetes' grammar, and patterns over client ids."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import SelectorError
from control_plane.domain.selectors import EVERYTHING, MAX_TERMS, MAX_VALUES, Relation, Term, ids_matching, parse

IN, NOT_IN, EXISTS, ABSENT = Relation


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", ()),
        (" \t", ()),
        ("site=berlin", (Term("site", IN, ("berlin",)),)),
        ("site == berlin", (Term("site", IN, ("berlin",)),)),
        ("site!=berlin", (Term("site", NOT_IN, ("berlin",)),)),
        ("site", (Term("site", EXISTS),)),
        ("! site", (Term("site", ABSENT),)),
        ("model in (pi4, pi5,pi4)", (Term("model", IN, ("pi4", "pi5")),)),
        ("model notin(pi4)", (Term("model", NOT_IN, ("pi4",)),)),
        ("a=,b!=,c in (x,)", (Term("a", IN, ("",)), Term("b", NOT_IN, ("",)), Term("c", IN, ("x", "")))),
        ("in in (in,notin)", (Term("in", IN, ("in", "notin")),)),
        ("a=in,notin", (Term("a", IN, ("in",)), Term("notin", EXISTS))),
        ("example.com/site=berlin-7_a.b", (Term("example.com/site", IN, ("berlin-7_a.b",)),)),
        ('"the site" = "Berlin, \\"Mitte\\" \\\\"', (Term("the site", IN, ('Berlin, "Mitte" \\',)),)),
        ("ort=München", (Term("ort", IN, ("München",)),)),
        ("site=berlin,!retired,model", (Term("site", IN, ("berlin",)), Term("retired", ABSENT), Term("model", EXISTS))),
    ],
)
def test_a_selector_is_parsed_as_kubernetes_does(text: str, terms: tuple[Term, ...]) -> None:
    assert parse(text).terms == terms
    assert parse(text).text == text


@pytest.mark.parametrize(
    ("text", "position", "why"),
    [
        (",a", 0, "a key"),
        ("a,", 2, "a key"),
        ("a,,b", 2, "a key"),
        ("a b", 2, "expected ="),
        ("a=b c", 4, "a comma or the end"),
        ("!a=b", 2, "a comma or the end"),
        ("!!a", 1, "a key"),
        ("a in b", 5, "expected ("),
        ("a in ()", 6, "at least one value"),
        ("a in (b", 7, "a comma or )"),
        ("a in (b c)", 8, "a comma or )"),
        ("a>5", 1, "no order"),
        ("=b", 0, "a key"),
        ('a="b', 2, "no end"),
        ('a="\\b"', 2, "no end"),
        ("a=b\0", 3, "cannot be searched"),
        ("ab=\ufffd", 3, "cannot be searched"),
        ("a=\ud800", 2, "cannot be searched"),
        ("a=b\u00a0c", 3, "in double quotes"),
        ("x" * 8_193, 8_192, "longer"),
        (",".join(f"l{number}" for number in range(MAX_TERMS + 1)), 118, "requirements"),
        (f"a in ({','.join(f'{number:03}' for number in range(MAX_VALUES + 1))})", 2_006, "values"),
    ],
)
def test_a_wrong_selector_is_refused_at_its_position(text: str, position: int, why: str) -> None:
    with pytest.raises(SelectorError, match=re.escape(why)) as raised:
        parse(text)
    assert (raised.value.position, raised.value.text) == (position, text)


@given(st.text(alphabet='ab=!(),<>"\\ in\0\u00a0', max_size=30) | st.text(max_size=30))
def test_every_text_is_a_selector_or_is_refused_within_it(text: str) -> None:
    assert 0 <= refused_at(text) <= len(text)


def refused_at(text: str) -> int:
    """Where a text is refused; 0 for a selector."""
    try:
        parse(text)
    except SelectorError as error:
        return error.position
    return 0


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("site=berlin", {"site": "berlin"}, True),
        ("site=berlin", {}, False),
        ("site=", {}, False),
        ("site=", {"site": ""}, True),
        ("site!=berlin", {}, True),
        ("site!=berlin", {"site": "paris"}, True),
        ("site!=berlin", {"site": "berlin"}, False),
        ("site notin (berlin,rome)", {}, True),
        ("site notin (berlin,rome)", {"site": "rome"}, False),
        ("site", {"site": ""}, True),
        ("!site", {"site": ""}, False),
        ("!site", {"Site": "x"}, True),
        ("site,site!=berlin", {}, False),
    ],
)
def test_a_selector_matches_labels_as_in_kubernetes(text: str, labels: dict[str, str], *, matches: bool) -> None:
    assert parse(text).matches(labels) is matches


def test_the_selector_of_everything_is_the_empty_text() -> None:
    assert parse("") == EVERYTHING


@given(st.text(alphabet="ab*.", max_size=8), st.text(alphabet="ab.", min_size=1, max_size=8))
def test_a_star_stands_for_any_text(pattern: str, client_id: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), client_id) is not None
    assert bool(ids_matching([pattern], [client_id])) is expected


def test_a_pattern_of_many_stars_takes_no_longer() -> None:
    """A backtracking matcher would need hours."""
    began = time.process_time()
    assert ids_matching(["a*" * 31 + "b", "a*b" * 20], ["a" * 64] * 100) == []
    assert time.process_time() - began < 1


def test_ids_come_in_their_order_and_once() -> None:
    found = ids_matching(["shop-*", "*-7", "till"], ["till-7", "shop-7", "till", "x.till", "Till"])
    assert found == ["till-7", "shop-7", "till"]
    assert ids_matching([], ["a"]) == ids_matching(["*"], []) == []
