"""What the agent has to say and the network has not taken yet.

Rule: bounded, in order, and gone with the connection: whatever is worth repeating is derived again from the state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from schemas.topics import Channel

MAX_WAITING: Final = 8_192


@dataclass(frozen=True, slots=True)
class Letter:
    """One message; `expiry` in seconds."""

    channel: Channel
    data: bytes
    expiry: int | None = None


class Outgoing:
    """Letters by key: a newer one takes the place of an older one with the same key, in its old position."""

    def __init__(self, publish: Callable[[Letter], bool]) -> None:
        self._publish = publish
        self._waiting: dict[str, Letter] = {}
        self.dropped = 0
        """Letters for which there was no room."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: str, letter: Letter) -> None:
        """Have a letter published by the next `flush`."""
        if key not in self._waiting and len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting[key] = letter

    def flush(self) -> None:
        """Publish in order, until the network takes no more."""
        for key, letter in tuple(self._waiting.items()):
            if not self._publish(letter):
                return
            del self._waiting[key]

    def take(self) -> dict[str, Letter]:
        """Everything that waits, which from here on does not."""
        waiting, self._waiting = self._waiting, {}
        return waiting
