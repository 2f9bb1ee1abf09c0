"""`backhaul schedule`: create, look at, steer, backfill, coverage.

Rule: a schedule belongs to the control plane; no command stays until something has happened.
"""

import secrets
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control_plane.cli.errors import Misused
from control_plane.cli.parsing import read_document
from control_plane.cli.rest.answers.shapes import COVERAGE, RUN, RUNS, SCHEDULE, SCHEDULES, TICKS
from control_plane.cli.rest.arguments import Most, ScheduleId, Selected
from control_plane.cli.rest.jobs.tables import forecast_lines
from control_plane.cli.rest.schedules.calls import ScheduleCalls
from control_plane.cli.rest.schedules.tables import (
    CELLS,
    coverage_view,
    preview_table,
    runs_table,
    schedule_view,
    schedules_table,
)
from control_plane.cli.rest.watching import Watch, show_or_watch
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.text import moment, visible

FromFile = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="The schedule, with its job, as JSON; - is standard input."),
]
NewId = Annotated[str | None, typer.Option("--id", metavar="SCHEDULE", help="Its id: the same id means the same one.")]
Cron = Annotated[str | None, typer.Option(metavar="CRON", help="Five fields, such as '0 3 * * *'.")]
EverySoOften = Annotated[str | None, typer.Option("--every", metavar="TIME", help="Such as 6h, in place of --cron.")]
Zone = Annotated[str | None, typer.Option(metavar="ZONE", help="Of cron and {tick}: Europe/Berlin. \\[UTC]")]
Selector = Annotated[
    str | None,
    typer.Option("--selector", "-l", metavar="SELECTOR", help="By labels: 'site=berlin,model in (pi4,pi5)'."),
]
Paths = Annotated[
    list[str] | None,
    typer.Option("--path", "-p", metavar="GLOB", help="Files, such as '/data/{tick:%Y%m%d}.csv'. Repeatable."),
]
Key = Annotated[
    str | None,
    typer.Option("--object", metavar="KEY", help="Of each object, such as '{tick:%Y-%m-%d}/{client_id}/{name}'."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace the schedule of this id, as it is now.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, show what it would do, make nothing.")]
Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it is shown until the schedule is resumed.")]
Count = Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many.")]
Begin = Annotated[str | None, typer.Option("--from", metavar="INSTANT", help="2026-11-20 or 2026-11-20T03:00:00Z.")]
End = Annotated[str | None, typer.Option("--to", metavar="INSTANT", help="The end, included. \\[now]")]
Status = Annotated[
    str | None,
    typer.Option("--status", "--state", "-s", metavar="STATUS", help="Only these: fired, missed, …"),
]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only these: tick, backfill, manual.")]
State = Annotated[
    str | None,
    typer.Option("--state", "-s", metavar="STATE", help=f"Only clients with such a cell: {', '.join(CELLS)}."),
]


_CHANGES: Final = {"type": ["schedule.*", "job.*", "execution.*"]}
"""A schedule changes with its ticks and with what its jobs do."""


def build() -> Tree:
    """The commands of schedules."""
    app = new_app("Make jobs by the clock, and see whose files are missing.")
    for name, function, shape in (
        ("create", create, SCHEDULE),
        ("list", list_schedules, SCHEDULES),
        ("show", show, SCHEDULE),
        ("preview", preview, TICKS),
        ("runs", runs, RUNS),
        ("coverage", coverage, COVERAGE),
        ("pause", pause, SCHEDULE),
        ("resume", resume, SCHEDULE),
        ("skip-next", skip_next, SCHEDULE),
        ("run-now", run_now, RUN),
        ("backfill", backfill, None),
        ("rm", remove, None),
    ):
        app.command(name)(rest_command(function, shape))
    return app


def create(  # noqa: PLR0913 - one for each option
    session: CliSession,
    *,
    file: FromFile = None,
    schedule_id: NewId = None,
    cron: Cron = None,
    every: EverySoOften = None,
    zone: Zone = None,
    client: Selected = None,
    selector: Selector = None,
    path: Paths = None,
    key: Key = None,
    replace: Replace = False,
    dry_run: DryRun = False,
) -> None:
    """Create a schedule from a file, from options, or from both: an option replaces what the file has."""
    body: dict[str, Any] = read_document(file) if file is not None else {}
    given = {"schedule_id": schedule_id, "cron": cron, "every": every, "zone": zone}
    body |= {name: value for name, value in given.items() if value is not None}
    job: dict[str, Any] = dict(body.get("job") or {})
    if client or selector is not None:
        job["targets"] = {**(job.get("targets") or {}), "clients": client or [], "selector": selector}
    if path:
        job["files"] = {**(job.get("files") or {}), "paths": path}
    if key is not None:
        job["key"] = key
    _require(body, job)
    if replace and dry_run:
        text = "--replace has no --dry-run: a replacement is checked when it is made"
        raise Misused(text)
    body["job"] = job
    with session.connect() as plane:
        schedules = ScheduleCalls(plane)
        if replace:
            name = body.pop("schedule_id", None)
            if not name:
                text = "--replace needs the schedule's id: --id"
                raise Misused(text)
            answer = schedules.replace(name, body, schedules.schedule(name)["version"])
        else:
            body.setdefault("schedule_id", f"schedule-{secrets.token_hex(4)}")
            answer = schedules.create(body, dry_run=dry_run)
    lines: list[RenderableType] = [schedule_view(answer), *forecast_lines(answer)]
    if dry_run:
        session.output.result(answer, Group(*lines, Text("nothing was made (--dry-run)", style="dim")))
    else:
        session.output.result(answer, Group(*lines, Text(_hint(session, answer), style="dim")))


def list_schedules(session: CliSession, *, watch: Watch = False) -> None:
    """List the schedules."""
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: ScheduleCalls(plane).schedules(),
            lambda answer: schedules_table(answer["schedules"]),
            SCHEDULES,
            _CHANGES,
            watch=watch,
            none=f"no schedules; `{session.step('schedule', 'create', '--help')}` shows how to make one",
        )


def show(session: CliSession, schedule_id: ScheduleId, *, watch: Watch = False) -> None:
    """Show one schedule: what it requests, when it ticks next, what it does now."""
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: ScheduleCalls(plane).schedule(schedule_id),
            schedule_view,
            SCHEDULE,
            _CHANGES,
            watch=watch,
        )


def preview(session: CliSession, schedule_id: ScheduleId, *, count: Count = 10) -> None:
    """Show the next ticks, in UTC and in local time."""
    with session.connect() as plane:
        answer = ScheduleCalls(plane).preview(schedule_id, count)
    session.output.result(answer, preview_table(answer["ticks"]))


def runs(
    session: CliSession,
    schedule_id: ScheduleId,
    *,
    status: Status = None,
    kind: Kind = None,
    begin: Begin = None,
    end: End = None,
    limit: Most = 50,
    watch: Watch = False,
) -> None:
    """List what became of each tick, the latest first."""
    span = {"from": _instant(begin), "to": _instant(end, last=True)}
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: ScheduleCalls(plane).runs(schedule_id, limit, status=status, kind=kind, **span),
            lambda answer: runs_table(answer["runs"]),
            RUNS,
            _CHANGES,
            watch=watch,
            none="no runs: the schedule has not ticked in this span",
        )


def coverage(
    session: CliSession,
    schedule_id: ScheduleId,
    *,
    begin: Begin = None,
    end: End = None,
    state: State = "missing",
    limit: Most = 100,
    watch: Watch = False,
) -> None:
    """Show whose files of which tick are proven, and who is missing; by default of the last thirty days."""
    span = {"from": _instant(begin), "to": _instant(end, last=True)}
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: ScheduleCalls(plane).coverage(schedule_id, limit, state=state, **span),
            coverage_view,
            COVERAGE,
            _CHANGES,
            watch=watch,
        )


def pause(session: CliSession, schedule_id: ScheduleId, *, note: Note = "") -> None:
    """Hold a schedule: its ticks make no jobs until it is resumed."""
    _verb(session, schedule_id, "pause", {"note": note})


def resume(session: CliSession, schedule_id: ScheduleId) -> None:
    """Resume a paused schedule; ticks of the pause are not made up for."""
    _verb(session, schedule_id, "resume")


def skip_next(session: CliSession, schedule_id: ScheduleId) -> None:
    """Skip the next tick."""
    _verb(session, schedule_id, "skip-next")


def run_now(session: CliSession, schedule_id: ScheduleId) -> None:
    """Make a job of a schedule now; it moves no tick."""
    with session.connect() as plane:
        answer = ScheduleCalls(plane).verb(schedule_id, "run-now")
    job_id = visible(answer["job_id"])
    session.output.result(answer, f"job {job_id} was made; `{session.step('job', 'watch', about=[job_id])}` follows it")


def backfill(
    session: CliSession,
    schedule_id: ScheduleId,
    *,
    begin: Annotated[str, typer.Option("--from", metavar="INSTANT", help="2026-11-20 or 2026-11-20T03:00:00Z.")],
    end: Annotated[str, typer.Option("--to", metavar="INSTANT", help="The end, included.")],
) -> None:
    """Make up for the ticks of a span that have no job, oldest first, one at a time."""
    with session.connect() as plane:
        body = {"from": _instant(begin), "to": _instant(end, last=True)}
        answer = ScheduleCalls(plane).verb(schedule_id, "backfill", body)
    left_out = f"; {answer['left_out']} have a job already" if answer["left_out"] else ""
    session.output.result(answer, f"{answer['queued']} ticks are queued{left_out}")


def remove(session: CliSession, schedule_id: ScheduleId) -> None:
    """Delete a schedule with its runs and its coverage; its jobs continue."""
    session.output.confirm(f"Delete the schedule {schedule_id} with its runs and its coverage?")
    with session.connect() as plane:
        ScheduleCalls(plane).delete(schedule_id)
    session.output.result({"schedule_id": schedule_id}, f"schedule {visible(schedule_id)} is deleted")


def _verb(session: CliSession, schedule_id: str, verb: str, body: dict[str, Any] | None = None) -> None:
    with session.connect() as plane:
        answer = ScheduleCalls(plane).verb(schedule_id, verb, body)
    session.output.result(answer, schedule_view(answer))


def _require(body: dict[str, Any], job: dict[str, Any]) -> None:
    """What REST would refuse, in terms of the options."""
    if not body.get("cron") and not body.get("every"):
        text = "the schedule has no time: give --cron, --every, or --file"
        raise Misused(text)
    for name, hint in (("targets", "--client or --selector"), ("files", "--path")):
        if name not in job:
            text = f"the job names no {name}: give {hint}, or --file"
            raise Misused(text)


def _hint(session: CliSession, answer: dict[str, Any]) -> str:
    step = session.step("schedule", "preview", about=[visible(answer["schedule_id"])])
    return f"next tick {moment(answer['next_at'])}; `{step}` shows more"


def _instant(text: str | None, *, last: bool = False) -> str | None:
    """An instant for REST: a date is its first second in UTC, or its last one."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is not None and len(text) == len("2026-11-20"):
        return f"{text}T{'23:59:59' if last else '00:00:00'}Z"
    if at is None or at.tzinfo is None:
        message = f"{text!r} is no instant: write 2026-11-20 or 2026-11-20T03:00:00Z"
        raise Misused(message)
    return text
