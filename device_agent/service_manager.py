"""What the agent reports to the service manager that started it: ready, at work, alive, stopping (sd_notify(3)).

Rule: the loop reports that it turns; one thread passes that on, and also keeps the process alive while the loop waits
for a disk. A service manager that does not listen is never a fault.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Final, Self

PULSES: Final = 3
"""Signs of life in one period of the watchdog: one may be late, and one may be lost."""

PATIENCE: Final = 1.0
"""Seconds between two status texts: each wakes the service manager."""

READY_PATIENCE: Final = 10.0
"""Seconds for a service manager with a full queue to take the one message without which it ends the agent."""

_LONGEST_STATUS: Final = 300

log = logging.getLogger(__name__)


def status_line(broker: str | None, *, offline_for: str, uploads: int, failure: str | None) -> str:
    """What a person reads in `systemctl status`; `broker` is None while offline, `failure` is the disk's."""
    place = f"online at {broker}" if broker else f"offline: {offline_for}" if offline_for else "connecting"
    work = f"{uploads} upload{'' if uploads == 1 else 's'}"
    return "; ".join([place, work, *([failure] if failure else [])])


class Notifier:
    """Without an address it does nothing. `watchdog` is the seconds after which a silent process is ended."""

    def __init__(self, address: str | None = None, watchdog: float | None = None) -> None:
        # A name that begins with @ has no file: its first byte is zero.
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self.pulse = watchdog / PULSES if watchdog and address else None
        """Seconds within which the loop must turn; None without a watchdog."""
        self._turned = False
        self._excused = 0
        self._ended = threading.Event()
        self._status = self._shown = ""
        self._shown_at = 0.0
        self._failed = False

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Self:
        """The one that these variables name. The watchdog counts for the process `WATCHDOG_PID` only."""
        counted = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        text = environ.get("WATCHDOG_USEC", "") if counted else ""
        return cls(environ.get("NOTIFY_SOCKET") or None, int(text) / 1e6 if text.isdigit() else None)

    def ready(self) -> None:
        """The agent has opened its journal, and its loop turns."""
        self._send("READY=1", READY_PATIENCE)
        if self.pulse is not None:
            threading.Thread(target=self._pulse, args=(self.pulse,), name="watchdog", daemon=True).start()

    def turned(self) -> None:
        """The loop is not stuck."""
        self._turned = True

    def pass_on(self) -> None:
        """Give one sign of life, if the loop has turned since the last one, or waits for a disk."""
        if self._turned or self._excused:
            self._turned = False
            self._send("WATCHDOG=1")

    @contextlib.contextmanager
    def waiting_for_disk(self) -> Iterator[None]:
        """The loop may stand still in here, for as long as the disk takes: a restart would not make it faster."""
        self._excused += 1
        try:
            yield
        finally:
            self._excused -= 1
            self._turned = True

    def show(self, status: str, now: float) -> None:
        """Show one line in `systemctl status`, soon; `now` is in seconds of any steady clock."""
        self._status = status
        if status != self._shown and now >= self._shown_at + PATIENCE:
            self._shown, self._shown_at = status, now
            self._send("STATUS=" + status.replace("\n", " ")[:_LONGEST_STATUS])

    @property
    def next_at(self) -> float | None:
        """When a status that was not shown yet may be; None when nothing waits."""
        return None if self._address is None or self._status == self._shown else self._shown_at + PATIENCE

    def stopping(self) -> None:
        """The agent ends: how long it may take is from now on the service manager's time-out for a stop."""
        self._excused += 1
        self._send("STOPPING=1\nSTATUS=stopping")

    def close(self) -> None:
        """End the thread."""
        self._ended.set()

    def _pulse(self, every: float) -> None:
        while not self._ended.wait(every):
            self.pass_on()

    def _send(self, text: str, patience: float = 0.0) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(patience)
                sender.sendto(text.encode("utf-8", errors="replace"), self._address)
        except OSError as error:
            # The same at each time: a service manager that is away, or does not read.
            if not self._failed:
                log.warning("the service manager takes no message: %s", error.strerror or error)
            self._failed = True
