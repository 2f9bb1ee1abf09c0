"""REST documents as tables that fit 80 columns.

Rule: as in `cli.layout`. A member that an older control plane does not send shows as `-`.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from control_plane.cli.layout import Column, Listing, Row, cell, dash, facts, id_cell
from control_plane.cli.rest.progress import waiting_reason
from control_plane.cli.text import ago, moment, moment_of_ns, size, visible

STYLES: Final = {
    "completed": "green",
    "failed": "red",
    "rejected": "red",
    "expired": "red",
    "cancelled": "yellow",
    "queued": "dim",
}


def uploads_table(rows: Iterable[Row], *, short: bool = False) -> Listing:
    """Uploads, a line each; `short` omits the folders of their files' paths."""
    columns = (
        Column("upload", lambda row: row.get("upload_id"), whole=True),
        Column("client", lambda row: row.get("client_id")),
        Column("state", state_text),
        Column("done", done, right=True),
        Column("size", lambda row: size(row.get("file_size")), wide=True, right=True),
        Column("created", lambda row: moment(row.get("created_at")), wide=True),
        Column("reason", reason_code, wide=True),
        Column("object", lambda row: row.get("s3_key"), wide=True),
        Column("file", lambda row: _file(row, short=short)),
    )
    return Listing(columns, list(rows))


def clients_table(rows: Iterable[Row], now: datetime | None = None) -> Listing:
    """Clients, a line each."""
    now = now or datetime.now(UTC)
    columns = (
        Column("client", lambda row: row.get("client_id")),
        Column("connected", _presence),
        Column("last heard", lambda row: ago(row.get("last_activity"), now)),
        Column("at", lambda row: moment(row.get("last_activity")), wide=True),
        Column("reason", reason_of, wide=True),
        Column("labels", lambda row: labels(row.get("labels"))),
    )
    return Listing(columns, list(rows))


def files_table(rows: Iterable[Row]) -> Listing:
    """Files on a device, a line each."""
    columns = (
        Column("size", lambda row: "" if row.get("folder") is True else size(row.get("size")), right=True),
        Column("changed", lambda row: moment_of_ns(row.get("mtime_ns"))),
        Column("digest", lambda row: row.get("digest"), wide=True),
        Column("path", lambda row: f"{row.get('path')}/" if row.get("folder") is True else row.get("path")),
    )
    return Listing(columns, list(rows))


def _presence(row: Row) -> Text:
    connected = Text("never seen", style="dim") if row.get("state") == "never_seen" else _yes(row.get("connected"))
    if row.get("connected") and row.get("reason"):
        connected.append(f"\n{visible(reason_code(row))}", style="red")
    return connected


_RECEIPTS: Final = {
    "awaited": "not made yet",
    "control-plane": "signed by the control plane alone",
    "device": "signed by the device and the control plane",
}


def upload_view(row: Row) -> Table:
    """One upload, a line for each known fact."""
    parts = f"{dash(row.get('completed_parts'))} of {dash(row.get('total_parts'))}"
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
        ("receipt", _RECEIPTS.get(row.get("receipt") or "")),
        ("after", _after(row.get("after"))),
        ("metadata", labels(row.get("metadata")) if row.get("metadata") else None),
        ("origin", row.get("origin")),
        ("created", moment(row.get("created_at"))),
        ("updated", moment(row.get("updated_at"))),
        ("completed", moment(row.get("completed_at")) if row.get("completed_at") else None),
    )


def _after(act: Row | None) -> str | None:
    """What the device was to do with the file, and what became of it."""
    if act is None:
        return None
    why = _sentence(act.get("code"), act.get("text"))
    return f"{act['asked']}: {act['outcome']}" + (f" ({why})" if why else "")


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
        ("policy", ", ".join(agent.get("policy") or ()) or None),
        ("obeys keys", _keys(row)),
        ("roots", ", ".join(row.get("roots") or ())),
        ("file types", ", ".join(row.get("types") or ())),
        ("file", row.get("default_file")),
        *_budget(row.get("budget"), now or datetime.now(UTC)),
    )


def _keys(row: Row) -> str | None:
    """The list of keys that a client obeys; None for one that obeys unsigned commands."""
    if row.get("keys_version") is None:
        return None
    refused = row.get("unverified") or 0
    return f"version {row['keys_version']}" + (f"; refused {refused} messages" if refused else "")


def _budget(budget: Mapping[str, Any] | None, now: datetime) -> Iterable[tuple[str, Any]]:
    """What a device may send by its own caps, and what it holds back for."""
    if not budget:
        return
    for one in budget.get("caps") or ():
        idle = "" if one.get("applies") else "; not on this link"
        until = f", until {moment(one['resets_at'])}" if one.get("resets_at") else ""
        name = str(one.get("period")).replace("_", " ")
        yield f"sent, {name}", f"{size(one.get('used'))} of {size(one.get('cap'))}{until}{idle}"
    yield "link", "metered" if budget.get("metered") else "not metered"
    yield "holds back", ", ".join(budget.get("holds") or ()) or None
    yield "reported", ago(budget.get("as_of"), now)


def groups_table(rows: Iterable[Row]) -> Listing:
    """Groups, a line each."""
    columns = (
        Column("group", lambda row: row.get("name"), whole=True),
        Column("ids and patterns", lambda row: row.get("entries"), right=True),
        Column("selector", lambda row: row.get("selector")),
        Column("note", lambda row: row.get("note") or "-"),
    )
    return Listing(columns, list(rows))


def group_view(row: Row) -> Table:
    """One group, a line for each known fact."""
    return facts(
        ("group", row.get("name")),
        ("clients", ", ".join(row.get("clients") or ())),
        ("selector", row.get("selector")),
        ("note", row.get("note")),
        ("selects", f"{dash(row.get('count'))} clients now"),
        ("set", row.get("set")),
        ("warnings", "; ".join(row.get("warnings") or ())),
    )


def state_text(row: Row) -> Text:
    """The exact state, coloured."""
    state = dash(row.get("state") or row.get("status"))
    return Text(state, style=STYLES.get(state, "cyan"))


def done(row: Row) -> str:
    """Progress in percent, rounded down."""
    progress = row.get("progress")
    return "-" if progress is None else f"{math.floor(min(100.0, max(0.0, progress)))}%"


def labels(values: Mapping[str, Any] | None) -> Text:
    """A map as `key=value` pairs."""
    return cell(" ".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or "-")


def _file(row: Row, *, short: bool) -> Text:
    """The file, and the reason why its upload waits, if any."""
    path = row.get("file_path")
    folder, slash, name = str(path or "").rpartition("/")
    text = cell(f"…{slash}{name}" if short and folder else path)
    note = row.get("error") or waiting_reason(dict(row))
    return text.append(f"\n{visible(note)}", style="dim") if note else text


def _sentence(error: object, message: object) -> str | None:
    return ": ".join(str(part) for part in (error, message) if part) or None


def _yes(value: object) -> Text:
    return Text("yes", style="green") if value else Text("no", style="yellow")


def reason_of(row: Row, *, coded: bool = False) -> str | None:
    """The sentence of a row's reason, with `coded` its code too; None without a reason."""
    reason = row.get("reason")
    if not reason:
        return None
    text = visible(reason.get("text"))
    return f"{text} ({visible(reason.get('code'))})" if coded else text


def reason_code(row: Row) -> str | None:
    """The code of a row's reason; None without one."""
    code = (row.get("reason") or {}).get("code")
    return None if code is None else str(code)


def history_table(rows: Iterable[Row]) -> Listing:
    """Spans of presence, a line each."""
    columns = (
        Column("begin", lambda row: moment(row.get("begin"))),
        Column("end", lambda row: moment(row.get("end"))),
        Column("state", lambda row: row.get("state") or "not known"),
    )
    return Listing(columns, list(rows))


def timeline_table(rows: Iterable[Row]) -> Listing:
    """What happened to an upload, a line each."""
    columns = (
        Column("at", lambda row: moment(row.get("at"))),
        Column("what", lambda row: row.get("type")),
        Column("was", lambda row: row.get("was")),
        Column("state", state_text),
        Column("attempt", lambda row: row.get("attempt"), right=True),
        Column("number", lambda row: row.get("number"), wide=True, right=True),
        Column("error", lambda row: row.get("error")),
    )
    return Listing(columns, list(rows))
