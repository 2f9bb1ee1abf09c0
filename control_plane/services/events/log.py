"""The log lines of committed changes.

Rule: made from typed changes alone, after their commit, by the process that committed them. An event's name and its
facts are a contract: metrics count it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

from control_plane.domain.changes import (
    Change,
    ClientConnected,
    ClientDisconnected,
    ClientForgotten,
    ExecutionStateChanged,
    JobChanged,
    JobStateChanged,
    ScheduleChanged,
    ScheduleTicked,
    UploadCreated,
    UploadMismatched,
    UploadStateChanged,
)
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.ports.log import EventLog
from control_plane.services.tracing import job_and_trace
from control_plane.services.uploads.writer import Commit

_NOT_LOGGED: Final = (ClientConnected, ClientDisconnected, JobChanged, ScheduleChanged)
"""The registry logs the presence itself, with the pair that led to it; the request that changes a job is logged."""


class ChangeLogger:
    """Logs changes: a listener of the upload writer, and called by others after their commits."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def on_commit(self, commit: Commit) -> None:
        """Log the changes of one commit of the upload writer, in their order."""
        uploads = {decision.key: decision.upload for decision in commit.decisions}
        for change in commit.changes:
            if isinstance(change, UploadCreated | UploadStateChanged):
                event, facts = _line(change)
                upload = uploads.get(UploadKey(change.client_id, change.upload_id))
                self._log(event, {**facts, **_known(change, upload)})
            else:
                self.committed((change,))

    def committed(self, changes: Iterable[Change]) -> None:
        """Log these changes, in their order; call it after the commit."""
        for change in changes:
            if not isinstance(change, _NOT_LOGGED):
                self._log(*_line(change))


def _known(change: UploadCreated | UploadStateChanged, upload: Upload | None) -> Mapping[str, Any]:
    """What the upload adds to its change: its job, its trace, and the bytes of a completed one."""
    if upload is None:
        return {}
    ended = isinstance(change, UploadStateChanged) and change.state is State.COMPLETED
    return {**job_and_trace(upload), **({"bytes": upload.file_size} if ended else {})}


def _line(change: Change) -> tuple[str, Mapping[str, Any]]:
    match change:
        case UploadCreated():
            created: dict[str, Any] = {"upload_id": change.upload_id, "client_id": change.client_id}
            return "upload.created", created if change.job_id is None else {**created, "job_id": change.job_id}
        case UploadStateChanged():
            about: dict[str, Any] = {
                "upload_id": change.upload_id,
                "client_id": change.client_id,
                "attempt": change.attempt,
            }
            if change.job_id is not None:
                about["job_id"] = change.job_id
            return "upload.state", {**about, "was": change.was, "state": change.state, "error": change.error}
        case UploadMismatched():
            found = {"upload_id": change.upload_id, "client_id": change.client_id}
            return change.name, {**found, "s3_key": change.s3_key, "text": change.text}
        case JobStateChanged():
            facts = {"job_id": change.job_id, "was": change.was, "state": change.state, "outcome": change.outcome}
            return "job.state", facts
        case ExecutionStateChanged():
            return "execution.state", {
                "job_id": change.job_id,
                "client_id": change.client_id,
                "attempt": change.attempt,
                "was": change.was,
                "state": change.state,
                "reason": change.reason,
            }
        case ScheduleTicked():
            return "schedule.tick", {
                "schedule_id": change.schedule_id,
                "kind": change.kind,
                "nominal_at": change.nominal_at,
                "status": change.status,
                "job_id": change.job_id,
            }
        case JobChanged():
            return change.name, {"job_id": change.job_id, "version": change.version}
        case ScheduleChanged():
            return change.name, {"schedule_id": change.schedule_id}
        case ClientConnected() | ClientDisconnected() | ClientForgotten():
            return change.name, {"client_id": change.client_id}
        case never:
            assert_never(never)
