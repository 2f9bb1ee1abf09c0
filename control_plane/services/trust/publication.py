"""Publishes the documents of trust, one publication after another.

Rule: what the broker refuses is tried again ever more seldom, and logged once: a list that is too large stays so until
a person changes something.
"""

import asyncio
from typing import Final

from control_plane.services.errors import BrokerRefused, MessengerDown
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Messenger
from control_plane.services.trust.ports import StoredTrust
from schemas.topics import CONTROL_PLANE, Channel

FIRST_WAIT: Final = 4.0
LONGEST_WAIT: Final = 600.0
"""Seconds between two tries: the first pause, which doubles, and the longest one. Each connect is a try, too."""


class Publication:
    """What was published last, and when a refused publication is due again."""

    def __init__(self, messenger: Messenger, clock: Clock, log: EventLog) -> None:
        self._messenger = messenger
        self._clock = clock
        self._log = log
        self._turn = asyncio.Lock()
        self._latest: StoredTrust | None = None
        self._published = (0, 0)
        self._tries = 0
        self._due_at = float("-inf")
        self._logged: tuple[int, str] | None = None
        self._refused: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the broker has not the latest documents, and what to do; None when it has, or is away."""
        return self._refused

    async def look(self, latest: StoredTrust) -> None:
        """Publish these documents if they are new, or a try is due."""
        version = (latest.root, latest.version)
        is_new = self._latest is None or (self._latest.root, self._latest.version) != version
        if version != self._published and (is_new or self._clock.monotonic() >= self._due_at):
            await self.publish(latest)

    async def publish(self, latest: StoredTrust) -> None:
        """Publish the latest documents now; without a broker the next connect does it."""
        self._latest = latest
        async with self._turn:
            # While this waited for its turn, newer ones may have come.
            stored = self._latest
            try:
                await self._messenger.publish(Channel.KEYS, CONTROL_PLANE, stored.document.encode())
            except (MessengerDown, BrokerRefused) as error:
                self._failed(stored, error)
                return
            self._published, self._tries, self._refused, self._logged = (stored.root, stored.version), 0, None, None
            self._log("keys.published", {"root": stored.root, "version": stored.version})

    def _failed(self, stored: StoredTrust, error: MessengerDown | BrokerRefused) -> None:
        self._due_at = self._clock.monotonic() + min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._tries, 30))
        self._tries += 1
        self._refused = None
        if isinstance(error, BrokerRefused):
            self._refused = (
                f"the broker refuses list {stored.version} of the keys ({error}): raise its limit of a message's size"
            )
        if self._logged != (fact := (stored.version, str(error))):
            self._logged = fact
            self._log("keys.failed", {"version": stored.version, "error": str(error)})
