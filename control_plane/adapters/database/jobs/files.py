"""The selected files of executions in SQL, and what was proven before.

Rule: the primary key (job, client, number) serves every query; the end of an upload names the number of its file.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, bindparam, case, delete, func, insert, literal, select, tuple_, update

from control_plane.adapters.cursors import Row, check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.jobs.executions import BATCH
from control_plane.adapters.database.jobs.rows import FILE_COLUMNS, file_values, to_file
from control_plane.adapters.database.jobs.tables import EXECUTIONS, JOB_FILES, PROVEN_FILES
from control_plane.adapters.database.reach import inside
from control_plane.adapters.database.rows import clean
from control_plane.adapters.database.sql import Statement, Transaction, upsert
from control_plane.domain.jobs.model import ExecutionKey, FileOutcome, JobFile
from control_plane.domain.reasons import Reason
from control_plane.domain.selectors import Selector
from control_plane.services.ports.database import Page
from control_plane.services.ports.jobs import FileFilter, FilePage, ProvenFile, Settlement, Tally

_F: Final = JOB_FILES.c
_P: Final = PROVEN_FILES.c
ROWS: Final = select(*(_F[name] for name in FILE_COLUMNS))
_OF: Final = (_F.job_id == bindparam("of_job")) & (_F.client_id == bindparam("of_client"))
_ADD: Final = Statement(insert(JOB_FILES))
_PUT: Final = upsert(JOB_FILES)
_ALL: Final = Statement(ROWS.where(_OF).order_by(_F.n))
_PENDING: Final = Statement(
    ROWS.where(_OF, _F.outcome.is_(None), _F.upload_id.is_(None)).order_by(_F.n).limit(bindparam("limit"))
)
_SOME: Final = tuple_(_F.job_id, _F.client_id).in_(bindparam("keys", expanding=True))
_OPEN: Final = ROWS.where(_SOME, _F.outcome.is_(None), _F.upload_id.is_not(None))


def _number(outcome: FileOutcome) -> ColumnElement[int]:
    return func.sum(case((_F.outcome == str(outcome), 1), else_=0))


_TALLY: Final = (
    select(
        _F.job_id,
        _F.client_id,
        func.sum(case((_F.outcome.is_(None) & _F.upload_id.is_not(None), 1), else_=0)),
        func.sum(case((_F.outcome.is_(None) & _F.upload_id.is_(None), 1), else_=0)),
        _number(FileOutcome.PROVEN),
        func.sum(case((_F.outcome == str(FileOutcome.PROVEN), _F.size), else_=0)),
        _number(FileOutcome.FAILED),
        _number(FileOutcome.REJECTED),
        func.max(case((_F.outcome.in_([str(FileOutcome.FAILED), str(FileOutcome.REJECTED)]), _F.n), else_=0)),
    )
    .where(_SOME)
    .group_by(_F.job_id, _F.client_id)
)
_WORST: Final = Statement(select(_F.reason_code, _F.reason).where(_OF, _F.n == bindparam("of_n")))
_SETTLE: Final = Statement(
    update(JOB_FILES)
    .where(_OF, _F.n == bindparam("of_n"), _F.upload_id == bindparam("of_upload"))
    .values(outcome=bindparam("ended"), key=bindparam("of_key"), reason_code=bindparam("code"), reason=bindparam("why"))
)
_GIVE_UP: Final = Statement(
    update(JOB_FILES)
    .where(_OF, _F.outcome.is_(None), _F.upload_id.is_(None))
    .values(outcome=bindparam("ended"), reason_code=bindparam("code"), reason=bindparam("why"))
)
_DROP: Final = Statement(delete(JOB_FILES).where(_OF, _F.n == bindparam("of_n")))
_TOUCH: Final = Statement(
    update(EXECUTIONS)
    .where(
        EXECUTIONS.c.job_id == bindparam("of_job"),
        EXECUTIONS.c.client_id == bindparam("of_client"),
        EXECUTIONS.c.due_at.is_not(None),
    )
    .values(due_at=0.0)
)
_PROVEN: Final = select(_P.path, _P.size, _P.mtime_ns).where(
    _P.client_id == bindparam("of_client"),
    _P.scope == bindparam("of_scope"),
    _P.path.in_(bindparam("paths", expanding=True)),
)
_NOTE: Final = upsert(PROVEN_FILES)

_position: Final = msgspec.json.Decoder(tuple[str, Row])


class SqlJobFiles:
    """Selected files, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, files: Sequence[JobFile]) -> None:
        """One statement."""
        self._transaction.run_each(_ADD, [file_values(file) for file in files])

    def put(self, files: Sequence[JobFile]) -> None:
        """One statement."""
        self._transaction.run_each(_PUT, [file_values(file) for file in files])

    def of(self, key: ExecutionKey) -> Sequence[JobFile]:
        """At most 10,000."""
        return [to_file(row) for row in self._transaction.run(_ALL, _named(key)).fetchall()]

    def pending(self, key: ExecutionKey, limit: int) -> Sequence[JobFile]:
        """A walk over the files of the execution."""
        rows = self._transaction.run(_PENDING, {**_named(key), "limit": limit}).fetchall()
        return [to_file(row) for row in rows]

    def open(self, keys: Iterable[ExecutionKey]) -> dict[ExecutionKey, list[JobFile]]:
        """A walk over the files of the executions."""
        found: dict[ExecutionKey, list[JobFile]] = defaultdict(list)
        for some in _batches(keys):
            for row in self._transaction.connection.execute(_OPEN, {"keys": some}):
                file = to_file(row)
                found[ExecutionKey(file.job_id, file.client_id)].append(file)
        return dict(found)

    def tally(self, keys: Iterable[ExecutionKey]) -> dict[ExecutionKey, Tally]:
        """One statement for all, and one for each execution of which a file failed."""
        wanted = list(keys)
        found = dict.fromkeys(wanted, Tally())
        for some in _batches(wanted):
            for job_id, client_id, *sums in self._transaction.connection.execute(_TALLY, {"keys": some}):
                # PostgreSQL sums big integers to decimals.
                opened, pending, proven, proven_bytes, failed, rejected, worst = map(int, sums)
                key = ExecutionKey(job_id, client_id)
                reason = self._reason_of(key, worst) if worst else None
                found[key] = Tally(opened, pending, proven, proven_bytes, failed, rejected, reason)
        return found

    def _reason_of(self, key: ExecutionKey, n: int) -> Reason | None:
        row = self._transaction.run(_WORST, {**_named(key), "of_n": n}).fetchone()
        return None if row is None or row[0] is None else Reason(row[0], row[1] or "")

    def settle(self, ends: Sequence[Settlement]) -> None:
        """Two statements. An upload of an earlier attempt changes no row: its file names another upload by now."""
        rows = [
            {
                "of_job": end.job_id,
                "of_client": end.client_id,
                "of_n": end.n,
                "of_upload": end.upload_id,
                "ended": str(end.outcome),
                "of_key": end.key,
                "code": None if end.reason is None else clean(end.reason.code),
                "why": None if end.reason is None else clean(end.reason.text),
            }
            for end in sorted(ends)
        ]
        self._transaction.run_each(_SETTLE, rows)
        keys = sorted({ExecutionKey(end.job_id, end.client_id) for end in ends})
        self._transaction.run_each(_TOUCH, [_named(key) for key in keys])

    def give_up(self, keys: Iterable[ExecutionKey], outcome: FileOutcome, reason: Reason) -> None:
        """One statement."""
        end = {"ended": str(outcome), "code": clean(reason.code), "why": clean(reason.text)}
        self._transaction.run_each(_GIVE_UP, [{**_named(key), **end} for key in sorted(keys)])

    def drop(self, files: Sequence[JobFile]) -> None:
        """One statement."""
        names = [{"of_job": one.job_id, "of_client": one.client_id, "of_n": one.n} for one in files]
        self._transaction.run_each(_DROP, names)

    def list(self, where: FileFilter, page: Page) -> FilePage:
        """A walk along the primary key."""
        check_limit(page)
        query = ROWS.where(_F.job_id == where.job_id).order_by(_F.client_id, _F.n).limit(page.limit + 1)
        if where.client_id is not None:
            query = query.where(_F.client_id == where.client_id)
        if where.outcomes is not None:
            query = query.where(_F.outcome.in_(sorted(map(str, where.outcomes))))
        if where.undecided:
            query = query.where(_F.outcome.is_(None))
        query = query.where(*inside(self._transaction.connection, _F.client_id, where.reach))
        if page.cursor is not None:
            client_id, n = decode_cursor(page.cursor, _position)
            query = query.where(tuple_(_F.client_id, _F.n) > tuple_(literal(client_id), literal(n)))
        found = [to_file(row) for row in self._transaction.connection.execute(query)]
        last = found[page.limit - 1] if len(found) > page.limit else None
        return found[: page.limit], None if last is None else encode_cursor((last.client_id, last.n))

    def largest(self, job_id: str, limit: int, reach: Selector | None = None) -> Sequence[JobFile]:
        """A scan of the job."""
        within_reach = inside(self._transaction.connection, _F.client_id, reach)
        query = (
            ROWS.where(_F.job_id == job_id, _F.outcome.is_(None), *within_reach)
            .order_by(_F.size.desc(), _F.client_id, _F.n)
            .limit(limit)
        )
        return [to_file(row) for row in self._transaction.connection.execute(query)]

    def proven(self, client_id: str, scope: str, paths: Iterable[str]) -> dict[str, ProvenFile]:
        """By the primary key."""
        wanted = [clean(path) for path in paths]
        found: dict[str, ProvenFile] = {}
        for start in range(0, len(wanted), BATCH):
            values = {"of_client": client_id, "of_scope": scope, "paths": wanted[start : start + BATCH]}
            for path, size, mtime_ns in self._transaction.connection.execute(_PROVEN, values):
                found[path] = ProvenFile(size, mtime_ns)
        return found

    def note_proven(self, scope: str, files: Sequence[JobFile]) -> None:
        """One statement."""
        rows = [
            {
                "client_id": one.client_id,
                "scope": scope,
                "path": clean(one.path),
                "size": one.size,
                "mtime_ns": one.mtime_ns,
            }
            for one in files
        ]
        self._transaction.run_each(_NOTE, sorted(rows, key=lambda row: (row["client_id"], row["path"])))


def _named(key: ExecutionKey) -> dict[str, str]:
    return {"of_job": key.job_id, "of_client": key.client_id}


def _batches(keys: Iterable[ExecutionKey]) -> list[list[ExecutionKey]]:
    wanted = list(dict.fromkeys(keys))
    return [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
