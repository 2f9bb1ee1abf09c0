"""Answers hellos: after each connect an agent lists what it still has, and both sides agree again.

Rule: every entry is answered from the state (protocol.md section 4); an open upload that the agent does not list was
lost on its way, and is told again.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from control_plane.domain.clients import Client
from control_plane.domain.uploads.duties import Duty, answer, close
from control_plane.domain.uploads.events import MissingFromHello
from control_plane.domain.uploads.model import TERMINAL, Upload, UploadKey
from control_plane.services.errors import ServiceError
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.effects import Effects
from control_plane.services.uploads.outbox import Outbox
from control_plane.services.uploads.writer import Uploads
from schemas.messages import ActiveUpload, Hello
from schemas.values import ResponseStatus

MAX_WAITING: Final = 20_000
MAX_BATCH: Final = 100
MAX_LISTED: Final = 20_000
"""Uploads that the pages of one hello may list together; an agent keeps far fewer."""


@dataclass(frozen=True, slots=True)
class _Hello:
    """All pages of one hello, and when the last was heard."""

    client_id: str
    heard_at: float
    listed: list[ActiveUpload]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a client that said hello: itself, its open uploads, and those that it lists."""

    client: Client | None
    uploads: dict[UploadKey, Upload]


class Resync:
    """Gathers the pages of each hello, then settles it."""

    def __init__(
        self, store: Database, clock: Clock, log: EventLog, *, uploads: Uploads, outbox: Outbox, policy: Policy
    ) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._uploads = uploads
        self._outbox = outbox
        self._owner = policy.owner
        self._pages: dict[str, tuple[int, list[ActiveUpload]]] = {}
        self._waiting: asyncio.Queue[_Hello] = asyncio.Queue(MAX_WAITING)

    def hear(self, client_id: str, epoch: int, hello: Hello) -> None:
        """Take one page. Never waits: a hello that does not fit is dropped, and its duties come due by themselves."""
        at, listed = self._pages.pop(client_id, (epoch, []))
        listed = [*(listed if at == epoch else []), *hello.active]
        if len(listed) > MAX_LISTED:
            self._log("hello.refused", {"client_id": client_id, "uploads": len(listed)})
            return
        if hello.more:
            self._pages[client_id] = (epoch, listed)
            return
        try:
            self._waiting.put_nowait(_Hello(client_id, self._clock.now(), listed))
        except asyncio.QueueFull:
            self._log("hello.shed", {"client_id": client_id})

    async def run(self) -> None:
        """Settle hellos until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            try:
                found = await self._store.read(partial(_look_up, batch=batch))
            except ServiceError as error:
                self._log("hello.failed", {"hellos": len(batch), "error": str(error)})
                continue
            for hello, known in zip(batch, found, strict=True):
                self._settle(hello, known)

    def _settle(self, hello: _Hello, known: _Known) -> None:
        now = self._clock.now()
        if known.client is not None and not known.client.answerable(now):
            return
        seen = {UploadKey(hello.client_id, entry.upload_id): entry for entry in hello.listed}
        for key, entry in seen.items():
            upload = known.uploads.get(key)
            if upload is not None:
                self._outbox.perform(Effects(key, upload, self._answer(upload, entry, now)))
            elif entry.owner in {None, self._owner} and entry.status != ResponseStatus.IN_PROGRESS:
                self._outbox.perform(Effects(key, None, (), entry.attempt))
        for key, upload in known.uploads.items():
            if key not in seen and upload.owner == self._owner:
                self._uploads.hear(key, MissingFromHello(now=hello.heard_at))

    def _answer(self, upload: Upload, entry: ActiveUpload, now: float) -> tuple[Duty, ...]:
        if upload.owner != self._owner:
            return ()
        if upload.state in TERMINAL and not upload.client_busy:
            return close(upload, now)
        if entry.attempt > upload.attempt or entry.sequence > upload.sequence:
            # It has said something that did not arrive; it says it again by itself, and is answered then.
            return ()
        return answer(upload, now)


def _look_up(records: Records, batch: list[_Hello]) -> list[_Known]:
    found: list[_Known] = []
    for hello in batch:
        uploads = {upload.key: upload for upload in records.uploads.open_of(hello.client_id)}
        for entry in hello.listed:
            key = UploadKey(hello.client_id, entry.upload_id)
            upload = uploads.get(key) or records.uploads.get(key)
            if upload is not None:
                uploads[key] = upload
        found.append(_Known(records.clients.get(hello.client_id), uploads))
    return found
