"""The bench as a whole: what a check works with.

Rule: one agent at a time. A check leaves behind neither an upload nor a file.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from broker.child_process import ChildProcess
from control_plane.cli.conformance.bench.findings import fail
from control_plane.cli.conformance.bench.owner import Owner
from control_plane.cli.conformance.bench.samples import Samples
from control_plane.cli.conformance.bench.store import Elsewhere, PutStore
from control_plane.cli.conformance.bench.talk import Report, Talk
from control_plane.cli.conformance.bench.tap import Tap
from control_plane.cli.conformance.bench.transcript import Connected, Left, Sent, Transcript
from control_plane.settings import Settings
from schemas.topics import Topics

RECONNECT: Final = 70.0
"""Seconds in which an agent that lost its connection has to be back: its backoff is at most 60."""


@dataclass(slots=True)
class AgentProgram:
    """The agent's command, and the process that runs it."""

    command: tuple[str, ...]
    settings: Mapping[str, str]
    directory: Path
    process: ChildProcess | None = None

    def start(self) -> None:
        """Run it."""
        log = self.directory / "agent.log"
        self.process = ChildProcess(self.command, settings=dict(self.settings), log_path=log)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if self.process is not None:
            self.process.stop()

    def ended(self) -> str | None:
        """How the process ended; None while it runs."""
        if self.process is None or self.process.alive:
            return None
        return f"the agent's process ended with code {self.process.exit_code}:\n{self.process.log_tail()}"


@dataclass(slots=True)
class Bench:
    """The parts of the bench, and what all checks do with them. `parts` names what this run has."""

    client_id: str
    topics: Topics
    patience: float
    transcript: Transcript
    tap: Tap
    store: PutStore
    elsewhere: Elsewhere
    owner: Owner
    samples: Samples
    program: AgentProgram | None = None
    parts: frozenset[str] = frozenset()
    real_store: Settings | None = None
    _talks: list[Talk] = field(default_factory=list)

    @staticmethod
    def now() -> float:
        """The clock of the transcript, in seconds."""
        return asyncio.get_running_loop().time()

    # --- the agent ---

    @property
    def connection(self) -> int | None:
        """The number of the agent's connection; None while it has none."""
        made = [one.connection for one in self.transcript.of(Connected)]
        over = {one.connection for one in self.transcript.of(Left)}
        return next((number for number in reversed(made) if number not in over), None)

    @property
    def presence(self) -> Mapping[str, Any]:
        """The latest `online` of the agent; empty before the first."""
        found = [one.document for one in self.presences() if one.document.get("status") == "online"]
        return found[-1] if found else {}

    @property
    def capabilities(self) -> frozenset[str]:
        """What the agent announces."""
        named = self.presence.get("capabilities", [])
        return frozenset(str(one) for one in named) if isinstance(named, list) else frozenset()

    def presences(self, since: int = 0) -> list[Sent]:
        """Every presence that the agent published."""
        return [one for one in self.transcript.of(Sent, since) if one.channel == "presence"]

    def reports(self, since: int = 0) -> list[Report]:
        """Every response that the agent published."""
        numbered = enumerate(self.transcript.entries[since:], since)
        return [Report.of(index, one) for index, one in numbered if isinstance(one, Sent) and one.channel == "response"]

    def hello(self, since: int = 0) -> Report | None:
        """The last page of the first hello since then."""
        hellos = (one for one in self.reports(since) if one.document.get("action") == "hello")
        return next((one for one in hellos if not one.payload.get("more")), None)

    async def online(self, since: int = 0) -> bool:
        """Wait until the agent is connected and has published `online` in that connection."""

        def found() -> bool:
            number = self.connection
            mine = (one for one in self.presences(since) if one.connection == number)
            return any(one.document.get("status") == "online" for one in mine)

        return bool(await self.transcript.until(found, self.patience))

    async def reconnect(self) -> int:
        """Cut the agent's connection, and wait until it is back; where its new connection begins in the transcript."""
        mark = self.transcript.mark
        self.tap.cut()
        await self.back(mark)
        return mark

    async def back(self, mark: int) -> None:
        """Wait until the agent is online in a connection that began after `mark`."""
        patience = max(self.patience, RECONNECT)
        if not await self.transcript.until(lambda: next(self.transcript.of(Connected, mark), None), patience):
            fail("a new connection after the broker ended the last one", f"none within {patience:g} s")
        if not await self.online(since=mark):
            fail("a presence in the new connection", f"none within {self.patience:g} s")

    # --- commands ---

    async def publish(self, command: Mapping[str, Any] | bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish a command to the agent."""
        await self.owner.publish(self.topics.command(self.client_id), command, qos=qos, retain=retain)

    async def ask(self, action: str, payload: Mapping[str, Any] | None = None, **members: Any) -> Report:  # noqa: ANN401 - JSON
        """Publish a command, and take the first response with its message id."""
        mark = self.transcript.mark
        message_id = str(members.pop("message_id", secrets.token_hex(8)))
        await self.publish({"message_id": message_id, "action": action, "payload": payload or {}, **members})
        return await self.answer(message_id, since=mark)

    async def answer(self, message_id: str, *, since: int) -> Report:
        """The first response with this message id since then."""
        found = await self.transcript.until(lambda: self.answers(message_id, since=since), self.patience)
        if not found:
            fail(f"an answer to the command {message_id}", f"none within {self.patience:g} s")
        return found[0]

    def answers(self, message_id: str, *, since: int) -> list[Report]:
        """Every response with this message id since then."""
        return [one for one in self.reports(since) if one.document.get("message_id") == message_id]

    async def fence(self) -> None:
        """Wait until the agent has answered a `health_check`: it has read what was published before."""
        await self.ask("health_check")

    def talk(self, path: str | None, *, digest: str = "md5", chunk_size: int | None = None) -> Talk:
        """A new upload; the bench closes it after the check."""
        more = {} if chunk_size is None else {"chunk_size": chunk_size}
        made = Talk(self, path, digest=digest, **more)
        self._talks.append(made)
        return made

    async def clear(self) -> None:
        """Close the uploads of a check, remove its files, and let the agent be connected."""
        self.tap.keeps_acknowledgements = False
        self.tap.refuses = False
        for talk in self._talks:
            await talk.close("cancelled")
        self._talks.clear()
        self.samples.clear()

    async def stop(self) -> None:
        """End everything."""
        if self.program is not None:
            await asyncio.to_thread(self.program.stop)
        self.owner.close()
        await self.tap.stop()
        await self.store.stop()
        await self.elsewhere.stop()
