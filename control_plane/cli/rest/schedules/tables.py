"""Documents of schedules as tables that fit 80 columns.

Rule: as in `cli.rest.tables`: an id is never shortened, and text from outside cannot move the cursor.
"""

from collections.abc import Iterable
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from control_plane.cli.layout import Column, Listing, Row, facts, id_cell
from control_plane.cli.rest.tables import reason_of
from control_plane.cli.text import moment, visible

CELLS: Final = ("proven", "unchanged", "empty", "healed", "pending", "missing")
_STYLES: Final = {
    **dict.fromkeys(("fired", "backfilled", "proven", "healed", "all"), "green"),
    **dict.fromkeys(("missed", "missing", "none"), "red"),
    **dict.fromkeys(("paused", "skipped_overlap", "skipped_by_operator", "pending", "partial"), "yellow"),
    **dict.fromkeys(("queued", "unchanged", "empty"), "dim"),
}


def schedules_table(rows: Iterable[Row]) -> Listing:
    """Schedules, a line each."""
    columns = (
        Column("schedule", lambda row: row.get("schedule_id"), whole=True),
        Column("ticks", ticks),
        Column("next", lambda row: moment(row.get("next_at"))),
        Column("failures", lambda row: row.get("failures"), wide=True, right=True),
        Column("note", lambda row: row.get("note") or "-", wide=True),
        Column("state", state),
    )
    return Listing(columns, list(rows))


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


def preview_table(rows: Iterable[Row]) -> Listing:
    """Ticks, a line each."""
    columns = (
        Column("tick", lambda row: moment(row.get("at"))),
        Column("local time", lambda row: row.get("local")),
        Column("note", lambda row: row.get("note") or ""),
    )
    return Listing(columns, list(rows))


def runs_table(rows: Iterable[Row]) -> Listing:
    """Runs, a line each."""
    columns = (
        Column("tick", lambda row: moment(row.get("nominal_at"))),
        Column("kind", lambda row: row.get("kind")),
        Column("status", lambda row: styled(row.get("status"))),
        Column("outcome", lambda row: row.get("outcome"), wide=True),
        Column("ended", lambda row: moment(row.get("ended_at")), wide=True),
        Column("job", lambda row: row.get("job_id"), whole=True),
        Column("reason", reason_of),
    )
    return Listing(columns, list(rows))


def coverage_view(row: Row) -> Group:
    """The sums of each tick, and the clients with what is not there."""
    sums = (
        Column("tick", lambda one: moment(one.get("nominal_at"))),
        Column("status", lambda one: styled(one.get("status") or "-")),
        *(Column(name, lambda one, name=name: _count(name, one.get(name)), right=True) for name in CELLS),  # type: ignore[misc]
    )
    gaps = (
        Column("client", lambda one: one.get("client_id")),
        Column("tick", lambda one: moment(one.get("nominal_at"))),
        Column("state", lambda one: styled(one.get("state"))),
        Column("reason", lambda one: one.get("reason_code")),
    )
    missing = [
        {**one, "client_id": client.get("client_id")}
        for client in row.get("clients") or ()
        for one in client.get("cells") or ()
        if one.get("state") in {"missing", "pending"}
    ]
    shown = Listing(sums, list(row.get("ticks") or ()))
    return Group(shown, "", Listing(gaps, missing)) if missing else Group(shown)


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
