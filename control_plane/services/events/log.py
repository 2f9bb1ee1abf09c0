"""The log lines of committed changes.

Rule: made from typed changes alone, after their commit. An event's name and its facts are a contract: metrics count it.
"""

from collections.abc import Mapping
from typing import Any, assert_never

from control_plane.domain.changes import Change, UploadCreated, UploadStateChanged
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.writer import Commit


class ChangeLogger:
    """A listener of the writer that logs every change."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def on_commit(self, commit: Commit) -> None:
        """Log the changes of one commit, in their order."""
        for change in commit.changes:
            self._log(*_line(change))


def _line(change: Change) -> tuple[str, Mapping[str, Any]]:
    facts = {"upload_id": change.upload_id, "client_id": change.client_id}
    match change:
        case UploadCreated():
            return "upload.created", facts
        case UploadStateChanged():
            return "upload.state", {
                **facts,
                "attempt": change.attempt,
                "was": change.was,
                "state": change.state,
                "error": change.error,
            }
        case never:
            assert_never(never)
