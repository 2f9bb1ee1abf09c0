"""The log of the double, one JSON line for each request.

Rule: a line is written when the outcome is known and before the client receives it, with the bytes that arrived.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

STORED: Final = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEvent:
    """One request. `outcome` is `ok`, S3's error code, or the end of the connection; `fault` is the planted fault.

    `done` is whether the double changed its state, independent of the response.
    """

    number: int
    at: float
    operation: str
    bucket: str
    key: str
    part_number: int | None
    upload_id: str | None
    received: int
    outcome: str
    status: int | None
    done: bool
    fault: str | None

    @classmethod
    def read(cls, line: str) -> Self:
        """An event from its line."""
        fields: dict[str, Any] = json.loads(line)
        return cls(**fields)

    def to_line(self) -> str:
        """One line of the log."""
        return json.dumps(asdict(self), separators=(",", ":"))


class EventLog:
    """The events so far, in memory and in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: list[StoreEvent] = []
        self._lock = threading.Lock()

    def append(self, event: StoreEvent) -> None:
        """Write one event."""
        with self._lock, self.path.open("a") as file:
            self._events.append(event)
            file.write(f"{event.to_line()}\n")

    def __iter__(self) -> Iterator[StoreEvent]:
        with self._lock:
            return iter(list(self._events))


def read_events(path: Path) -> list[StoreEvent]:
    """The events of a log file; a torn last line is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [StoreEvent.read(line) for line in lines if line.endswith("}")]
