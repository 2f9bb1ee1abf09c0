"""The agent's loop; the test takes the place of its file work and its network."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from device_agent.agent import Agent, Environment
from device_agent.effects import EffectRunner
from device_agent.files.roots import Roots
from device_agent.inbox import CommandArrived, EffectDone, EventQueue
from device_agent.mqtt.connection import AckToken
from device_agent.service_manager import Notifier
from device_agent.settings import Settings
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.state.selections import KeptSelections
from device_agent.transfer.events import Digested, Opened
from device_agent.trust.signing import DeviceSigning
from device_agent.uploads import Run
from device_agent.watching.exporter import Exporter
from device_agent.workers.part_io import PartIO
from device_agent.workers.pool import ThreadPool
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.parts import MIB
from schemas.topics import Channel
from schemas.values import SystemInfo
from tests.unit.device_agent.device import fingerprint

FILE = fingerprint(10 * MIB)


class IdlePool(ThreadPool):
    """A pool that runs nothing."""

    def submit(self, call: Callable[[], None], owner: object = None) -> None:
        """Drop the call."""


class FakeNetwork:
    """A network that accepts everything; calls are recorded in order."""

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened
        self.published: list[bytes] = []
        self.acknowledged: list[AckToken] = []
        self.room = MAX_MESSAGE_SIZE

    def start(self) -> None:
        """Nothing to do."""

    def stop(self, offline: bytes | None = None) -> None:
        assert offline is not None
        self.happened.append("published offline")

    def publish(
        self, channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None
    ) -> bool:
        assert (expiry is None) is (channel is not Channel.PRESENCE)
        self.published.append(data)
        return True

    def ack(self, token: AckToken) -> None:
        self.acknowledged.append(token)


class Works(ThreadPool):
    """A pool whose calls the test makes."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name, 0)
        del count
        self.name = name
        self.calls: list[tuple[Callable[[], None], Any]] = []

    def submit(self, call: Callable[[], None], owner: object = None) -> None:
        """Keep the call."""
        self.calls.append((call, owner))

    def run(self) -> None:
        """Make the calls that are kept."""
        taken, self.calls[:] = list(self.calls), []
        for call, _ in taken:
            call()


class AgentLoop:
    """An agent; the test takes the place of its file work and its network."""

    def __init__(
        self,
        folder: Path,
        *,
        roots: Roots | None = None,
        make_pool: Callable[[str, int], ThreadPool] = IdlePool,
        metrics: Exporter | None = None,
        manager: Notifier | None = None,
        signing: DeviceSigning | None = None,
    ) -> None:
        self.happened: list[str] = []
        uploader = SimpleNamespace(close=lambda: self.happened.append("cut"))
        copies = SimpleNamespace(sweep=lambda _orders: None)
        part_io = cast("PartIO", SimpleNamespace(uploader=uploader, copies=copies, clock=lambda: 1.0))
        self.inbox = EventQueue()
        self.network = FakeNetwork(self.happened)
        self.now = 1.0
        self.journal, transfers = Journal.open(folder)
        environment = Environment(
            inbox=self.inbox,
            runner=EffectRunner(part_io, self.inbox, senders=1, make_pool=make_pool),
            connect=lambda _will: self.network,
            check_url=lambda _part: None,
            system_info=SystemInfo,
            selections=KeptSelections(folder / "selections"),
            roots=roots or Roots(),
            metrics=metrics or Exporter(),
            manager=manager or Notifier(),
            clock=lambda: self.now,
            signing=signing,
        )
        settings = Settings(client_id="d1", state_dir=folder)
        self.agent = Agent(settings, self.journal, transfers, Installation.open(folder), environment)

    def command(self, action: str, packet_id: int = 1, **payload: Any) -> CommandArrived:  # noqa: ANN401
        message = {"message_id": f"m-{action}", "action": action, "payload": {"upload_id": "u1", **payload}}
        return CommandArrived(msgspec.json.encode(message), AckToken(1, packet_id))

    def sending(self) -> Run:
        """An upload with its first part in flight."""
        self.agent.turn([self.command("download_file", file_path="/d/a")])
        run = self.agent.uploads.get("u1")
        assert run is not None
        self.agent.turn([EffectDone(run, run.session, Opened(now=1.0, fingerprint=FILE), "open")])
        self.agent.turn([EffectDone(run, run.session, Digested(now=1.0, digests={1: "d1", 2: "d2"}), "digest")])
        urls = [{"part_number": n, "url": f"https://s/{n}"} for n in (1, 2)]
        self.agent.turn([self.command("grant_parts", presigned_urls=urls, acknowledges=1)])
        assert 1 in run.transfer.in_flight
        return run
