"""The results of a job, page by page: what became of each file, and of each execution without one.

Rule: every page is one read; a job of a million files takes the memory of one page.
"""

from collections.abc import AsyncIterator
from typing import Final

from control_plane.domain.access import Principal
from control_plane.domain.jobs.contents import object_digest
from control_plane.domain.jobs.model import Execution, ExecutionState, FileOutcome, JobFile
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.selectors import Selector
from control_plane.domain.uploads.afterwards import after_state
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.clients.reach import reach_of
from control_plane.services.errors import UnknownJob
from control_plane.services.jobs.results.formats import (
    LISTS,
    DownloadList,
    ResultFormat,
    ResultLine,
    csv_row,
    head_of,
    jsonl,
)
from control_plane.services.jobs.views import sees_job
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.jobs import ExecutionFilter, FileFilter
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.uploads.service import READ_URL_LIFE

PAGE: Final = 200
_CHUNK: Final = 100
"""Lines that are sent together."""

_LEFT_OUT_TEXT: Final = "beyond max_files, max_bytes, or what a device lists"
_OUTCOMES: Final = {
    ExecutionState.SKIPPED: FileOutcome.SKIPPED,
    ExecutionState.REJECTED: FileOutcome.REJECTED,
    ExecutionState.SUCCEEDED: FileOutcome.SKIPPED,
}
"""Of an execution without files; each other end is a failure."""

_Found = list[tuple[JobFile, Upload | None]]


class JobResults:
    """Reads the results of jobs."""

    def __init__(self, database: Database, object_store: ObjectStore) -> None:
        self._database = database
        self._object_store = object_store

    async def read(self, principal: Principal, job_id: str, form: ResultFormat) -> AsyncIterator[str]:
        """The results as text, in pieces; `UnknownJob` before the first.

        The URLs of a list are valid for an hour, or for as long as the credentials are.
        """
        reach = reach_of(principal)

        def seen(records: Records) -> bool:
            job = records.jobs.get(job_id)
            return job is not None and (reach is None or sees_job(records, job, reach))

        if not await self._database.read(seen):
            raise UnknownJob(job_id)
        return self._pieces(job_id, form, reach)

    async def _pieces(self, job_id: str, form: ResultFormat, reach: Selector | None) -> AsyncIterator[str]:
        piece, places = [head_of(form)], DownloadList(form)
        async for line in result_lines(self._database, job_id, reach):
            if form not in LISTS:
                piece.append(csv_row(line) if form is ResultFormat.CSV else jsonl(line))
            elif line.outcome == FileOutcome.PROVEN and line.key is not None:
                lifetime = self._object_store.url_lifetime(READ_URL_LIFE)
                piece.append(places.entry(line, self._object_store.presign_get(line.key, lifetime)))
            if len(piece) >= _CHUNK:
                yield "".join(piece)
                piece = []
        yield "".join(piece)


async def result_lines(database: Database, job_id: str, reach: Selector | None = None) -> AsyncIterator[ResultLine]:
    """Every line, by client id and file; with `reach`, of its clients. `DatabaseUnavailable`."""
    files = _files(database, FileFilter(job_id, reach=reach))
    current = await anext(files, None)
    async for execution in _executions(database, ExecutionFilter(job_id, reach=reach)):
        own = 0
        while current is not None and current[0].client_id <= execution.client_id:
            yield _of_file(execution, *current)
            own += 1
            current = await anext(files, None)
        if not own and not execution.open:
            yield _of_execution(execution)
        if execution.left_out:
            yield ResultLine(
                client_id=execution.client_id,
                path=None,
                outcome=FileOutcome.LEFT_OUT,
                reason_code=ReasonCode.OVER_LIMIT,
                reason=_LEFT_OUT_TEXT,
                count=execution.left_out,
                attempts=execution.attempt,
            )


async def _executions(database: Database, where: ExecutionFilter) -> AsyncIterator[Execution]:
    page = Page(PAGE)
    while True:
        found, cursor = await database.read(lambda records, page=page: records.jobs.executions.list(where, page))  # type: ignore[misc]
        for execution in found:
            yield execution
        if cursor is None:
            return
        page = Page(PAGE, cursor)


async def _files(database: Database, where: FileFilter) -> AsyncIterator[tuple[JobFile, Upload | None]]:
    page = Page(PAGE)
    while True:
        found, cursor = await database.read(lambda records, page=page: _file_page(records, where, page))  # type: ignore[misc]
        for pair in found:
            yield pair
        if cursor is None:
            return
        page = Page(PAGE, cursor)


def _file_page(records: Records, where: FileFilter, page: Page) -> tuple[_Found, str | None]:
    found, cursor = records.jobs.files.list(where, page)
    return [(file, upload_of(records, file)) for file in found], cursor


def upload_of(records: Records, file: JobFile) -> Upload | None:
    """The upload of a file; None before it exists, and after it was pruned."""
    return None if file.upload_id is None else records.uploads.get(UploadKey(file.client_id, file.upload_id))


def _of_file(execution: Execution, file: JobFile, upload: Upload | None) -> ResultLine:
    proven = upload is not None and upload.state is State.COMPLETED
    return ResultLine(
        client_id=file.client_id,
        path=file.path,
        outcome=file.outcome,
        reason_code=None if file.reason is None else str(file.reason.code),
        reason=None if file.reason is None else file.reason.text,
        bytes=upload.file_size if upload is not None and proven else file.size,
        attempts=execution.attempt,
        key=file.key if upload is None else upload.s3_key,
        digest=None if upload is None else object_digest(upload),
        upload_id=file.upload_id,
        after=None if upload is None or (act := after_state(upload)) is None else str(act.outcome),
    )


def _of_execution(execution: Execution) -> ResultLine:
    return ResultLine(
        client_id=execution.client_id,
        path=None,
        outcome=_OUTCOMES.get(execution.state, FileOutcome.FAILED),
        reason_code=str(execution.reason.code),
        reason=execution.reason.text,
        count=0,
        attempts=execution.attempt,
    )
