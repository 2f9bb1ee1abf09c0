"""The lists of `backhaul top`: what fits, what passes a filter, what a key does."""

from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from control_plane.cli.errors import Misused
from control_plane.cli.top.model import (
    MOST,
    Filter,
    Listed,
    Tab,
    Verb,
    columns,
    parse,
    progressed,
    question,
    shown,
    summary,
    touched,
    verb_of,
)
from tests.support.scripted_rest import UPLOAD_ID, upload

NOW = datetime(2026, 11, 20, 10, 3, tzinfo=UTC)


@pytest.mark.parametrize("width", [80, 200])
def test_a_list_fits_the_terminal(width: int) -> None:
    page = Listed([upload("restaurant-7", file_path="/data/" + "Küche/日本語/" * 30 + "daily.csv")], read=True)
    drawn = shown(Tab.UPLOADS, page, width, NOW)
    assert sum(drawn.widths) + 2 * len(drawn.widths) <= width
    assert all(cell_len(text.plain) <= most for text, most in zip(drawn.cells[0], drawn.widths, strict=True))
    assert drawn.cells[0][0].plain == "restaurant-7"
    assert drawn.cells[0][-1].plain.startswith("…")
    assert drawn.cells[0][-1].plain.endswith("daily.csv")


def test_control_characters_of_a_device_are_shown_as_text() -> None:
    page = Listed([upload("r\x1b[2J", file_path="/a\n\x07", reason=None)], read=True)
    drawn = shown(Tab.UPLOADS, page, 100, NOW)
    assert [text.plain for text in drawn.cells[0]][0::5] == ["r\\x1b[2J", "/a\\n\\x07"]
    assert "\x1b" not in question(Tab.UPLOADS, Verb.CANCEL, page.rows[0])


def test_a_filter_asks_rest_for_what_it_knows_and_looks_for_words_in_the_rows() -> None:
    assert parse(Tab.UPLOADS, "client=restaurant-7 SALES") == Filter({"client_id": "restaurant-7"}, ("sales",))
    assert parse(Tab.CLIENTS, "'selector=site in (a, b)'").asked == {"selector": "site in (a, b)"}
    assert parse(Tab.JOBS, "client=x").words == ("client=x",)
    with pytest.raises(Misused, match="no closing quotation"):
        parse(Tab.JOBS, "'a")
    page = Listed([upload("till"), upload("kiosk")], read=True, filter=Filter(words=("kiosk",)))
    assert [key.split("\n")[1] for key in shown(Tab.UPLOADS, page, 80, NOW).keys] == ["kiosk"]


def test_a_list_that_is_cut_says_so() -> None:
    page = Listed([upload(f"r-{n}") for n in range(MOST)], cut=True, read=True)
    assert summary(Tab.UPLOADS, page, MOST).startswith("100 uploads; only the newest 100 are read")
    assert summary(Tab.UPLOADS, Listed([upload("a")], read=True), 1) == "1 uploads"
    assert summary(Tab.JOBS, Listed(read=True), 0) == "no jobs yet"
    assert summary(Tab.JOBS, Listed(), 0) == "reading…"


@pytest.mark.parametrize(
    ("tab", "key", "row", "verb"),
    [
        (Tab.UPLOADS, "c", {"status": "queued"}, Verb.CANCEL),
        (Tab.UPLOADS, "r", {"status": "failed"}, Verb.RETRY),
        (Tab.JOBS, "p", {"state": "running"}, Verb.PAUSE),
        (Tab.JOBS, "p", {"state": "paused"}, Verb.RESUME),
        (Tab.JOBS, "r", {"state": "completed", "ended_at": "2026-11-20T10:02:00Z"}, Verb.RETRY),
        (Tab.UPLOADS, "p", {"status": "queued"}, None),
        (Tab.UPLOADS, "c", {"status": "completed"}, None),
        (Tab.UPLOADS, "r", {"status": "in_progress"}, None),
        (Tab.JOBS, "p", {"state": "expired", "ended_at": "2026-11-20T10:02:00Z"}, None),
        (Tab.CLIENTS, "c", {}, None),
    ],
)
def test_a_key_does_what_the_state_of_its_row_allows(
    tab: Tab, key: str, row: dict[str, object], verb: Verb | None
) -> None:
    if verb is None:
        with pytest.raises(Misused):
            verb_of(tab, key, row)
    else:
        assert verb_of(tab, key, row) is verb


def test_an_event_makes_its_lists_stale() -> None:
    assert touched("upload.state_changed") == {Tab.UPLOADS}
    assert touched("execution.state_changed") == {Tab.JOBS}
    assert touched("client.connected") == {Tab.CLIENTS, Tab.UPLOADS}
    assert touched("resync") == touched("") == set(Tab)
    assert touched("schedule.tick") == set()


def test_progress_changes_the_row_of_its_upload_alone() -> None:
    rows = [upload("a"), upload("b")]
    after = progressed(rows, {"upload_id": UPLOAD_ID, "client_id": "b", "progress": 90.0})
    assert [row["progress"] for row in after] == [45.0, 90.0]
    assert columns(Tab.UPLOADS)[2].value(after[1], NOW) == "90%"
