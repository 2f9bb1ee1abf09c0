"""State that all parts of a history share: time, random generator, faults, and the trace.

Rule: every choice is drawn from one generator, so the seed decides all of them. In calm nothing fails.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final

from tests.simulation.loop import VirtualLoop

EPOCH: Final = 1_800_000_000.0
"""The instant (s, UTC) at which every history begins."""

FAULTS: Final = (
    "drop",  # a message is lost after it was accepted
    "dup",  # a message arrives twice
    "delay",  # a message takes seconds to arrive
    "reorder",  # a message overtakes others
    "replay",  # an old message comes again, minutes later
    "poison",  # bytes that do not decode to a message
    "cut",  # a device's connection breaks, noticed late by either side
    "restart",  # the broker restarts, its sessions kept
    "amnesia",  # the broker loses all its state
    "freeze",  # the broker stops responding
    "overflow",  # the broker keeps three messages for an absent device, and drops the newest
    "crash",  # an agent is killed, or its device loses power, also at an fsync
    "wipe",  # a device comes back with an empty state folder
    "disk",  # a device's disk is full
    "plane",  # the control plane is killed and started again
    "replica",  # two control planes share one database
    "locked",  # the database cannot be written for a while
    "s3",  # PUTs and calls fail, before or after they took effect
    "outage",  # the whole object store answers 503 with Retry-After
    "doubt",  # the answer to Complete and Create is lost, or comes before the effect
    "late",  # an abandoned PUT is stored later
    "lost",  # another program aborts our multipart uploads
    "expiry",  # URLs live for a minute
    "file",  # files are appended to, rewritten, truncated, replaced, deleted
    "cancel",  # an operator cancels
    "deadline",  # uploads have short deadlines
    "clock",  # the control plane's clock jumps
    "typed",  # a person publishes a bare command
    "flaky",  # a device's disk fails to sync now and then, and its process to open files
)


class World:
    """The shared state of one history."""

    def __init__(self, seed: int, faults: frozenset[str], *, traced: bool = False) -> None:
        self.seed = seed
        self.faults = faults
        self.chance = Random(seed)
        self.loop = VirtualLoop()
        self.calm = False
        self.lines: list[str] | None = [] if traced else None
        self.rate = self.chance.choice([0.02, 0.05, 0.15])
        """Probability that an action with a fault fails."""
        self.pace = self.chance.choice([1.0, 6.0, 30.0])
        """Longest time (s) that one part takes."""

    def now(self) -> float:
        """Virtual seconds since the history began."""
        return self.loop.now

    def wall(self) -> float:
        """The true instant (s since the epoch); the clocks of the models may be wrong."""
        return EPOCH + self.loop.now

    def fails(self, fault: str, share: float = 1.0) -> bool:
        """Whether this fault strikes now; `share` of the history's rate."""
        return not self.calm and fault in self.faults and self.chance.random() < self.rate * share

    def later(self, delay: float, call: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:  # noqa: ANN401
        """Call `call` after `delay` seconds."""
        return self.loop.call_later(delay, call, *arguments)

    def between(self, low: float, high: float) -> float:
        """Any number from `low` to `high`."""
        return low + (high - low) * self.chance.random()

    def note(self, who: str, what: str) -> None:
        """One line of the trace."""
        if self.lines is not None:
            self.lines.append(f"{self.loop.now:10.3f} {who:<10} {what}")
