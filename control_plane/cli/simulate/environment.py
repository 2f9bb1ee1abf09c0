"""The state that all simulated devices of one process share.

Rule: counters only grow, apart from `connected`; a rate is the difference of two readings.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from control_plane.cli.simulate.file import FOLDER, SyntheticFile
from control_plane.cli.simulate.http_pool import HttpPool
from schemas.topics import Topics


@dataclass(slots=True)
class Counters:
    """Totals over all devices."""

    connects: int = 0
    connected: int = 0
    commands: int = 0
    puts: int = 0
    bytes_sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, outcome: str) -> None:
        """Count an upload that its owner closed."""
        self.outcomes[outcome] += 1
        self.changed.set()

    async def until(self, met: Callable[[], bool], patience: float) -> bool:
        """Wait until `met()`, checked when a device connects or an upload ends; False after `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                while not met():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Environment:
    """What devices share: topics, files by path, HTTP connections, counters, wall clock (s since the epoch), labels."""

    topics: Topics
    files: Mapping[str, SyntheticFile]
    http: HttpPool
    counters: Counters
    first_epoch: int
    password: str | None = None
    wall: Callable[[], float] = time.time
    labels: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[str, ...] = (FOLDER,)

    @property
    def default_file(self) -> SyntheticFile:
        """What a command without a path means: the first file."""
        return next(iter(self.files.values()))
