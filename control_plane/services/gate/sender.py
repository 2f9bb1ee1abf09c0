"""Answers a client's request for URLs: with a grant when the gate is open, else with the wait.

Rule: the gate's decision is committed before it is published. What was charged and not published, after a crash, is
published for the same request and charges nothing.
"""

from typing import Final

from control_plane.domain.gate.gate import Permit, Wait
from control_plane.domain.uploads.events import GateOpened, Held
from control_plane.domain.uploads.model import Upload
from control_plane.services.commands import CommandPublisher
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.uploads.grants import UrlSigner
from control_plane.services.uploads.writer import UploadWriter
from schemas.messages import MAX_REASON, MAX_WAIT
from schemas.messages import Wait as ToldWait
from schemas.values import Feature

RENEW: Final = MAX_WAIT / 2
"""Seconds after which a wait is sent again, to an agent that takes one."""

SHORTEST_WAIT: Final = 1.0

_Answer = tuple[Permit | Wait, frozenset[str]]
"""The gate's decision, and the capabilities of the client."""


class GrantSender:
    """Publishes grants and waits. `step_timeout` (s) is how long a client may be silent after a command."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        writer: UploadWriter,
        commands: CommandPublisher,
        signer: UrlSigner,
        gate: GateKeeper | None,
        step_timeout: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._writer = writer
        self._commands = commands
        self._signer = signer
        self._gate = gate
        # An empty grant before the step timer of an agent that takes no wait.
        self._remind = 0.8 * step_timeout

    async def send(self, upload: Upload, *, gated: bool) -> None:
        """Answer the upload's last request. With `gated` the gate is asked, in its own transaction."""
        if self._gate is None or not gated:
            await self._grant(upload, Permit(), frozenset())
            return
        gate, now = self._gate, self._clock.now()

        def ask(records: Records) -> _Answer | None:
            current = records.uploads.get(upload.key)
            if current is None or _request_of(current) != _request_of(upload):
                # The client requested again meanwhile, or the upload ended: that has a duty of its own.
                return None
            client = records.clients.get(upload.client_id)
            return gate.may_grant(records, current, now), frozenset(() if client is None else client.capabilities)

        answer = await self._database.write(ask)
        if answer is None:
            return
        word, capabilities = answer
        if isinstance(word, Wait):
            await self._hold(upload, word, capabilities, now)
        else:
            await self._grant(upload, word, capabilities)

    async def _grant(self, upload: Upload, permit: Permit, capabilities: frozenset[str]) -> None:
        grant = self._signer.grant(upload, self._commands.room, permit.bytes)
        # It takes the place of the operator's limit at the agent: the lower one holds.
        rates = [rate for rate in (permit.rate, upload.options.max_bytes_per_second) if rate is not None]
        rate = min(rates) if permit.rate is not None and Feature.RATE in capabilities else None
        await self._commands.publish(upload.client_id, self._commands.build_grant(upload, grant, rate=rate))
        if upload.held:
            opened = GateOpened(now=self._clock.now(), attempt=upload.attempt, sequence=upload.sequence)
            self._writer.enqueue_lazily(upload.key, opened)

    async def _hold(self, upload: Upload, wait: Wait, capabilities: frozenset[str], now: float) -> None:
        tells = Feature.WAIT in capabilities
        longest = now + (RENEW if tells else min(RENEW, self._remind))
        opens_at = float("inf") if wait.wake_at is None else max(wait.wake_at, now + SHORTEST_WAIT)
        held = Held(
            now=now,
            attempt=upload.attempt,
            sequence=upload.sequence,
            reason=wait.reason,
            wake_at=min(opens_at, longest),
        )
        after = await self._writer.submit(upload.key, held)
        if not after.held:
            return
        told = ToldWait(wait.reason.text[:MAX_REASON], min(MAX_WAIT, opens_at - now)) if tells else None
        await self._commands.publish(upload.client_id, self._commands.build_wait(after, told))


def _request_of(upload: Upload) -> tuple[object, ...]:
    return upload.state, upload.attempt, upload.sequence, upload.opened
