"""Documents of schedules as tables that fit 80 columns.

Rule: as in `cli.rest.tables`: an id is never shortened, and text from outside cannot move the cursor.
"""

from collections.abc import Iterable
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from control_plane.cli.rest.tables import Row, cell, facts, id_cell, reason_of, table
from control_plane.cli.text import moment, visible

CELLS: Final = ("proven", "unchanged", "empty", "healed", "pending", "missing")
_STYLES: Final = {
    **dict.fromkeys(("fired", "backfilled", "proven", "healed", "all"), "green"),
    **dict.fromkeys(("missed", "missing", "none"), "red"),
    **dict.fromkeys(("paused", "skipped_overlap", "skipped_by_operator", "pending", "partial"), "yellow"),
    **dict.fromkeys(("queued", "unchanged", "empty"), "dim"),
}


def schedules_table(rows: Iterable[Row]) -> Table:
    """Schedules, a line each."""
    shown = table("schedule", "ticks", "next", "state")
    shown.columns[0].no_wrap = True
    for row in rows:
        shown.add_row(id_cell(row.get("schedule_id")), ticks(row), moment(row.get("next_at")), state(row))
    return shown


def schedule_view(row: Row) -> Group:
    """One schedule in full."""
    job: dict[str, Any] = row.get("job") or {}
    targets: dict[str, Any] = job.get("targets") or {}
    files: dict[str, Any] = job.get("files") or {}
    catch_up: dict[str, Any] = row.get("catch_up") or {}
    wanted = [*(targets.get("clients") or ()), *filter(None, [targets.get("selector")])]
    shown = facts(
        ("schedule", id_cell(row.get("schedule_id"))),
        ("ticks", ticks(row)),
        ("next", moment(row.get("next_at"))),
        ("skips", moment(row["skip_at"]) if row.get("skip_at") else None),
        ("state", state(row)),
        ("note", row.get("note") or None),
        ("running", ", ".join(map(visible, row.get("running") or ())) or None),
        ("queued", row.get("queued")),
        ("clients", ", ".join(map(visible, wanted[:10]))),
        ("files", ", ".join(map(visible, files.get("paths") or ())) or files.get("type")),
        ("overlap", row.get("overlap")),
        ("catch up", f"{catch_up.get('runs')}, within {catch_up.get('within')}"),
        ("delay", f"{row['delay']:.0f} s of {row.get('jitter')}" if row.get("delay") else None),
        ("failures", f"{row.get('failures')} in a row" if row.get("failures") else None),
        ("created", f"{moment(row.get('created_at'))} by {visible(row.get('created_by') or '-')}"),
        ("version", row.get("version")),
    )
    return Group(shown, *warnings(row))


def warnings(row: Row) -> list[RenderableType]:
    """What the caller may not have meant."""
    return [Text(f"warning: {visible(one)}", style="yellow") for one in row.get("warnings") or ()]


def preview_table(rows: Iterable[Row]) -> Table:
    """Ticks, a line each."""
    shown = table("tick", "local time", "note")
    for row in rows:
        shown.add_row(moment(row.get("at")), cell(row.get("local")), cell(row.get("note") or ""))
    return shown


def runs_table(rows: Iterable[Row]) -> Table:
    """Runs, a line each."""
    shown = table("tick", "kind", "status", "job", "reason")
    for row in rows:
        shown.add_row(
            moment(row.get("nominal_at")),
            cell(row.get("kind")),
            styled(row.get("status")),
            id_cell(row.get("job_id") or "-"),
            cell(reason_of(row)),
        )
    return shown


def coverage_view(row: Row) -> Group:
    """The sums of each tick, and the clients with what is not there."""
    sums = table("tick", "status", *CELLS)
    for column in sums.columns[2:]:
        column.justify = "right"
    for one in row.get("ticks") or ():
        counts = [_count(name, one.get(name)) for name in CELLS]
        sums.add_row(moment(one.get("nominal_at")), styled(one.get("status") or "-"), *counts)
    gaps = table("client", "tick", "state", "reason")
    for client in row.get("clients") or ():
        for one in client.get("cells") or ():
            if one.get("state") in {"missing", "pending"}:
                gaps.add_row(
                    cell(client.get("client_id")),
                    moment(one.get("nominal_at")),
                    styled(one.get("state")),
                    cell(one.get("reason_code")),
                )
    return Group(sums, "", gaps) if gaps.row_count else Group(sums)


def ticks(row: Row) -> str:
    """When a schedule ticks, in one line."""
    when = row.get("cron") or f"every {row.get('every')}"
    return f"{visible(when)} ({visible(row.get('zone'))})"


def state(row: Row) -> Text:
    """Whether a schedule is paused, or what it does."""
    if row.get("paused"):
        return Text("paused", style="yellow")
    running, queued = len(row.get("running") or ()), row.get("queued") or 0
    text = f"{running} running" if running else "waits"
    return Text(f"{text}, {queued} queued" if queued else text)


def styled(value: object) -> Text:
    """A state in its colour."""
    return Text(visible(value), style=_STYLES.get(str(value), ""))


def _count(name: str, value: object) -> Text:
    return Text(visible(value), style=_STYLES[name] if value else "dim")
