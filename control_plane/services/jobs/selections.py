"""The answers of clients to `select_files`: pages are checked, stored, and read in order.

Rule: what a device claims is checked against the request; a page that was not requested changes nothing. The limits
judge the whole selection, in the order of the device, for any size of a page. An execution takes one answer in a
transaction: what is requested next is published after it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec.structs import replace

from control_plane.domain.jobs.events import JobFull, ListingRefused, PageStored, SelectionReplaced, WalkReported
from control_plane.domain.jobs.model import (
    MAX_OPEN_FILES,
    Execution,
    ExecutionKey,
    ExecutionState,
    FileOutcome,
    Job,
    JobFile,
)
from control_plane.domain.jobs.spec import FileQuery
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.services.jobs.plans import request_id
from control_plane.services.jobs.turn import JobTurn
from control_plane.services.ports.jobs import ProvenFile
from schemas.globs import Globs
from schemas.messages import FileEntry, Response, Selection
from schemas.parts import MAX_FILE_SIZE
from schemas.values import ERRORS, ErrorCode, Follow, ResponseStatus

_LONGEST_TEXT: Final = 500


class Answer(NamedTuple):
    """A response of a client to `select_files`."""

    client_id: str
    response: Response


def take_answers(turn: JobTurn, answers: Sequence[Answer]) -> int:
    """Apply the answers to their executions; returns how many changed one."""
    named = {
        ExecutionKey(one.response.payload.job_id, one.client_id)
        for one in answers
        if isinstance(one.response.payload, Selection) and one.response.payload.job_id
    }
    found = dict(turn.records.jobs.executions.some(named))
    for one in answers:
        if not (isinstance(one.response.payload, Selection) and one.response.payload.job_id):
            # A refusal may name no job: its id is that of one request to this client.
            found |= {execution.key: execution for execution in turn.records.jobs.executions.of_client(one.client_id)}
    turn.load(found.values())
    return sum(_take(turn, found.keys(), one) for one in answers)


def _take(turn: JobTurn, keys: Iterable[ExecutionKey], answer: Answer) -> bool:
    response, page = answer.response, answer.response.payload
    if isinstance(page, Selection) and page.job_id:
        keys = [ExecutionKey(page.job_id, answer.client_id)]
    for key in keys:
        execution = turn.current(key) if key.client_id == answer.client_id else None
        if execution is None or execution.state is not ExecutionState.LISTING or key.job_id not in turn.jobs:
            continue
        if turn.has_changed(key):
            continue
        if request_id(execution) == response.message_id:
            succeeded = isinstance(page, Selection) and ResponseStatus.read(response.status) is ResponseStatus.SUCCESS
            if isinstance(page, Selection) and succeeded:
                _store_page(turn, execution, page)
            else:
                _refuse(turn, execution, response)
            return True
    return False


def _refuse(turn: JobTurn, execution: Execution, response: Response) -> None:
    code = ErrorCode.read(response.error or "")
    rule = ERRORS.get(code, ERRORS[ErrorCode.UNKNOWN])
    rejected = ResponseStatus.read(response.status) is ResponseStatus.REJECTED and code is not ErrorCode.UNSUPPORTED
    text = response.message or rule.meaning
    if code is ErrorCode.UNKNOWN and response.error:
        # A code is one of a few: the roll-up of the job has a row for each.
        text = f"{response.error}: {text}"
    turn.apply(
        execution,
        ListingRefused(
            now=turn.now,
            held=turn.held(execution),
            since=turn.since(execution),
            reason=Reason(code, text[:_LONGEST_TEXT]),
            rejected=rejected,
            final=rule.follow is Follow.FINAL,
            retry=turn.jobs[execution.job_id].spec.retry,
        ),
    )


@dataclass(slots=True)
class _Page:
    """What one page comes to."""

    files: list[JobFile] = field(default_factory=list)
    """To be sent, new rows and old ones."""
    size: int = 0
    unchanged: int = 0
    fresh: bool = False
    full: bool = False
    """Whether a limit of the request is reached."""


def _store_page(turn: JobTurn, execution: Execution, page: Selection) -> None:
    job = turn.jobs[execution.job_id]
    times = {"now": turn.now, "held": turn.held(execution), "since": turn.since(execution)}
    if not page.complete or page.selection is None:
        turn.apply(execution, WalkReported(**times))
        return
    offset = execution.next_index or 0
    if offset and page.selection != execution.selection:
        _drop_listed(turn, execution)
        turn.ask(turn.apply(execution, SelectionReplaced(**times)))
        return
    if page.offset != offset:
        return
    known = _known_rows(turn, execution)
    old_proven = [row for row in known.values() if row.outcome is FileOutcome.PROVEN] if not offset else []
    execution_files = execution.files + len(old_proven)
    execution_bytes = execution.bytes + sum(row.size for row in old_proven)
    found = _checked(turn, job, execution, page, known, execution_files, execution_bytes)
    goes_on = page.next is not None and page.next > offset and page.entries and not found.full
    total = turn.total_of(job.job_id)
    if total.files + len(found.files) > turn.tools.max_files and found.files:
        _drop_listed(turn, execution)
        turn.apply(execution, JobFull(**times))
        return
    files, size = len(found.files) + len(old_proven), found.size + sum(row.size for row in old_proven)
    left_out = page.files - execution.files - files - execution.unchanged - found.unchanged
    after = turn.apply(
        execution,
        PageStored(
            **times,
            selection=page.selection,
            matched_files=page.files,
            matched_bytes=page.bytes,
            files=files,
            bytes=size,
            proven=len(old_proven),
            proven_bytes=sum(row.size for row in old_proven),
            unchanged=found.unchanged,
            left_out=0 if goes_on else max(0, left_out),
            next_index=page.next if goes_on else None,
            min_files=_min_files(job),
            ask_first=_ask_first(job, total.bytes + size),
            fresh=found.fresh,
        ),
    )
    for file in found.files:
        if (file.path, file.size, file.mtime_ns) in known:
            turn.change_file(file)
        else:
            turn.add_file(file)
    if after.state is ExecutionState.LISTING:
        turn.ask(after)
        return
    _drop_earlier(turn, after, known, found.files)
    if after.state is ExecutionState.AWAITING_APPROVAL:
        turn.ask_for_approval(job.job_id)
    elif after.state is ExecutionState.UPLOADING:
        earlier = turn.records.jobs.files.pending(execution.key, MAX_OPEN_FILES) if offset else ()
        turn.begin_files(after, [*earlier, *found.files], 0)


def _checked(
    turn: JobTurn,
    job: Job,
    execution: Execution,
    page: Selection,
    known: dict[tuple[str, int, int], JobFile],
    files: int,
    size: int,
) -> _Page:
    """The entries of a page that are to be sent, up to the limits."""
    query, result = job.spec.files, _Page()
    entries = [entry for entry in page.entries if _fits(query, entry)]
    before: dict[str, ProvenFile] = {}
    if query.skip == "unchanged" and entries:
        paths = [entry.path for entry in entries]
        before = turn.records.jobs.files.proven(execution.client_id, job.scope, paths)
    n = max((row.n for row in known.values()), default=0) if execution.attempt > 1 else execution.files
    seen = {row.path for row in known.values() if row.attempt == execution.attempt}
    for entry in entries:
        row = known.get((entry.path, entry.size, entry.mtime_ns))
        if (row is not None and row.outcome is FileOutcome.PROVEN) or entry.path in seen:
            continue
        if before.get(entry.path) == (entry.size, entry.mtime_ns):
            result.unchanged += 1
            continue
        over = query.max_bytes is not None and size + entry.size > query.max_bytes
        if files >= query.max_files or over:
            result.full = True
            break
        files, size = files + 1, size + entry.size
        seen.add(entry.path)
        result.size += entry.size
        if row is not None:
            result.files.append(
                replace(row, attempt=execution.attempt, upload_id=None, outcome=None, reason=None, key=None)
            )
            continue
        n += 1
        result.fresh = True
        result.files.append(
            JobFile(
                job_id=job.job_id,
                client_id=execution.client_id,
                n=n,
                path=entry.path,
                size=entry.size,
                mtime_ns=entry.mtime_ns,
                attempt=execution.attempt,
            )
        )
    return result


def _fits(query: FileQuery, entry: FileEntry) -> bool:
    """Whether the device may have selected this entry, and S3 takes it."""
    if entry.folder or entry.size > MAX_FILE_SIZE or (query.min_size is not None and entry.size < query.min_size):
        return False
    if query.max_size is not None and entry.size > query.max_size:
        return False
    return not (query.exclude and Globs.excluding(query.exclude).covers(entry.path))


def _known_rows(turn: JobTurn, execution: Execution) -> dict[tuple[str, int, int], JobFile]:
    """The rows of earlier attempts by path, size and time: what they prove is not sent again."""
    if execution.attempt == 1:
        return {}
    rows = turn.records.jobs.files.of(execution.key)
    return {(row.path, row.size, row.mtime_ns): row for row in rows}


def _drop_earlier(
    turn: JobTurn, execution: Execution, known: dict[tuple[str, int, int], JobFile], files: Sequence[JobFile]
) -> None:
    """Delete the rows of earlier attempts that were neither proven nor listed again."""
    again = {file.n for file in files}
    gone = [
        row
        for row in known.values()
        if row.outcome is not FileOutcome.PROVEN and row.attempt < execution.attempt and row.n not in again
    ]
    turn.records.jobs.files.drop(gone)


def _drop_listed(turn: JobTurn, execution: Execution) -> None:
    """Delete what this attempt has listed so far."""
    rows = turn.records.jobs.files.of(execution.key)
    listed = [row for row in rows if row.attempt == execution.attempt and row.outcome is not FileOutcome.PROVEN]
    turn.records.jobs.files.drop(listed)


def _min_files(job: Job) -> int:
    if job.spec.files.min_files is not None:
        return job.spec.files.min_files
    return 1 if job.schedule_id is not None and job.spec.uses_tick else 0


def _ask_first(job: Job, size: int) -> bool:
    """Whether a person has to approve an execution with which the job has `size` bytes."""
    approval = job.spec.approval
    if approval.mode == "never" or job.approve_later:
        return False
    if approval.mode == "always":
        return True
    too_many = approval.clients_over is not None and job.clients > approval.clients_over
    return too_many or (approval.bytes_over is not None and size > approval.bytes_over)


UNSUPPORTED: Final = Reason(ReasonCode.UNSUPPORTED, "the agent does not know select_files: update it")

NOT_SEALED: Final = Reason(ReasonCode.UNSUPPORTED, "the agent can seal no files (encrypt_to): install PyNaCl there")
NO_AFTER: Final = Reason(ReasonCode.UNSUPPORTED, "the agent can delete and move no files (after): update it")
