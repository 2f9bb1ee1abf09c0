"""Status messages: the progress of the uploads, published while there are any.

Rule: at most one a second, and each upload in one every half minute; `idle` once at the end. The figures of the
device itself are added once a minute.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.json import Encoder
from msgspec.structs import replace

from device_agent.transfer.model import State
from device_agent.transfer.responses import progress_of
from device_agent.uploads import Run
from schemas.codec import GRANT_FILL_SIZE, MAX_MESSAGE_SIZE
from schemas.messages import MAX_STATUS_UPLOADS, CurrentUpload, Status
from schemas.values import STATUS_EVERY, SystemInfo

EVERY: Final = 1.0
SYSTEM_INFO_EVERY: Final = 60.0
_ENVELOPE: Final = 1024
"""Bytes of a Status beside its entries."""

_encoder: Final = Encoder()
_MOVING: Final = frozenset({State.OPENING, State.SENDING, State.CHECKING})


class StatusReporter:
    """Decides when a Status is due, and builds it."""

    def __init__(self, client_id: str, system_info: Callable[[], SystemInfo]) -> None:
        self._client_id = client_id
        self._system_info = system_info
        self._sent: list[tuple[str, int, int, bool]] = []
        self._shown_at: dict[str, float] = {}
        """When each upload was in a Status last."""
        self._sent_at: float | None = None
        self._checked_at: float | None = None
        self._system_at: float | None = None
        self._idle = True

    def due(
        self,
        runs: Sequence[Run],
        *,
        now: float,
        epoch: int,
        overall_reason: str | None = None,
        room: int = MAX_MESSAGE_SIZE,
    ) -> Status | None:
        """The Status to publish now, if any, in `room` bytes; `overall_reason` replaces that of every upload."""
        if self._checked_at is None and runs:
            # An upload that ends within a second needs no Status.
            self._checked_at = now
        if self._checked_at is None or now - self._checked_at < EVERY:
            return None
        self._checked_at = now if runs else None
        if not runs:
            return self._report_idle(epoch, now)
        shown = sorted(runs, key=self._turn)
        entries = [_entry(run, now, overall_reason) for run in shown]
        uploads = _fitting(entries[:MAX_STATUS_UPLOADS], room - _ENVELOPE)
        moving = sum(map(_is_moving, runs))
        # Where one Status has no room for all, several show each of them in the time of one.
        turns = math.ceil(len(runs) / max(1, len(uploads) - moving)) if len(uploads) < len(runs) else 1
        quiet = self._sent_at is not None and now - self._sent_at < STATUS_EVERY / turns
        changes = _changes(entries)
        if quiet and changes == self._sent:
            return None
        self._sent, self._sent_at, self._idle = changes, now, False
        known = self._shown_at | dict.fromkeys((entry.upload_id for entry in uploads), now)
        self._shown_at = {run.upload_id: known[run.upload_id] for run in runs if run.upload_id in known}
        return Status(
            status="uploading" if moving else "waiting",
            client_id=self._client_id,
            epoch=epoch,
            current_upload=uploads[0],
            uploads=uploads,
            system_info=self._system(now),
        )

    @property
    def next_at(self) -> float | None:
        """When to call `due` again; None while there is no upload."""
        return None if self._checked_at is None else self._checked_at + EVERY

    def _turn(self, run: Run) -> tuple[bool, float, tuple[int, int]]:
        """Its place in a Status. The owner gives up an upload that is in none, so those that wait take turns."""
        return not _is_moving(run), 0.0 if _is_moving(run) else self._shown_at.get(run.upload_id, 0.0), run.rank

    def _report_idle(self, epoch: int, now: float) -> Status | None:
        if self._idle:
            return None
        self._sent, self._sent_at, self._shown_at, self._idle = [], None, {}, True
        return Status(status="idle", client_id=self._client_id, epoch=epoch, system_info=self._system(now))

    def _system(self, now: float) -> SystemInfo | None:
        if self._system_at is not None and now - self._system_at < SYSTEM_INFO_EVERY:
            return None
        self._system_at = now
        return self._system_info()


def _is_moving(run: Run) -> bool:
    return run.transfer.state in _MOVING and run.session.unanswered_since is None


def _entry(run: Run, now: float, overall_reason: str | None) -> CurrentUpload:
    entry = progress_of(run.transfer, now, sum(tuple(run.session.sent.values())))
    reason = overall_reason or run.unresponsive(now)
    return entry if reason is None else replace(entry, reason=reason)


def _fitting(entries: list[CurrentUpload], most: int) -> tuple[CurrentUpload, ...]:
    """As many entries as `most` bytes have room for, the first one twice; that one without its path if need be."""
    sizes = [len(_encoder.encode(entry)) + 1 for entry in entries]
    room = min(GRANT_FILL_SIZE, most) - sizes[0]
    total = list(itertools.accumulate(sizes))
    fitting = tuple(entry for entry, end in zip(entries, total, strict=True) if end <= room)
    return fitting or (replace(entries[0], file_path=None),)


def _changes(uploads: Sequence[CurrentUpload]) -> list[tuple[str, int, int, bool]]:
    """The fields whose change is published: bytes, and whether the upload waits (the text counts down seconds)."""
    return sorted((entry.upload_id, entry.attempt, entry.bytes_sent, entry.reason is None) for entry in uploads)
