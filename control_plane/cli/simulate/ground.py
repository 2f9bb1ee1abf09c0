"""What all simulated devices of one process share.

Rule: counts are only ever added to; whoever wants a rate looks twice.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from control_plane.cli.simulate.file import SyntheticFile
from control_plane.cli.simulate.requests import Requests
from schemas.topics import Topics


@dataclass(slots=True)
class Tally:
    """What all devices together did."""

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

    async def until(self, fine: Callable[[], bool], patience: float) -> bool:
        """Wait until `fine` says so, asked whenever a device connects or an upload ends; False when it never did."""
        try:
            async with asyncio.timeout(patience):
                while not fine():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Ground:
    """What devices share."""

    topics: Topics
    file: SyntheticFile
    requests: Requests
    tally: Tally
    first_epoch: int
    password: str | None = None
