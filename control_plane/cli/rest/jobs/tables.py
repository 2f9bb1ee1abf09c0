"""Documents of jobs as tables that fit 80 columns.

Rule: as in `cli.rest.tables`: an id is never shortened, and text of a device cannot move the cursor.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.text import Text

from control_plane.cli.layout import Column, Listing, Row, cell, facts, id_cell
from control_plane.cli.rest.tables import reason_code, reason_of
from control_plane.cli.text import ago, moment, size, visible

ENDS: Final = ("succeeded", "skipped", "partial", "failed", "rejected", "timed_out", "cancelled", "removed")
OPEN: Final = ("queued", "listing", "awaiting_approval", "uploading")
STYLES: Final = {
    **dict.fromkeys(("succeeded", "completed", "all", "proven"), "green"),
    **dict.fromkeys(("failed", "timed_out", "aborted", "none"), "red"),
    **dict.fromkeys(("partial", "paused", "cancelling", "cancelled", "expired", "rejected", "removed"), "yellow"),
    **dict.fromkeys(("queued", "skipped", "left_out"), "dim"),
}


def jobs_table(rows: Iterable[Row], now: datetime | None = None) -> Listing:
    """Jobs, a line each."""
    now = now or datetime.now(UTC)
    columns = (
        Column("job", lambda row: row.get("job_id"), whole=True),
        Column("state", state),
        Column("ended", lambda row: f"{ended(row)}/{row.get('clients', '-')}", right=True),
        Column("files", _proven_of_all, right=True),
        Column("sent", lambda row: size((row.get("totals") or {}).get("proven_bytes")), right=True),
        Column("created", lambda row: ago(row.get("created_at"), now)),
        Column("by", lambda row: row.get("created_by"), wide=True),
        Column("schedule", lambda row: row.get("schedule_id"), wide=True),
        Column("deadline", lambda row: moment(row.get("deadline")), wide=True),
        Column("waits", lambda row: None if row.get("ended_at") else why(row), wide=True),
    )
    return Listing(columns, list(rows))


def _proven_of_all(row: Row) -> str:
    totals = row.get("totals") or {}
    return f"{totals.get('proven', 0)}/{totals.get('files', 0)}"


def job_view(row: Row) -> Group:
    """One job: facts, and its executions by state and reason."""
    totals, stage = row.get("totals") or {}, row.get("stage")
    spec: dict[str, Any] = row.get("spec") or {}
    files = f"{totals.get('proven', 0)} of {totals.get('files', 0)} proven"
    sent = f"{size(totals.get('proven_bytes'))} of {size(totals.get('bytes'))}"
    shown = facts(
        ("job", id_cell(row.get("job_id"))),
        ("reason", spec.get("reason")),
        ("state", state(row)),
        ("waits", None if row.get("ended_at") else why(row)),
        ("approval", None if row.get("approval") == "not_needed" else row.get("approval")),
        ("stage", f"{stage['number']} of {stage['of']} ({stage['percent']:g} %)" if stage else None),
        ("clients", f"{ended(row)} of {row.get('clients', '-')} ended"),
        ("files", f"{files}, {sent}"),
        ("key", spec.get("key")),
        ("schedule", row.get("schedule_id")),
        ("tick", moment(row.get("nominal_at")) if row.get("nominal_at") else None),
        ("created", f"{moment(row.get('created_at'))} by {visible(row.get('created_by') or '-')}"),
        ("deadline", moment(row.get("deadline"))),
        ("ended", moment(row.get("ended_at")) if row.get("ended_at") else None),
        ("version", row.get("version")),
    )
    reasons = row.get("reasons") or ()
    if not reasons:
        return Group(shown)
    counts = (
        Column("clients", lambda one: one.get("executions"), right=True),
        Column("state", lambda one: styled(one.get("state"))),
        Column("reason", lambda one: one.get("reason_code")),
    )
    return Group(shown, "", Listing(counts, reasons))


def dry_run_view(row: Row) -> Group:
    """What a job would do."""
    first = row.get("first") or []
    more = (row.get("clients") or 0) - len(first)
    names = ", ".join(map(visible, first)) + (f" and {more} more" if more > 0 else "")
    lines = [Text(f"warning: {visible(one)}", style="yellow") for one in row.get("warnings") or ()]
    return Group(
        facts(("clients", row.get("clients")), ("first", names or None), ("set", row.get("set"))),
        *lines,
        *forecast_lines(row),
        Text("nothing was made (--dry-run)", style="dim"),
    )


def forecast_lines(row: Row) -> list[Text]:
    """What is expected of the devices with caps of their own, a line for each day on which some would pass them."""
    found = row.get("forecast")
    if not found:
        return []
    known = found["limited"] - found["unknown"]
    basis = f"{found['limited']} clients have caps of their own; {size(found['bytes'])} are expected of {known} of them"
    lines = [Text(basis, style="dim")]
    for one in found["crossings"]:
        names = ", ".join(map(visible, one["first"])) + ("…" if one["clients"] > len(one["first"]) else "")
        count = one["clients"]
        who = "1 client" if count == 1 else f"{count} clients"
        period = one["period"].replace("_", " ")
        lines.append(Text(f"{who} would pass the cap of a {period} on {one['date']}: {names}", style="yellow"))
    return lines


def executions_table(rows: Iterable[Row]) -> Listing:
    """Executions, a line each."""
    columns = (
        Column("client", lambda row: row.get("client_id")),
        Column("state", lambda row: styled(row.get("state"))),
        Column("files", lambda row: f"{row.get('proven', 0)}/{row.get('files', 0)}", right=True),
        Column("sent", lambda row: size(row.get("proven_bytes")), right=True),
        Column("attempt", lambda row: row.get("attempt"), wide=True, right=True),
        Column("updated", lambda row: moment(row.get("updated_at")), wide=True),
        Column("code", reason_code, wide=True),
        Column("reason", reason_of),
    )
    return Listing(columns, list(rows))


def job_files_table(rows: Iterable[Row]) -> Listing:
    """Selected files, a line each."""
    columns = (
        Column("client", lambda row: row.get("client_id")),
        Column("size", lambda row: size(row.get("size")), right=True),
        Column("outcome", lambda row: styled(row.get("outcome"))),
        Column("upload", lambda row: row.get("upload_id"), wide=True, whole=True),
        Column("object", lambda row: row.get("key"), wide=True),
        Column("path", _path_and_reason),
    )
    return Listing(columns, list(rows))


def _path_and_reason(row: Row) -> Text:
    reason = reason_of(row)
    path = cell(row.get("path"))
    return path.append(f"\n{reason}", style="dim") if reason else path


def manifest_view(row: Row) -> Group:
    """What waits for approval."""
    totals = row.get("totals") or {}
    columns = (
        Column("client", lambda one: one.get("client_id")),
        Column("files", lambda one: one.get("files"), right=True),
        Column("bytes", lambda one: size(one.get("bytes")), right=True),
        Column("left out", lambda one: one.get("left_out"), right=True),
        Column("minutes", lambda one: None if one.get("minutes") is None else f"{one['minutes']:g}", right=True),
        Column("state", lambda one: styled(one.get("state"))),
    )
    return Group(
        facts(
            ("as of", row.get("as_of")),
            ("approval", row.get("approval")),
            ("waiting", f"{row.get('waiting')} clients"),
            ("total", f"{totals.get('files')} files, {size(totals.get('bytes'))}"),
        ),
        "",
        Listing(columns, list(row.get("clients") or row.get("largest") or ())),
    )


def state(row: Row) -> Text:
    """The state of a job, with its outcome once it is over."""
    text = styled(row.get("state"))
    outcome = row.get("outcome")
    return text.append(f" ({visible(outcome)})", style=STYLES.get(str(outcome), "")) if outcome else text


def styled(value: object) -> Text:
    """A state, coloured."""
    return Text(visible(value or "-"), style=STYLES.get(str(value), "cyan"))


def ended(row: Row) -> int:
    """Executions that are over."""
    counts = row.get("executions") or {}
    return sum(int(counts.get(name) or 0) for name in ENDS)


def why(row: Row) -> str | None:
    """What holds the job back, and until when."""
    reason = row.get("reason")
    if not reason:
        return None
    at = reason.get("next_wake_at")
    return f"{visible(reason.get('text'))}" + (f", next look {moment(at)}" if at else "")


def line(row: Row) -> str:
    """The progress of a job, as a line."""
    totals, counts = row.get("totals") or {}, row.get("executions") or {}
    states = ", ".join(f"{counts[name]} {name}" for name in (*OPEN, *ENDS) if counts.get(name))
    parts = [
        str(row.get("job_id")),
        state(row).plain,
        states,
        f"{totals.get('proven', 0)} of {totals.get('files', 0)} files",
        size(totals.get("proven_bytes")),
    ]
    return "  ".join(visible(part) for part in (*parts, why(row) if not row.get("ended_at") else None) if part)
