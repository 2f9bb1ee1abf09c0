"""Tables at 80 columns: every id can be copied, nothing foreign is obeyed."""

import io
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from control_plane.cli.rest.jobs.tables import forecast_lines
from control_plane.cli.rest.tables import (
    client_view,
    clients_table,
    files_table,
    group_view,
    groups_table,
    upload_view,
    uploads_table,
    whole_client_view,
)

UPLOAD_ID = "0123456789abcdef0123456789abcdef"
UPLOAD = {
    "upload_id": UPLOAD_ID,
    "client_id": "restaurant-with-a-name-that-is-as-long-as-names-may-be-0123456789",
    "file_path": "/data/Küche/ein sehr langer Name einer Datei [bold]mit Klammern[/bold].bin",
    "s3_key": "uploads/restaurant-1/20251101-123456-file.bin",
    "status": "in_progress",
    "state": "in_progress",
    "progress": 99.96,
    "completed_parts": 3,
    "total_parts": 20,
    "bytes_uploaded": 104_000_000,
    "file_size": 104_857_600,
    "attempt": 1,
    "reason": {"code": "client_offline", "text": "the client is offline", "next_wake_at": None},
    "metadata": {"order": "7"},
    "created_at": "2025-11-01T10:00:00.250Z",
}
NOW = datetime(2025, 11, 1, 10, 0, 30, tzinfo=UTC)


def drawn(view: RenderableType, width: int = 80) -> str:
    stdout = io.StringIO()
    Console(file=stdout, width=width, color_system=None).print(view)
    return stdout.getvalue()


def test_an_upload_id_is_whole_at_80_columns() -> None:
    text = drawn(uploads_table([UPLOAD]))
    assert UPLOAD_ID in text
    assert max(map(len, text.splitlines())) <= 80


def test_long_names_fold_and_lose_no_letter() -> None:
    text = drawn(uploads_table([UPLOAD]))
    letters = "".join(line[44:80] for line in text.splitlines()).replace(" ", "")
    assert "…" not in text
    assert text.count("Klammern") + letters.count("Klammern") > 0


def test_a_terminal_gets_the_files_name_without_its_folders() -> None:
    row = UPLOAD | {"file_path": "/a/very/long/way/to/file.bin", "client_id": "restaurant-1", "reason": None}
    lines = [line for line in drawn(uploads_table([row], short=True)).splitlines() if "file.bin" in line]
    assert lines == [line for line in lines if line.rstrip().endswith("…/file.bin")] != []
    bare = row | {"file_path": "file.bin"}
    assert "…" not in drawn(uploads_table([bare], short=True))


def test_an_upload_that_makes_progress_has_no_note() -> None:
    assert "uploading" not in drawn(
        uploads_table([UPLOAD | {"reason": {"code": "uploading", "text": "the client is uploading"}}]), 200
    )


def test_99_percent_is_not_rounded_up_to_100() -> None:
    assert "99%" in drawn(uploads_table([UPLOAD]))


def test_a_file_name_is_neither_markup_nor_a_command_to_the_terminal() -> None:
    row = UPLOAD | {"file_path": "/data/[red]x\x1b[2J"}
    assert "/data/[red]x\\x1b[2J" in drawn(uploads_table([row]), 200)


def test_a_waiting_upload_shows_its_reason() -> None:
    assert "the client is offline" in drawn(uploads_table([UPLOAD]), 120)


def test_an_upload_says_who_signed_its_receipt() -> None:
    assert "receipt" not in drawn(upload_view(UPLOAD | {"receipt": None}))
    assert "signed by the control plane alone" in drawn(upload_view(UPLOAD | {"receipt": "control-plane"}))
    assert "not made yet" in drawn(upload_view(UPLOAD | {"receipt": "awaited"}))


def test_one_upload_shows_known_facts_only() -> None:
    text = drawn(upload_view(UPLOAD | {"proof": None, "error": None}))
    assert "3 of 20" in text
    assert "order=7" in text
    assert "proof" not in text
    assert "error" not in text


def test_an_error_is_shown_with_its_message() -> None:
    row = UPLOAD | {"error": "file_not_found", "message": "no such file", "state": "failed"}
    assert "file_not_found: no such file" in drawn(upload_view(row))


def test_a_document_with_missing_members_is_shown() -> None:
    assert "abc" in drawn(upload_view({"upload_id": "abc"}))
    assert "abc" in drawn(uploads_table([{"upload_id": "abc"}]))


def test_clients_are_shown_with_the_age_of_their_last_message() -> None:
    row = {
        "client_id": "restaurant-1",
        "connected": True,
        "last_activity": "2025-11-01T10:00:00Z",
        "labels": {"a": "1"},
    }
    text = drawn(clients_table([row, {"client_id": "two", "connected": False, "last_activity": None}], NOW))
    assert "30 s ago" in text
    assert "a=1" in text
    assert "never" in text


def test_a_client_that_was_never_seen_is_shown_as_such() -> None:
    row = {"client_id": "shop-7", "connected": False, "state": "never_seen", "last_activity": None, "labels": {}}
    assert "never seen" in drawn(clients_table([row], NOW))
    whole = drawn(whole_client_view({**row, "set_labels": {"site": "berlin"}, "expected": True, "note": "May"}, NOW))
    assert "site=berlin" in whole
    assert "May" in whole


def test_a_client_with_caps_of_its_own_shows_what_is_used_and_what_it_holds_back_for() -> None:
    caps = [{"period": "metered_day", "cap": 1024, "used": 512, "resets_at": "2025-11-02T00:00:00Z", "applies": False}]
    budget = {"as_of": "2025-11-01T10:00:00Z", "metered": False, "holds": ["device_load"], "caps": caps}
    text = drawn(whole_client_view({"client_id": "till-1", "budget": budget}, NOW))
    assert "sent, metered day" in text
    assert "512 B of 1.0 KiB, until 2025-11-02" in text
    assert "not on this" in text
    assert "device_load" in text


def test_a_dry_run_shows_on_which_day_how_many_would_pass_a_cap() -> None:
    crossings = [{"date": "2026-11-23", "period": "month", "clients": 14, "first": ["till-1", "till-2"]}]
    found = {"limited": 20, "by_history": 18, "by_limit": 0, "unknown": 2, "bytes": 1024, "crossings": crossings}
    lines = [str(line) for line in forecast_lines({"forecast": found})]
    assert lines == [
        "20 clients have caps of their own; 1.0 KiB are expected of 18 of them",
        "14 clients would pass the cap of a month on 2026-11-23: till-1, till-2…",
    ]
    assert forecast_lines({"forecast": None}) == []


def test_a_group_shows_what_it_selects() -> None:
    row = {"name": "beta", "entries": 2, "clients": ["a", "b*"], "selector": "ring=beta", "count": 3, "warnings": ["!"]}
    assert "ring=beta" in drawn(groups_table([row]))
    assert "3 clients now" in drawn(group_view(row))


def test_one_client_shows_what_it_uploads() -> None:
    current = {"upload_id": "u1", "file_path": "/data/a", "status": "in_progress", "progress": 45.5}
    text = drawn(client_view({"client_id": "one", "connected": True, "current_upload": current}, NOW))
    assert "u1" in text
    assert "45%" in text


def test_files_show_their_sizes_and_times() -> None:
    folder = {"path": "/data/logs", "size": 0, "mtime_ns": 1_761_991_200_000_000_000, "folder": True}
    assert "/data/logs/" in drawn(files_table([folder]))
    text = drawn(files_table([{"path": "/data/ü.bin", "size": 1536, "mtime_ns": 1_761_991_200_000_000_000}]))
    assert "1.5 KiB" in text
    assert "2025-11-01 10:00:00Z" in text
    assert "/data/ü.bin" in text


anything = st.none() | st.integers() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False)
words = st.none() | st.text(max_size=20)
instants = st.none() | st.text(max_size=30) | st.datetimes(timezones=st.timezones() | st.none()).map(datetime.isoformat)
extremes = st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2025-11-01T10:00:00"])
rows = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("upload_id", "client_id", "file_path", "s3_key", "path", "error", "message"), words),
        **dict.fromkeys(("state", "status", "origin", "proof", "digest"), words),
        **dict.fromkeys(("created_at", "updated_at", "completed_at", "connected_at"), instants | extremes),
        **dict.fromkeys(("last_activity", "last_heartbeat"), instants | extremes),
        **dict.fromkeys(("size", "mtime_ns", "progress", "bytes_uploaded", "file_size"), anything),
        **dict.fromkeys(("attempt", "completed_parts", "total_parts"), anything),
        "connected": st.booleans(),
        "reason": st.none()
        | st.fixed_dictionaries({}, optional={"code": words, "text": words, "next_wake_at": instants}),
        "labels": st.dictionaries(st.text(max_size=5), words, max_size=3),
        "metadata": st.dictionaries(st.text(max_size=5), anything | words, max_size=3),
    },
)


@given(row=rows)
def test_no_value_of_a_device_ends_a_table(row: dict[str, Any]) -> None:
    """A device may report any time and any number; the command shows it and does not end with a traceback."""
    for table in (
        uploads_table([row]),
        clients_table([row], NOW),
        files_table([row]),
        upload_view(row),
        client_view({**row, "current_upload": row}, NOW),
        whole_client_view({**row, "agent": {"version": "\x1b[2J"}, "roots": ["\x1b[2J"], "types": []}, NOW),
    ):
        assert drawn(table) is not None
