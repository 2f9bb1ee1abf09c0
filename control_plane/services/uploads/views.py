"""Why an upload waits, and when its next step is due.

Rule: everything here is read from the database, so every replica gives the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import CLEAN_UPS, Kind
from control_plane.domain.uploads.model import EXPIRABLE, OPEN, State, Upload
from control_plane.services.clients.beats import Beats
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import PARKED, Database, OutboxEntry, Records, Subject
from control_plane.services.ports.overview import OpenUpload

_ANSWERS: Final = frozenset({Kind.CREATE_MULTIPART, Kind.SEND_GRANT})
"""The duties that answer a client's request for URLs."""

_PROGRESS: Final = {
    State.QUEUED: Reason(ReasonCode.DISPATCHING, "the command is about to be published"),
    State.DISPATCHED: Reason(
        ReasonCode.AWAITING_RESPONSE, "the command was published; the client has not responded yet"
    ),
    State.IN_PROGRESS: Reason(ReasonCode.UPLOADING, "the client is uploading"),
    State.COMPLETING: Reason(ReasonCode.COMPLETING, "the object is being completed and proven"),
}


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload; why it waits or ended without an object, and the instant (s since the epoch) of its next step."""

    upload: Upload
    reason: Reason | None
    next_wake_at: float | None


class UploadViews:
    """Reads what explains an upload: its client and its outbox entries. Only uploads of `owner` carry duties."""

    def __init__(self, database: Database, clock: Clock, owner: str, beats: Beats) -> None:
        self._beats = beats
        self._database = database
        self._clock = clock
        self._owner = owner

    async def of(self, upload: Upload) -> UploadView:
        """The view of one upload; `DatabaseUnavailable`."""
        if not self._waits(upload):
            return _of_rest(upload)
        (view,) = await self._database.read(lambda records: self.within(records, [upload]))
        return view

    def within(self, records: Records, uploads: Sequence[Upload]) -> list[UploadView]:
        """The views of these uploads, in their order, from what else the snapshot has."""
        clients = records.clients.among({upload.client_id for upload in uploads if self._waits(upload)})
        return [
            self.explain(upload, clients.get(upload.client_id), records.outbox.of(Subject.of_upload(upload.key)))
            if self._waits(upload)
            else _of_rest(upload)
            for upload in uploads
        ]

    def _waits(self, upload: Upload) -> bool:
        return upload.state in OPEN and upload.owner == self._owner

    def explain(self, upload: Upload, client: Client | None, entries: list[OutboxEntry]) -> UploadView:
        """The view of an upload that is not over, from its client and its outbox entries; the nearest cause first."""
        away = _away(upload.state, None if client is None else self._beats.latest(client), self._clock.now())
        kind, failed = _last_failure(entries)
        # A client that requested URLs reports that it waits for them; the failure to grant them is nearer to the cause.
        unanswered = failed if kind in _ANSWERS and upload.wanted else None
        reason = away or unanswered or upload.reason or failed or _PROGRESS.get(upload.state)
        due = [entry.due_at for entry in entries if entry.due_at < PARKED]
        ends = [upload.deadline] if upload.state in EXPIRABLE else []
        return UploadView(upload, reason, min([*due, *ends], default=None))

    def code_of(self, found: OpenUpload, now: float) -> str:
        """The code of the reason that `explain` would give, from less."""
        client = None if found.client is None else self._beats.latest(found.client)
        away = _away(found.state, client, now)
        kind, failed = found.failed or (None, None)
        unanswered = failed if kind in _ANSWERS and found.wants else None
        moving = _PROGRESS.get(found.state)
        code = (away and away.code) or unanswered or found.reported or failed or (moving and moving.code)
        return str(code or found.state)


def _last_failure(entries: list[OutboxEntry]) -> tuple[Kind | None, Reason | None]:
    """Which of the duties that the upload waits for failed last, and why."""
    failures = [
        (entry.duty.kind, entry.last_error)
        for entry in entries
        if entry.last_error is not None and entry.duty.kind not in CLEAN_UPS
    ]
    if not failures:
        return None, None
    kind, failure = max(failures, key=lambda pair: pair[1].at)
    return kind, failure.reason


def _of_rest(upload: Upload) -> UploadView:
    """The view of an upload that is over, or another owner's."""
    return UploadView(upload, upload.reason or _ended(upload), None)


def _ended(upload: Upload) -> Reason | None:
    """Why an upload ended without an object; None for one that is open or completed."""
    if upload.error is not None:
        return Reason(upload.error, upload.message or upload.error)
    if upload.state is State.CANCELLED:
        return Reason(ReasonCode.CANCELLED, upload.message or "it was cancelled")
    return None


def _away(state: State, client: Client | None, now: float) -> Reason | None:
    """Why no command reaches the client. An upload that is completing needs none."""
    if state is State.COMPLETING:
        return None
    return Reason(ReasonCode.CLIENT_UNKNOWN, "the client is not known") if client is None else client.waiting_for(now)
