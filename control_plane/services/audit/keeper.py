"""Signs how far each chain has come, once a minute, and deletes records older than they are kept.

Rule: a chain is checked from its last checkpoint on before it is signed. One that does not follow is reported, and is
signed no more: a checkpoint never covers a change.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from control_plane.domain.audit.model import GENESIS, ChainHead, instant_text
from control_plane.domain.audit.notes import BadNote, Checkpoint, NoteSigner, NoteVerifier
from control_plane.services.audit.ports import StoredCheckpoint
from control_plane.services.errors import ServiceError
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog

EVERY: Final = 60.0
PRUNE_EVERY: Final = 3600.0
BATCH: Final = 500
"""Records, or checkpoints, that one transaction reads or deletes."""


class CheckpointBucket(Protocol):
    """Where checkpoints go that no one can change afterwards."""

    async def put(self, writer: str, number: int, note: str) -> None:
        """Store one; storing it again is without effect. `ServiceError`."""


class ChainBroken(Exception):
    """The records of a chain do not follow its last checkpoint."""


class AuditKeeper:
    """One for each process; all of them sign the chains of all. `origin` is the beginning of each chain's name."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        *,
        signer: NoteSigner,
        origin: str,
        kept_for: float,
        time_is_sure: Callable[[], bool] = lambda: True,
        bucket: CheckpointBucket | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._signer = signer
        self._origin = origin
        self._kept_for = kept_for
        self._time_is_sure = time_is_sure
        self._bucket = bucket
        self._signed: dict[str, tuple[int, str]] = {}
        """What this process signed last of each chain: a database that was changed does not know it."""

    async def run(self) -> None:
        """Sign and prune until cancelled; the records of the last moment are signed before the end."""
        self._log("audit.key", {"key": self._signer.verifier.text})
        next_prune = self._clock.monotonic()
        try:
            while True:
                await self.sign()
                if self._time_is_sure() and self._clock.monotonic() >= next_prune:
                    next_prune = self._clock.monotonic() + PRUNE_EVERY
                    await self.prune()
                await asyncio.sleep(EVERY)
        finally:
            await self.sign()

    async def sign(self) -> int:
        """Sign each chain that has new records; the number of checkpoints."""
        made = 0
        try:
            for head in await self._database.read(lambda records: records.audit.unsigned()):
                made += await self._sign_chain(head)
            await self._send()
        except ServiceError as error:
            self._log("audit.failed", {"error": str(error)})
        return made

    async def prune(self) -> int:
        """Delete the records that are older than they are kept; their number."""
        before, pruned = self._clock.now() - self._kept_for, 0
        try:
            # Without a bucket no checkpoint is ever sent.
            unsent = self._bucket is None
            while some := await self._database.write(lambda records: records.audit.prune(before, BATCH, unsent=unsent)):
                pruned += some
        except ServiceError as error:
            self._log("audit.failed", {"error": str(error)})
        return pruned

    async def _sign_chain(self, head: ChainHead) -> bool:
        """Whether a checkpoint was made."""
        try:
            await self._database.read(lambda records: self._check(records, head))
        except ChainBroken as error:
            self._log("audit.broken", {"writer": head.writer, "number": head.number, "problem": str(error)})
            return False
        now = self._clock.now()
        checkpoint = Checkpoint(f"{self._origin}/{head.writer}", head.number, head.hash, instant_text(now))
        note = self._signer.sign(checkpoint.text)
        stored = StoredCheckpoint(head.writer, head.number, now, note, self._signer.verifier.text)
        await self._database.write(lambda records: records.audit.add_checkpoint(stored))
        self._signed[head.writer] = (head.number, head.hash)
        self._log("audit.checkpoint", {"writer": head.writer, "number": head.number, "note": note})
        return True

    def _check(self, records: Records, head: ChainHead) -> None:
        """`ChainBroken` unless the records lead from what is signed to the head."""
        number, link = self._begin(records, head.writer)
        while number < head.number:
            some = [one for one in records.audit.after(head.writer, number, BATCH) if one.writer == head.writer]
            if not some:
                raise ChainBroken(f"record {number + 1} is missing")  # noqa: EM102, TRY003 - one text for each cause
            for one in some[: head.number - number]:
                if one.number != number + 1 or one.previous != link or not one.is_sound:
                    raise ChainBroken(f"record {one.number} does not follow record {number}")  # noqa: EM102, TRY003
                number, link = one.number, one.hash
        if link != head.hash:
            raise ChainBroken(f"record {number} is not the head of the chain")  # noqa: EM102, TRY003

    def _begin(self, records: Records, writer: str) -> tuple[int, str]:
        """The record that this process signed last, where the next one is still there, else the last that was signed.

        The checkpoint of another process proves little here: a person who can change the database can make one.
        """
        own = self._signed.get(writer)
        last = records.audit.checkpoint(writer)
        if own is not None and (last is None or last.number < own[0]):
            raise ChainBroken(f"the checkpoint of record {own[0]} is missing")  # noqa: EM102, TRY003
        if last is None:
            return 0, GENESIS
        try:
            checkpoint = Checkpoint.parse(NoteVerifier.parse(last.key).verify(last.note))
        except BadNote as error:
            raise ChainBroken(f"the checkpoint of record {last.number}: {error}") from error  # noqa: EM102, TRY003
        if (checkpoint.writer, checkpoint.size) != (writer, last.number):
            raise ChainBroken(f"the checkpoint of record {last.number} is of another one")  # noqa: EM102, TRY003
        if own is None:
            return checkpoint.size, checkpoint.head
        if own[0] == checkpoint.size and own[1] != checkpoint.head:
            raise ChainBroken(f"the checkpoint of record {own[0]} was changed")  # noqa: EM102, TRY003
        following = [one.number for one in records.audit.after(writer, own[0], 1) if one.writer == writer]
        return own if following == [own[0] + 1] else (checkpoint.size, checkpoint.head)

    async def _send(self) -> None:
        """Put what is not in the bucket yet."""
        if self._bucket is None:
            return
        for one in await self._database.read(lambda records: records.audit.unsent(BATCH)):
            await self._bucket.put(one.writer, one.number, one.note)
            await self._database.write(lambda records, one=one: records.audit.sent(one, self._clock.now()))  # type: ignore[misc]
