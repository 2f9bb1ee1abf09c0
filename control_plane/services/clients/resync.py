"""Answers hellos: after each connect an agent lists its uploads, and both sides agree on their state again.

Rule: every listed upload is answered from its state (protocol.md section 4). The command of an open upload that the
agent does not list was lost, and is published again. A grant that is published again asks the gate again.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from control_plane.domain.clients import Client
from control_plane.domain.uploads.duties import Duty, answer, close
from control_plane.domain.uploads.events import MissingFromHello
from control_plane.domain.uploads.model import TERMINAL, Upload, UploadKey
from control_plane.services.budget import Buckets, Limit
from control_plane.services.errors import ServiceError
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.outbox import Outbox
from control_plane.services.uploads.writer import Decision, UploadWriter
from schemas.messages import ActiveUpload, Hello
from schemas.values import ResponseStatus

MAX_WAITING: Final = 20_000
"""Clients with a hello that waits. A client has one at most: a newer hello replaces the one that waits."""

MAX_BATCH: Final = 100
MAX_BATCH_LISTED: Final = 1_000
"""Uploads in the hellos of one batch, which are looked up in one transaction; one hello may have more."""

MAX_LISTED: Final = 5_000
"""Uploads in all pages of one hello: an agent keeps 256 open and 4,096 ended ones."""

PAGES: Final = Limit(rate=0.5, burst=32)
"""Pages of one client: a hello of `MAX_LISTED` uploads has ten, and follows a connect or a birth."""


@dataclass(frozen=True, slots=True)
class _Hello:
    """All pages of one hello, the epoch of its connection if it names one, and when the last page arrived."""

    client_id: str
    install_id: str
    received_at: float
    epoch: int | None
    listed: list[ActiveUpload]

    def is_stale(self, client: Client) -> bool:
        """Whether it is of an earlier connection: delayed by the network, or sent again by the broker.

        Another installation counts its epochs from the start, and its hello may come before its presence is applied.
        """
        if self.epoch is None:
            return False
        is_earlier = self.install_id == client.install_id and self.epoch < client.epoch
        return is_earlier or self.install_id in client.retired


@dataclass(frozen=True, slots=True)
class _Pages:
    """The pages of one hello so far: an upload may be missing from it only when every page has come."""

    epoch: int | None
    name: str
    count: int
    listed: list[ActiveUpload]


@dataclass(frozen=True, slots=True)
class _Known:
    """The client of a hello, its open uploads, and those that it lists, as far as they are in the database.

    A grant of those in `gated` must pass the gate.
    """

    client: Client | None
    uploads: dict[UploadKey, Upload]
    gated: frozenset[UploadKey]


class Resync:
    """Gathers the pages of each hello, then answers it."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        *,
        writer: UploadWriter,
        outbox: Outbox,
        gate: GateKeeper | None,
        owner: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._writer = writer
        self._outbox = outbox
        self._gate = gate
        self._owner = owner
        self._budget = Buckets(clock.monotonic, PAGES)
        self._pages: dict[str, _Pages] = {}
        self._waiting: OrderedDict[str, _Hello] = OrderedDict()
        self._filled = asyncio.Event()

    def receive(self, client_id: str, epoch: int | None, hello: Hello, *, page_of: str) -> None:
        """Take one page; `page_of` is its message id, "" for a client that gives its pages any.

        Never waits: a hello that is dropped, or lacks a page, is not answered, and its duties become due later.
        """
        if not self._budget.take(client_id):
            self._pages.pop(client_id, None)
            self._log("hello.shed", {"client_id": client_id})
            return
        name, number = _page(page_of)
        before = self._pages.pop(client_id, None)
        if before is not None and before.epoch != epoch:
            before = None
        if number > 1 and (before is None or (before.name, before.count) != (name, number - 1)):
            self._log("hello.refused", {"client_id": client_id, "uploads": len(hello.active), "page": number})
            return
        listed = [*(before.listed if before else ()), *hello.active]
        if len(listed) > MAX_LISTED:
            self._log("hello.refused", {"client_id": client_id, "uploads": len(listed)})
            return
        if hello.more:
            self._pages[client_id] = _Pages(epoch, name, number, listed)
            return
        if len(self._waiting) >= MAX_WAITING and client_id not in self._waiting:
            self._log("hello.shed", {"client_id": client_id})
            return
        self._waiting[client_id] = _Hello(client_id, hello.install_id, self._clock.now(), epoch, listed)
        self._filled.set()

    async def run(self) -> None:
        """Answer hellos until cancelled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                await self._answer_batch()

    async def _answer_batch(self) -> None:
        batch: list[_Hello] = []
        listed = 0
        while self._waiting and len(batch) < MAX_BATCH and listed < MAX_BATCH_LISTED:
            _, hello = self._waiting.popitem(last=False)
            batch.append(hello)
            listed += len(hello.listed)
        try:
            found = await self._database.read(lambda records: self._look_up(records, batch))
        except ServiceError as error:
            self._log("hello.failed", {"hellos": len(batch), "error": str(error)})
            return
        for hello, known in zip(batch, found, strict=True):
            self._answer(hello, known)
            # An answer may be thousands of commands: others take their turn in between.
            await asyncio.sleep(0)

    def _answer(self, hello: _Hello, known: _Known) -> None:
        now = self._clock.now()
        if known.client is not None:
            if not known.client.answerable(now):
                return
            if hello.is_stale(known.client):
                self._log("hello.stale", {"client_id": hello.client_id})
                return
        listed = {UploadKey(hello.client_id, entry.upload_id): entry for entry in hello.listed}
        for key, entry in listed.items():
            upload = known.uploads.get(key)
            if upload is not None:
                duties = self._duties(upload, entry, now)
                self._outbox.perform(Decision(key, upload, duties, gated=key in known.gated))
            elif entry.owner in {None, self._owner} and entry.status != ResponseStatus.IN_PROGRESS:
                self._outbox.perform(Decision(key, None, (), entry.attempt))
        for key, upload in known.uploads.items():
            if key not in listed and upload.owner == self._owner:
                self._writer.enqueue(key, MissingFromHello(now=hello.received_at))

    def _duties(self, upload: Upload, entry: ActiveUpload, now: float) -> tuple[Duty, ...]:
        if upload.owner != self._owner:
            return ()
        if upload.state in TERMINAL and not upload.client_busy:
            return close(upload, now)
        if entry.attempt > upload.attempt or entry.sequence > upload.sequence:
            # A response of the client did not arrive. The client repeats it, and gets the answer then.
            return ()
        return answer(upload, now)

    def _look_up(self, records: Records, batch: list[_Hello]) -> list[_Known]:
        found: list[_Known] = []
        now = self._clock.now()
        for hello in batch:
            uploads = {upload.key: upload for upload in records.uploads.open_of(hello.client_id)}
            for entry in hello.listed:
                key = UploadKey(hello.client_id, entry.upload_id)
                upload = uploads.get(key) or records.uploads.get(key)
                if upload is not None:
                    uploads[key] = upload
            gate, client = self._gate, records.clients.get(hello.client_id)
            gated = [key for key, one in uploads.items() if gate and gate.concerns(records, one, client, now)]
            found.append(_Known(client, uploads, frozenset(gated)))
        return found


def _page(message_id: str) -> tuple[str, int]:
    """The id that all pages of a hello share, and the number of this one: `m`, `m.2`, `m.3`."""
    name, _, number = message_id.rpartition(".")
    return (name, int(number)) if name and number.isdecimal() and int(number) > 1 else (message_id, 1)
