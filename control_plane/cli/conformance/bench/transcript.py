"""Everything that the agent did, in order.

Rule: entries are only added. A check waits for a fact in the transcript, never for time to pass.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from control_plane.cli.conformance.bench.wire import ConnectFacts, PublishFacts, SubscribeFacts

Found = TypeVar("Found")
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Connected:
    """The agent sent CONNECT; `connection` counts from 1."""

    at: float
    connection: int
    facts: ConnectFacts


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The agent sent SUBSCRIBE."""

    at: float
    connection: int
    facts: SubscribeFacts


@dataclass(frozen=True, slots=True)
class Sent:
    """The agent published a message."""

    at: float
    connection: int
    facts: PublishFacts

    @property
    def channel(self) -> str:
        """The last level of its topic."""
        return self.facts.topic.rpartition("/")[2]

    @property
    def document(self) -> dict[str, Any]:
        """The message as plain JSON; empty when it is none."""
        return document_of(self.facts.payload)


@dataclass(frozen=True, slots=True)
class DeliveredToAgent:
    """The broker delivered a message to the agent."""

    at: float
    connection: int
    facts: PublishFacts

    @property
    def document(self) -> dict[str, Any]:
        """The message as plain JSON; empty when it is none."""
        return document_of(self.facts.payload)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The agent sent PUBACK."""

    at: float
    connection: int
    packet_id: int
    reason: int


@dataclass(frozen=True, slots=True)
class Left:
    """A connection of the agent is over; `reason` is the one of its DISCONNECT, None when it sent none."""

    at: float
    connection: int
    reason: int | None


@dataclass(slots=True)
class Transcript:
    """The entries, and a wait for one that is still to come."""

    entries: list[object] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, entry: object) -> None:
        """Add an entry, and wake what waits."""
        self.entries.append(entry)
        self.touch()

    def touch(self) -> None:
        """Wake what waits: something beside the transcript has changed."""
        self._changed.set()

    @property
    def mark(self) -> int:
        """Where the next entry will be."""
        return len(self.entries)

    def of(self, kind: type[Entry], since: int = 0) -> Iterator[Entry]:
        """The entries of one kind, from an index on."""
        return (entry for entry in self.entries[since:] if isinstance(entry, kind))

    async def until(self, find: Callable[[], Found | None], patience: float) -> Found | None:
        """What `find` returns as soon as it is true, looked for after each change; None after `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                while not (found := find()):
                    self._changed.clear()
                    await self._changed.wait()
                return found
        except TimeoutError:
            return find() or None


def document_of(payload: bytes) -> dict[str, Any]:
    """A payload as plain JSON; empty when it is not a JSON object."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
