"""REST documents as tables that fit 80 columns.

Rule: an id, which a person may copy, is never shortened; other cells fold. A member that an older control plane does
not send shows as `-`.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from control_plane.cli.rest.progress import waiting_reason
from control_plane.cli.text import ago, moment, moment_of_ns, size, visible

Row = Mapping[str, Any]

STYLES: Final = {
    "completed": "green",
    "failed": "red",
    "rejected": "red",
    "expired": "red",
    "cancelled": "yellow",
    "queued": "dim",
}


def uploads_table(rows: Iterable[Row], *, short: bool = False) -> Table:
    """Uploads, a line each; `short` omits the folders of their files' paths."""
    shown = table("upload", "client", "state", "done", "file")
    shown.columns[0].no_wrap = True
    for row in rows:
        shown.add_row(
            id_cell(row.get("upload_id")),
            cell(row.get("client_id")),
            state_text(row),
            done(row),
            _file(row, short=short),
        )
    return shown


def clients_table(rows: Iterable[Row], now: datetime | None = None) -> Table:
    """Clients, a line each."""
    now = now or datetime.now(UTC)
    shown = table("client", "connected", "last heard", "labels")
    for row in rows:
        heard = ago(row.get("last_activity"), now)
        connected = Text("never seen", style="dim") if row.get("state") == "never_seen" else _yes(row.get("connected"))
        if row.get("connected") and row.get("reason"):
            connected.append(f"\n{visible(row['reason'].get('code'))}", style="red")
        shown.add_row(cell(row.get("client_id")), connected, heard, labels(row.get("labels")))
    return shown


def files_table(rows: Iterable[Row]) -> Table:
    """Files on a device, a line each."""
    shown = table("size", "changed", "path")
    shown.columns[0].justify = "right"
    for row in rows:
        folder = row.get("folder") is True
        path = f"{row.get('path')}/" if folder else row.get("path")
        shown.add_row("" if folder else size(row.get("size")), moment_of_ns(row.get("mtime_ns")), cell(path))
    return shown


def upload_view(row: Row) -> Table:
    """One upload, a line for each known fact."""
    parts = f"{_plain(row.get('completed_parts'))} of {_plain(row.get('total_parts'))}"
    sent = f"{size(row.get('bytes_uploaded'))} of {size(row.get('file_size'))} ({done(row)})"
    return facts(
        ("upload", id_cell(row.get("upload_id"))),
        ("client", row.get("client_id")),
        ("file", row.get("file_path")),
        ("object", row.get("s3_key")),
        ("state", state_text(row)),
        ("waits", None if row.get("completed_at") else reason_of(row, coded=True)),
        ("error" if row.get("error") else "message", _sentence(row.get("error"), row.get("message"))),
        ("sent", sent),
        ("parts", parts),
        ("attempt", row.get("attempt")),
        ("proof", row.get("proof")),
        ("metadata", labels(row.get("metadata")) if row.get("metadata") else None),
        ("origin", row.get("origin")),
        ("created", moment(row.get("created_at"))),
        ("updated", moment(row.get("updated_at"))),
        ("completed", moment(row.get("completed_at")) if row.get("completed_at") else None),
    )


def client_view(row: Row, now: datetime | None = None) -> Table:
    """One client, a line for each known fact."""
    now = now or datetime.now(UTC)
    current = row.get("current_upload") or {}
    return facts(
        ("client", row.get("client_id")),
        ("connected", _yes(row.get("connected"))),
        ("since", moment(row.get("connected_at")) if row.get("connected_at") else None),
        ("last heard", ago(row.get("last_heartbeat"), now)),
        ("note", reason_of(row, coded=True)),
        ("upload", id_cell(current.get("upload_id")) if current else "none"),
        ("file", current.get("file_path")),
        ("state", state_text(current) if current else None),
        ("done", done(current) if current else None),
    )


def whole_client_view(row: Row, now: datetime | None = None) -> Table:
    """Everything about one client, a line for each known fact."""
    agent = row.get("agent") or {}
    return facts(
        ("client", row.get("client_id")),
        ("state", _sentence(row.get("state"), reason_of(row))),
        ("last heard", ago(row.get("last_activity"), now or datetime.now(UTC))),
        ("labels", labels(row.get("labels"))),
        ("set here", labels(row.get("set_labels")) if row.get("set_labels") else None),
        ("expected", _yes(row.get("expected"))),
        ("note", row.get("note")),
        ("agent", " ".join(filter(None, (agent.get("version"), agent.get("os"), agent.get("arch"))))),
        ("time zone", row.get("timezone")),
        ("roots", ", ".join(row.get("roots") or ())),
        ("file types", ", ".join(row.get("types") or ())),
        ("file", row.get("default_file")),
    )


def groups_table(rows: Iterable[Row]) -> Table:
    """Groups, a line each."""
    shown = table("group", "ids and patterns", "selector", "note")
    for row in rows:
        shown.add_row(*map(cell, (row.get("name"), row.get("entries"), row.get("selector"), row.get("note") or "-")))
    return shown


def group_view(row: Row) -> Table:
    """One group, a line for each known fact."""
    return facts(
        ("group", row.get("name")),
        ("clients", ", ".join(row.get("clients") or ())),
        ("selector", row.get("selector")),
        ("note", row.get("note")),
        ("selects", f"{_plain(row.get('count'))} clients now"),
        ("set", row.get("set")),
        ("warnings", "; ".join(row.get("warnings") or ())),
    )


def state_text(row: Row) -> Text:
    """The exact state, coloured."""
    state = _plain(row.get("state") or row.get("status"))
    return Text(state, style=STYLES.get(state, "cyan"))


def done(row: Row) -> str:
    """Progress in percent, rounded down."""
    progress = row.get("progress")
    return "-" if progress is None else f"{math.floor(min(100.0, max(0.0, progress)))}%"


def labels(values: Mapping[str, Any] | None) -> Text:
    """A map as `key=value` pairs."""
    return cell(" ".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or "-")


def facts(*pairs: tuple[str, Any]) -> Table:
    """One thing, a line for each known fact."""
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            shown.add_row(name, value if isinstance(value, Text) else cell(value))
    return shown


def table(*names: str) -> Table:
    """An empty table with these columns; long cells fold."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in names:
        shown.add_column(name, overflow="fold")
    return shown


def _file(row: Row, *, short: bool) -> Text:
    """The file, and the reason why its upload waits, if any."""
    path = row.get("file_path")
    folder, slash, name = str(path or "").rpartition("/")
    text = cell(f"…{slash}{name}" if short and folder else path)
    note = row.get("error") or waiting_reason(dict(row))
    return text.append(f"\n{visible(note)}", style="dim") if note else text


def _sentence(error: object, message: object) -> str | None:
    return ": ".join(str(part) for part in (error, message) if part) or None


def id_cell(value: object) -> Text:
    """An id, which a person may copy: it does not fold."""
    return Text(_plain(value), no_wrap=True)


def reason_of(row: Row, *, coded: bool = False) -> str | None:
    """The sentence of a row's reason, with `coded` its code too; None without a reason."""
    reason = row.get("reason")
    if not reason:
        return None
    text = visible(reason.get("text"))
    return f"{text} ({visible(reason.get('code'))})" if coded else text


def cell(value: object) -> Text:
    """Any text, which folds."""
    return Text(_plain(value), overflow="fold")


def _yes(value: object) -> Text:
    return Text("yes", style="green") if value else Text("no", style="yellow")


def _plain(value: object) -> str:
    return "-" if value is None else visible(value)
