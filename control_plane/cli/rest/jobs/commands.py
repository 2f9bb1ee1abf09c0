"""`backhaul job`: create, look at, steer, and fetch.

Rule: exit codes of a job that is followed: 0 all, 5 partial, 1 none, 124 after `--timeout`.
"""

import uuid
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.live import Live
from rich.text import Text

from control_plane.cli.errors import PARTIAL, Failed, Misused
from control_plane.cli.parsing import read_after, read_document, read_options, read_upload_options
from control_plane.cli.rest.answers.shapes import EXECUTIONS, JOB, JOB_FILES, JOBS, MANIFEST
from control_plane.cli.rest.arguments import After, EncryptTo, JobId, Most, Selected, Timeout, read_seconds
from control_plane.cli.rest.client import ControlPlane, Document
from control_plane.cli.rest.events import Wakes
from control_plane.cli.rest.jobs.calls import JobCalls, job_path
from control_plane.cli.rest.jobs.progress import exit_code, follow
from control_plane.cli.rest.jobs.pull import Pulled, Puller
from control_plane.cli.rest.jobs.tables import (
    dry_run_view,
    executions_table,
    job_files_table,
    job_view,
    jobs_table,
    manifest_view,
)
from control_plane.cli.rest.watching import Watch, show_or_watch
from control_plane.cli.session import CliSession, Tree, new_app, rest_command
from control_plane.cli.shell import candidates
from control_plane.cli.text import size, visible

FromFile = Annotated[
    str | None, typer.Option("--file", "-f", metavar="FILE", help="The job as JSON; - is standard input.")
]
NewId = Annotated[str | None, typer.Option("--id", metavar="JOB", help="Its id: the same id means the same job.")]
OnlyClients = Annotated[
    list[str] | None,
    typer.Option("--client", "-c", metavar="CLIENT", help="Only these. Repeatable.", autocompletion=candidates.clients),
]
ExceptClients = Annotated[
    list[str] | None, typer.Option("--except", "-x", metavar="CLIENT", help="All but these. Repeatable.")
]
Selector = Annotated[
    str | None,
    typer.Option("--selector", "-l", metavar="SELECTOR", help="By labels: 'site=berlin,model in (pi4,pi5)'."),
]
Paths = Annotated[
    list[str] | None, typer.Option("--path", "-p", metavar="GLOB", help="Files, such as '/data/*.csv'. Repeatable.")
]
FileType = Annotated[
    str | None,
    typer.Option("--type", "-t", metavar="NAME", help="A file type that the devices configure, in place of --path."),
]
Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Kept with the job.")]
Deadline = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Give up then: 36h, 7d or 2026-11-27T18:00:00Z. \\[7d]")
]
NewDeadline = Annotated[
    str, typer.Argument(metavar="WHEN", help="The new deadline: 12h from now, or 2026-11-27T18:00:00Z.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, show what it would do, make nothing.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Stay until the job is over.")]
WatchTimeout = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Stay at most so long: 90s, 10m; then exit with 124.")
]
States = Annotated[
    list[str] | None, typer.Option("--state", "-s", metavar="STATE", help="Only in this state. Repeatable.")
]
OfSchedule = Annotated[
    str | None,
    typer.Option("--schedule", metavar="SCHEDULE", help="Made by it.", autocompletion=candidates.schedules),
]
OfReason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="With this reason code.")]
OneClient = Annotated[
    str | None,
    typer.Option("--client", "-c", metavar="CLIENT", help="Of this client only.", autocompletion=candidates.clients),
]
Outcomes = Annotated[
    list[str] | None,
    typer.Option(
        "--outcome", "--state", "-s", metavar="OUTCOME", help="Only with this one: proven, failed, … Repeatable."
    ),
]
Undecided = Annotated[bool, typer.Option("--undecided", help="Only what is to be sent, or is being sent.")]
Format = Annotated[str, typer.Option("--format", metavar="FORMAT", help="jsonl, csv, curl or aria2.")]
Parallel = Annotated[int, typer.Option("--parallel", "-j", min=1, max=32, help="Files at a time.")]
Settings = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE…", help="per_minute, max_running, priority, deadline, windows.")
]

MANY: Final = 50
"""Executions beyond which a person is asked before they are repeated."""

_CHANGES: Final = {"type": ["job.*", "execution.*"]}
_VERBS: Final = {
    "pause": "Begin nothing more, and grant nothing more; the deadline keeps running.",
    "resume": "Resume a paused job.",
    "cancel": "End a job: what did not begin never begins, and what is uploading is cancelled.",
}
_ROLLOUT: Final = ("per_minute", "max_running")
_TUNABLE: Final = (*_ROLLOUT, "priority", "deadline", "windows")


def build() -> Tree:
    """The commands of jobs."""
    app = new_app("Request files of many clients, and follow, steer and fetch the result.")
    for name, function, shape in (
        ("create", create, JOB),
        ("list", list_jobs, JOBS),
        ("show", show, JOB),
        ("watch", watch, JOB),
        ("executions", executions, EXECUTIONS),
        ("files", files, JOB_FILES),
        ("manifest", manifest, MANIFEST),
        ("approve", approve, None),
        ("reject", reject, None),
        ("retry", retry, None),
        ("extend", extend, None),
        ("add", add, None),
        ("set", set_options, JOB),
        ("results", results, None),
        ("pull", pull, None),
    ):
        app.command(name)(rest_command(function, shape))
    for verb, text in _VERBS.items():
        app.command(verb, help=text)(rest_command(_verb(verb)))
    return app


def create(  # noqa: PLR0913 - one for each option
    session: CliSession,
    *,
    file: FromFile = None,
    job_id: NewId = None,
    client: Selected = None,
    selector: Selector = None,
    path: Paths = None,
    file_type: FileType = None,
    reason: Why = None,
    deadline: Deadline = None,
    after: After = None,
    encrypt_to: EncryptTo = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Create a job from a file, from options, or from both: an option replaces what the file has."""
    body = read_document(file) if file is not None else {}
    changes: dict[str, dict[str, Any]] = {"targets": {}, "files": {}}
    if client or selector is not None:
        changes["targets"] = {"clients": client or [], "selector": selector}
    if path or file_type:
        changes["files"] = {"paths": path or [], "type": file_type}
    for name, members in changes.items():
        if members:
            body[name] = {**(body.get(name) or {}), **members}
    if encrypt_to:
        body["options"] = {**(body.get("options") or {}), **read_upload_options(None, encrypt_to)}
    given = {"reason": reason, "deadline": deadline, "job_id": job_id, "after": read_after(after)}
    body |= {key: value for key, value in given.items() if value}
    for name, hint in (("targets", "--client or --selector"), ("files", "--path or --type")):
        if name not in body:
            text = f"the job names no {name}: give {hint}, or --file"
            raise Misused(text)
    body.setdefault("job_id", uuid.uuid4().hex[:16])
    limit = read_seconds(timeout)
    with session.connect() as plane:
        jobs = JobCalls(plane)
        answer = jobs.create(body, dry_run=dry_run)
        if dry_run:
            session.output.result(answer, dry_run_view(answer))
        elif wait:
            _wait_for(session, jobs, answer["job_id"], limit)
        else:
            session.output.result(answer, _created(session, answer))


def list_jobs(
    session: CliSession, *, state: States = None, schedule: OfSchedule = None, limit: Most = 50, watch: Watch = False
) -> None:
    """List jobs, newest first."""
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: JobCalls(plane).jobs(limit, state=state, schedule_id=schedule),
            lambda answer: jobs_table(answer["jobs"]),
            JOBS,
            _CHANGES,
            watch=watch,
            none=f"no jobs; `{session.step('job', 'create', '--help')}` shows how to make one",
        )


def show(session: CliSession, job_id: JobId, *, watch: Watch = False) -> None:
    """Show one job: its state, and its executions by state and reason."""
    with session.connect() as plane:
        show_or_watch(session, lambda: JobCalls(plane).job(job_id), job_view, JOB, {"job": job_id}, watch=watch)


def watch(session: CliSession, job_id: JobId, *, timeout: WatchTimeout = None) -> None:
    """Stay until a job is over; the exit code is its outcome."""
    with session.connect() as plane:
        _wait_for(session, JobCalls(plane), job_id, read_seconds(timeout))


def executions(
    session: CliSession,
    job_id: JobId,
    *,
    state: States = None,
    reason: OfReason = None,
    client: OnlyClients = None,
    limit: Most = 200,
    watch: Watch = False,
) -> None:
    """List a job's executions by client."""
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: JobCalls(plane).executions(job_id, limit, state=state, reason_code=reason, client=client),
            lambda answer: executions_table(answer["executions"]),
            EXECUTIONS,
            {"job": job_id},
            watch=watch,
            none="no executions match",
        )


def files(
    session: CliSession,
    job_id: JobId,
    *,
    client: OneClient = None,
    outcome: Outcomes = None,
    undecided: Undecided = False,
    limit: Most = 200,
    watch: Watch = False,
) -> None:
    """List the files that a job selected, and what became of each."""
    filters = {"client": client, "outcome": outcome, "undecided": "true" if undecided else None}
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: JobCalls(plane).files(job_id, limit, **filters),
            lambda answer: job_files_table(answer["files"]),
            JOB_FILES,
            {"job": job_id},
            watch=watch,
            none="no files: nothing is selected yet, or nothing matches",
        )


def manifest(session: CliSession, job_id: JobId, *, limit: Most = 50, watch: Watch = False) -> None:
    """Show what a job would send, and what waits for approval."""
    with session.connect() as plane:
        show_or_watch(
            session,
            lambda: JobCalls(plane).manifest(job_id, limit),
            manifest_view,
            MANIFEST,
            {"job": job_id},
            watch=watch,
        )


def approve(
    session: CliSession,
    job_id: JobId,
    *,
    as_of: Annotated[str | None, typer.Option(metavar="INSTANT", help="As `manifest` shows it. \\[now]")] = None,
    later: Annotated[bool, typer.Option("--later", help="Approve what is listed later, too.")] = False,
    client: OnlyClients = None,
    without: ExceptClients = None,
) -> None:
    """Approve what was listed: all of it, some clients, or all but some."""
    with session.connect() as plane:
        jobs = JobCalls(plane)
        instant = as_of or jobs.manifest(job_id, 1)["as_of"]
        body = {"as_of": instant, "later": "approve" if later else "ask"}
        body |= {name: value for name, value in {"clients": client, "except": without}.items() if value}
        answer = jobs.verb(job_id, "approve", body)
    _acted(session, answer, "approved")


def reject(session: CliSession, job_id: JobId, *, client: Selected = None) -> None:
    """Refuse what some clients would send; their executions end as rejected."""
    if not client:
        text = "name the clients: --client, repeatable"
        raise Misused(text)
    with session.connect() as plane:
        answer = JobCalls(plane).verb(job_id, "reject", {"where": {"clients": client}})
    _acted(session, answer, "rejected")


def retry(
    session: CliSession,
    job_id: JobId,
    *,
    state: States = None,
    client: OnlyClients = None,
    deadline: Deadline = None,
    wait: Wait = False,
    timeout: Timeout = None,
) -> None:
    """Repeat executions that ended: those that failed or timed out, or those in the given states."""
    chosen = state or ([] if client else ["failed", "timed_out", "partial"])
    limit = read_seconds(timeout)
    with session.connect() as plane:
        jobs = JobCalls(plane)
        shown = jobs.executions(job_id, 1, state=chosen, client=client)
        if shown["count"] > MANY:
            session.output.confirm(f"Repeat {shown['count']} executions of job {job_id}?")
        where = {"state": chosen, "clients": client or [], "count": shown["count"], "set": shown["set"]}
        body = {"where": where, **({"deadline": deadline} if deadline else {})}
        answer = jobs.verb(job_id, "retry", body, jobs.job(job_id)["version"])
        if wait:
            _wait_for(session, jobs, job_id, limit)
            return
    _acted(session, answer, "queued again")


def extend(session: CliSession, job_id: JobId, deadline: NewDeadline) -> None:
    """Move the deadline of a job, and of its open uploads: 12h from now, or 2026-11-27T18:00:00Z."""
    with session.connect() as plane:
        jobs = JobCalls(plane)
        answer = jobs.verb(job_id, "extend", {"deadline": deadline}, jobs.job(job_id)["version"])
    session.output.result(answer, job_view(answer["job"]))


def add(session: CliSession, job_id: JobId, *, client: Selected = None, selector: Selector = None) -> None:
    """Add clients to a job that runs; one that belongs to it already is left as it is."""
    if not client and selector is None:
        text = "name the clients: --client or --selector"
        raise Misused(text)
    with session.connect() as plane:
        answer = JobCalls(plane).verb(job_id, "add-clients", {"clients": client or [], "selector": selector})
    _acted(session, answer, "added")


def set_options(session: CliSession, job_id: JobId, settings: Settings) -> None:
    """Retune a job that runs; it takes effect with the next grant."""
    given = read_options(settings)
    if unknown := [name for name in given if name not in _TUNABLE]:
        text = f"{unknown[0]!r} cannot be set: only {', '.join(_TUNABLE)}"
        raise Misused(text)
    body: dict[str, Any] = {name: value for name, value in given.items() if name not in _ROLLOUT}
    if rollout := {name: given[name] for name in _ROLLOUT if name in given}:
        body["rollout"] = rollout
    with session.connect() as plane:
        jobs = JobCalls(plane)
        answer = jobs.patch(job_id, body, jobs.job(job_id)["version"])
    session.output.result(answer, job_view(answer))


def results(session: CliSession, job_id: JobId, *, form: Format = "jsonl") -> None:
    """Print what became of each file. curl and aria2 are download lists: they need nothing of Backhaul."""
    with session.connect() as plane:
        for line in plane.lines(f"{job_path(job_id)}/results", {"format": form}):
            session.output.text(line)


def pull(
    session: CliSession,
    job_id: JobId,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A file is stored at DIR/CLIENT/PATH.")],
    *,
    parallel: Parallel = 4,
) -> None:
    """Fetch the proven files of a job, each checked against its digest; a second run fetches what is missing."""
    with session.connect() as plane:
        done = _pulled(session, plane, job_id, folder, parallel)
    text = f"{done.fetched} fetched, {done.present} there already, {len(done.failed)} failed: {size(done.bytes)}"
    if done.unchecked:
        text += f"; {done.unchecked} have no digest, so only their size was compared"
    for place, why in done.failed.items():
        session.output.note(f"{visible(place)}: {why}", "red")
    session.output.result(done.document(), text)
    if done.failed:
        raise typer.Exit(PARTIAL if done.fetched or done.present else Failed.exit_code)


def _pulled(session: CliSession, plane: ControlPlane, job_id: str, folder: Path, parallel: int) -> Pulled:
    if not session.output.live:
        return Puller(plane, folder, parallel=parallel).run(job_id)
    line = Text("")

    def show(done: Pulled) -> None:
        line.plain = f"{done.files} files, {size(done.bytes)}" + (f", {len(done.failed)} failed" if done.failed else "")

    with Live(line, console=session.output.stderr, refresh_per_second=8, transient=True):
        return Puller(plane, folder, parallel=parallel, progress=show).run(job_id)


def _verb(verb: str) -> Any:  # noqa: ANN401 - a command
    def command(session: CliSession, job_id: JobId) -> None:
        with session.connect() as plane:
            if verb == "cancel":
                session.output.confirm(f"End job {job_id}, with what it is uploading?")
            answer = JobCalls(plane).verb(job_id, verb)
        session.output.result(answer, job_view(answer["job"]))

    command.__name__ = verb
    return command


def _wait_for(session: CliSession, jobs: JobCalls, job_id: str, timeout: float | None) -> None:
    try:
        with Wakes(session, {"job": job_id}) as wakes:
            job = follow(lambda: jobs.job(job_id), session.output, timeout, wakes)
    except KeyboardInterrupt:
        session.output.note(f"the job continues; `{session.step('job', 'cancel', about=[job_id])}` ends it")
        raise
    session.output.result(job, job_view(job))
    if code := exit_code(job):
        raise typer.Exit(code)


def _acted(session: CliSession, answer: Document, what: str) -> None:
    count = answer.get("acted_on", 0)
    session.output.result(answer, f"{count} execution{'' if count == 1 else 's'} {what}")


def _created(session: CliSession, answer: Document) -> str:
    job_id = visible(answer["job_id"])
    return f"job {job_id} has {answer['clients']} clients; `{session.step('job', 'watch', about=[job_id])}` follows it"
