"""Documents of jobs as tables that fit 80 columns.

Rule: as in `cli.rest.tables`: an id is never shortened, and text of a device cannot move the cursor.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from control_plane.cli.rest.tables import Row, cell, facts, id_cell, reason_of, table
from control_plane.cli.text import ago, moment, size, visible

ENDS: Final = ("succeeded", "skipped", "partial", "failed", "rejected", "timed_out", "cancelled", "removed")
OPEN: Final = ("queued", "listing", "awaiting_approval", "uploading")
STYLES: Final = {
    **dict.fromkeys(("succeeded", "completed", "all", "proven"), "green"),
    **dict.fromkeys(("failed", "timed_out", "aborted", "none"), "red"),
    **dict.fromkeys(("partial", "paused", "cancelling", "cancelled", "expired", "rejected", "removed"), "yellow"),
    **dict.fromkeys(("queued", "skipped", "left_out"), "dim"),
}


def jobs_table(rows: Iterable[Row], now: datetime | None = None) -> Table:
    """Jobs, a line each."""
    now = now or datetime.now(UTC)
    shown = table("job", "state", "ended", "files", "sent", "created")
    shown.columns[0].no_wrap = True
    for column in shown.columns[2:5]:
        column.justify = "right"
    for row in rows:
        totals = row.get("totals") or {}
        shown.add_row(
            id_cell(row.get("job_id")),
            state(row),
            f"{ended(row)}/{row.get('clients', '-')}",
            f"{totals.get('proven', 0)}/{totals.get('files', 0)}",
            size(totals.get("proven_bytes")),
            ago(row.get("created_at"), now),
        )
    return shown


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
    counts = table("clients", "state", "reason")
    counts.columns[0].justify = "right"
    for one in reasons:
        counts.add_row(str(one.get("executions")), styled(one.get("state")), cell(one.get("reason_code")))
    return Group(shown, "", counts)


def dry_run_view(row: Row) -> Group:
    """What a job would do."""
    first = row.get("first") or []
    more = (row.get("clients") or 0) - len(first)
    names = ", ".join(map(visible, first)) + (f" and {more} more" if more > 0 else "")
    lines = [Text(f"warning: {visible(one)}", style="yellow") for one in row.get("warnings") or ()]
    return Group(
        facts(("clients", row.get("clients")), ("first", names or None), ("set", row.get("set"))),
        *lines,
        Text("nothing was made (--dry-run)", style="dim"),
    )


def executions_table(rows: Iterable[Row]) -> Table:
    """Executions, a line each."""
    shown = table("client", "state", "files", "sent", "reason")
    for column in shown.columns[2:4]:
        column.justify = "right"
    for row in rows:
        shown.add_row(
            cell(row.get("client_id")),
            styled(row.get("state")),
            f"{row.get('proven', 0)}/{row.get('files', 0)}",
            size(row.get("proven_bytes")),
            cell(reason_of(row)),
        )
    return shown


def manifest_view(row: Row) -> Group:
    """What waits for approval."""
    totals = row.get("totals") or {}
    shown = table("client", "files", "bytes", "left out", "minutes", "state")
    for column in shown.columns[1:5]:
        column.justify = "right"
    for one in row.get("clients") or row.get("largest") or ():
        minutes = one.get("minutes")
        shown.add_row(
            cell(one.get("client_id")),
            str(one.get("files")),
            size(one.get("bytes")),
            str(one.get("left_out")),
            "-" if minutes is None else f"{minutes:g}",
            styled(one.get("state")),
        )
    return Group(
        facts(
            ("as of", row.get("as_of")),
            ("approval", row.get("approval")),
            ("waiting", f"{row.get('waiting')} clients"),
            ("total", f"{totals.get('files')} files, {size(totals.get('bytes'))}"),
        ),
        "",
        shown,
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
