"""The files that are to be deleted or moved, and the receipts about them: what the agent's loop does for `after`.

Rule: used by the agent's loop only. Work and receipts start after a commit, and only for what is durable; one file is
worked on at a time. Everything is found again in the tombstones of the journal.
"""

import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from device_agent.after.machine import (
    Acknowledged,
    Ended,
    Event,
    FileEvent,
    FileKept,
    GraceOver,
    Phase,
    first,
    follow,
    grace_of,
)
from device_agent.backoff import exponential
from device_agent.state.journal import Journal
from device_agent.transfer.records import Afterwards, Tombstone
from schemas.messages import AfterReport, CloseUpload, Response, UploadReport
from schemas.values import Action, Outcome, ResponseStatus

MAX_OPEN: Final = 64
"""Receipts that were published once and are not acknowledged; further ones wait for these, 10 seconds at most."""

_AGAIN: Final = (10.0, 3600.0)
"""Seconds before a receipt is published again: the first time, and at most."""

_LATER: Final = 5.0
"""Seconds before work is tried again that another upload of the file, or its file system, holds up."""

_WORK: Final = frozenset({Phase.HIDE, Phase.CHECK, Phase.END})

log = logging.getLogger(__name__)


class AfterDone(Struct, frozen=True):
    """The work on one file has ended; `event` is None when it was stopped, or its file system does not answer.

    `number` is that of the work: one that did not answer may end while the same is done again.
    """

    number: int
    upload_id: str
    event: FileEvent | None


class _Duty(Struct):
    phase: Phase
    wake_at: float = 0.0
    repeats: int = 0


class AfterDuties:
    """The duties, by upload. `submit` runs the numbered work of a phase on a thread, and it ends in an `AfterDone`.

    `in_use` is whether an upload that has not ended reads this file; `grace` is in seconds.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        submit: Callable[[int, str, Afterwards, Phase], None],
        publish: Callable[[Response, str], None],
        in_use: Callable[[str], bool],
        grace: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._submit = submit
        self._publish = publish
        self._in_use = in_use
        self._grace = grace
        self._wall = wall
        self._duties: dict[str, _Duty] = {}
        self._working: int | None = None
        self._started = 0
        self.begin(upload_id for upload_id, one in journal.memory.tombstones.items() if one.after is not None)

    def begin(self, upload_ids: Iterable[str]) -> None:
        """Uploads were closed, and their files are to be deleted or moved."""
        for upload_id in upload_ids:
            after = self._after(upload_id)
            if after is not None:
                self._duties[upload_id] = _Duty(first(after))

    def done(self, done: AfterDone, now: float) -> None:
        """The work on a file has ended; what comes later of one that did not answer is found again in the folder."""
        if done.number != self._working:
            return
        self._working = None
        duty, after = self._duties.get(done.upload_id), self._after(done.upload_id)
        if done.event is not None:
            self._follow(done.upload_id, done.event, now)
        elif duty is not None and after is not None:
            duty.phase, duty.wake_at = first(after), now + _LATER

    def acknowledged(self, upload_id: str, close: CloseUpload) -> None:
        """A close of an upload that is closed: it may acknowledge the receipt."""
        after = self._after(upload_id)
        if after is None or upload_id not in self._duties:
            return
        if close.about_attempt < after.attempt:
            return
        later = close.about_attempt > after.attempt or Outcome.read(close.outcome) is Outcome.UNKNOWN
        if later or close.acknowledges >= after.sequence:
            self._follow(upload_id, Acknowledged(), 0.0)

    def connected(self) -> None:
        """Receipts that were not acknowledged are published again at once."""
        for duty in self._duties.values():
            if duty.phase is Phase.REPORT:
                duty.wake_at, duty.repeats = 0.0, 0

    def work(self, now: float, *, connected: bool) -> None:
        """After a commit: start the next work that is due, and publish the receipts that are due."""
        pending = self._journal.pending_uploads(Tombstone)
        for upload_id, duty in tuple(self._duties.items()):
            after = self._after(upload_id)
            if after is None:
                del self._duties[upload_id]  # Its tombstone gave way to later ones.
            elif upload_id in pending or now < duty.wake_at:
                continue
            elif duty.phase is Phase.WAIT:
                self._follow(upload_id, GraceOver(), now)
            elif duty.phase is Phase.HIDE and self._in_use(after.file_path):
                duty.wake_at = now + _LATER
            elif duty.phase in _WORK and self._working is None:
                self._started += 1
                self._working = self._started
                self._submit(self._started, upload_id, after, duty.phase)
        if connected:
            self._report(now, pending)

    def next_at(self, *, connected: bool) -> float | None:
        """When `work` has an effect, as far as time decides it; work that waits for other work is not counted."""
        if not self._duties:
            return None
        pending = self._journal.pending_uploads(Tombstone)
        phases = {Phase.WAIT, *(_WORK if self._working is None else ())}
        timed = [one.wake_at for key, one in self._duties.items() if one.phase in phases and key not in pending]
        if connected:
            timed += [one.wake_at for one in self._duties.values() if one.phase is Phase.REPORT and one.wake_at]
        return min(timed, default=None)

    def _after(self, upload_id: str) -> Afterwards | None:
        tombstone = self._journal.memory.tombstones.get(upload_id)
        return None if tombstone is None else tombstone.after

    def _follow(self, upload_id: str, event: Event, now: float) -> None:
        before, duty = self._after(upload_id), self._duties.get(upload_id)
        if before is None or duty is None:
            return
        after, duty.phase = follow(before, duty.phase, event)
        duty.wake_at = now + grace_of(after, self._grace) if duty.phase is Phase.WAIT else 0.0
        if isinstance(event, Ended | FileKept):
            after = replace(after, at=int(self._wall()))
            self._tell(upload_id, after)
        kept = None if duty.phase is Phase.OVER else after
        if kept != before:
            tombstone = self._journal.memory.tombstones[upload_id]
            self._journal.append(replace(tombstone, after=kept))
        if duty.phase is Phase.OVER:
            del self._duties[upload_id]

    def _tell(self, upload_id: str, after: Afterwards) -> None:
        level = logging.INFO if after.code is None else logging.WARNING
        where = f": {after.text}" if after.text else ""
        log.log(level, "after upload %s: %r is %s%s", upload_id, after.file_path, after.outcome, where)

    def _report(self, now: float, pending: frozenset[str]) -> None:
        reporting = [(one, duty) for one, duty in self._duties.items() if duty.phase is Phase.REPORT]
        # One that is not answered does not hold up the others for longer than until it is published again.
        room = MAX_OPEN - sum(duty.repeats == 1 and now < duty.wake_at for _, duty in reporting)
        for upload_id, duty in reporting:
            after = self._after(upload_id)
            if after is None or upload_id in pending or now < duty.wake_at:
                continue
            if not duty.repeats:
                if room <= 0:
                    continue
                room -= 1
            self._publish(receipt(upload_id, after), f"after {upload_id}")
            duty.wake_at = now + exponential(duty.repeats, *_AGAIN)
            duty.repeats += 1


def receipt(upload_id: str, after: Afterwards) -> Response:
    """The response about the file of a closed upload; an owner that does not know `after` takes it for its success."""
    report = AfterReport(
        after.outcome or "",
        code=after.code,
        text=after.text,
        at=datetime.fromtimestamp(after.at, UTC) if after.at else None,
    )
    return Response(
        message_id=after.message_id,
        action=Action.DOWNLOAD_FILE,
        status=ResponseStatus.SUCCESS,
        sequence=after.sequence,
        payload=UploadReport(upload_id=upload_id, attempt=after.attempt, owner=after.owner, after=report),
    )
