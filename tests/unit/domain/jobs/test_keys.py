"""Templates of object keys and of paths.

Rule: what can be refused is refused when the template is parsed.
"""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import BadKey, BadText
from control_plane.domain.jobs.keys import KeyFacts, Template, read_key_template, read_path_template, uses_tick

TICK = datetime(2026, 3, 29, 2, 30, tzinfo=UTC).timestamp()
"""In Berlin, 04:30 on the day on which 02:00 to 03:00 does not exist."""

FACTS = KeyFacts(
    job="sales",
    client_id="till-1",
    path="/data/out/day.csv",
    schedule="daily",
    labels={"site": "berlin/mitte"},
    tick_at=TICK,
    zone="Europe/Berlin",
)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{job}/{client_id}/{path}", "sales/till-1/data/out/day.csv"),
        ("{schedule}/{label.site}/{client_id}-{name}", "daily/berlin_mitte/till-1-day.csv"),
        ("{tick:%Y-%m-%d}/{client_id}/{name}", "2026-03-29/till-1/day.csv"),
        ("{tick}/{client_id}/{name}", "20260329T043000/till-1/day.csv"),
        ("{{{client_id}}}/{name}", "{till-1}/day.csv"),
    ],
)
def test_a_template_is_filled(text: str, key: str) -> None:
    """Each field, and the doubled brace."""
    assert read_key_template(text).expand(FACTS) == key


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("{tick-1d:%Y-%m-%d %H}", "2026-03-28 04"),
        ("{tick-3h:%H:%M}", "00:30"),
        ("{tick+1w:%d.%m.}", "05.04."),
        ("{tick:%G-W%V-%u %j}", "2026-W13-7 088"),
    ],
)
def test_days_are_of_the_calendar_and_hours_are_hours(field: str, shown: str) -> None:
    """The day before has the same wall-clock time, though one of the days has 23 hours."""
    assert Template.parse(field).fill(FACTS) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{job}/{path}", r"must hold \{client_id\}"),
        ("{client_id}", r"one of \{path\}, \{name\}"),
        ("{client_id}/{path}/{colour}", r"unknown field \{colour\}"),
        ("{client_id}/{path", "a single '{' at character 13"),
        ("{client_id}/{path}/{tick:%c}", "a format holds"),
        ("{client_id}/{path}/{tick-1y}", "unknown field"),
        ("/{client_id}/{path}", "an empty segment"),
        ("{client_id}/../{path}", "an empty segment, or one that is"),
        ("{client_id}/\x07{path}", "control character"),
        ("x" * 1_025, "at most 1024 characters"),
        ("x" * 900 + "{client_id}/{path}", "more than 900 bytes"),
    ],
)
def test_a_bad_key_template_is_refused_when_it_is_parsed(text: str, why: str) -> None:
    """The sentence names what is wrong."""
    with pytest.raises(BadText, match=why):
        read_key_template(text)


@pytest.mark.parametrize(
    "facts",
    [
        {"path": "/a/../b"},
        {"path": "/a\x1b[2J"},
        {"path": "/" + "ü" * 500},
        {"labels": {}},
        {"labels": {"site": ".."}},
    ],
)
def test_a_key_that_no_object_may_have_fails_that_file(facts: dict[str, object]) -> None:
    """A path or a label that comes from a device leads to no other folder."""
    template = read_key_template("{label.site}/{client_id}/{path}")
    given_facts = {"job": "j", "client_id": "c", "path": "/p", "labels": {"site": "x"}, **facts}
    with pytest.raises(BadKey):
        template.expand(KeyFacts(**given_facts))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{client_id}/{path}", "{client_id}/{name}", "{client_id}/x.{name}"])
@pytest.mark.parametrize("name", ["a.receipt.json", "receipt.json", "a.receipt.json.receipt.json", "a.receipt_.json"])
def test_no_file_takes_the_key_of_a_receipt(text: str, name: str) -> None:
    """Else the file `a.receipt.json` would be written over by the receipt of `a`, or the receipt by the file."""
    key = read_key_template(text).expand(KeyFacts(job="j", client_id="c", path=f"/{name}"))
    assert not key.endswith(".receipt.json")


@pytest.mark.parametrize("text", ["{client_id}/{name}.receipt.json", "{client_id}/{path}.{schedule}.receipt.json"])
def test_a_template_of_keys_of_receipts_is_refused(text: str) -> None:
    with pytest.raises(BadText, match="receipt"):
        read_key_template(text)


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_path_and_no_label_leaves_the_folder_of_its_client(path: str, label: str) -> None:
    """A key is refused, or each of its segments is a plain name below the client's folder."""
    facts = KeyFacts(job="j", client_id="c", path=f"/{path}", labels={"site": label})
    try:
        key = read_key_template("{client_id}/{label.site}/{path}").expand(facts)
    except BadKey:
        return
    assert key.startswith("c/")
    assert key.isprintable()
    assert not {"", ".", ".."} & set(key.split("/"))


def test_a_path_may_name_the_tick_and_nothing_else() -> None:
    """A path is sent to every client alike."""
    assert read_path_template("/data/{tick-1d:%Y%m%d}/*.csv").fill(FACTS) == "/data/20260328/*.csv"
    with pytest.raises(BadText, match=r"may hold \{tick\}, but not \{client_id\}"):
        read_path_template("/data/{client_id}.csv")


def test_a_template_is_known_to_use_the_tick() -> None:
    """A text that is no template uses none."""
    assert uses_tick("{tick:%Y}/x")
    assert not uses_tick("{job}")
    assert not uses_tick("{")
