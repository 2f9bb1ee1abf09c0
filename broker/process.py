"""One running broker: a child process that is started, watched, stopped, killed and started again.

Rule: a broker counts as started only when *this* child announced it and its ports accept connections: a port alone may
belong to another broker.
"""

import re
import signal
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

from broker.child_process import ChildProcess
from broker.errors import BrokerNotStarted, NotListening, PortTaken

Kind = Literal["mosquitto", "embedded"]

READY_TIMEOUT: Final = 60.0
"""Seconds within which a broker has to listen."""

_RUNNING: Final = re.compile(r"(mosquitto version \S+|embedded broker) running")
_BAD_DATABASE: Final = re.compile(r"couldn't open database|unable to restore persistent database", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The value for the setting `MQTT_URL`."""
        return f"mqtt://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How one broker is started: all its listeners (the first is its address), its program, and its files."""

    kind: Kind
    command: tuple[str, ...]
    addresses: tuple[BrokerAddress, ...]
    log_path: Path
    database: Path | None = None


class Broker:
    """One broker. It can be stopped, killed and started again; its address stays the same."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._child: ChildProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def kind(self) -> Kind:
        """Which program it is."""
        return self._launch.kind

    @property
    def address(self) -> BrokerAddress:
        """Its first listener."""
        return self._launch.addresses[0]

    @property
    def addresses(self) -> tuple[BrokerAddress, ...]:
        """All its listeners, in the order of the configuration."""
        return self._launch.addresses

    @property
    def log_path(self) -> Path:
        """What it has printed, over all its starts."""
        return self._launch.log_path

    @property
    def pid(self) -> int:
        """Process id of the child; `BrokerNotStarted` when there is none."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.alive

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it runs. Its `pid` may be free again by the time a caller uses it."""
        if self._child is not None:
            self._child.send(number)

    def start(self) -> None:
        """Start it and wait until it listens; does nothing when it runs.

        A database that mosquitto cannot open is moved aside, and mosquitto starts without it: Backhaul needs nothing in
        it. A full disk leaves such a file behind on 2.0.11, and mosquitto then never starts again.
        """
        if self.alive:
            return
        try:
            self._start_once()
        except PortTaken:
            raise
        except BrokerNotStarted:
            if not self._move_bad_database_aside():
                raise
            self._start_once()

    def stop(self) -> None:
        """SIGTERM (mosquitto then saves its database), SIGKILL if that takes too long."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """SIGKILL: a power cut."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop it and start it on the same port."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Let mosquitto read its password file and access list again (SIGHUP); connected clients stay."""
        self._running().send(signal.SIGHUP)

    def _running(self) -> ChildProcess:
        if self._child is None or not self._child.alive:
            message = f"the {self.kind} broker at {self.address.url} is not running"
            raise BrokerNotStarted(message)
        return self._child

    def _start_once(self) -> None:
        self._child = ChildProcess(self._launch.command, self.log_path)
        try:
            listeners = [(address.host, address.port) for address in self.addresses]
            self._child.wait_until_listening(_RUNNING, listeners, READY_TIMEOUT)
        except NotListening as error:
            urls = ", ".join(address.url for address in self.addresses)
            message = f"the {self.kind} broker for {urls} {error}"
            raise (PortTaken if error.port_taken else BrokerNotStarted)(message) from error

    def _move_bad_database_aside(self) -> bool:
        child, path = self._child, self._launch.database
        if child is None or path is None or not path.exists():
            return False
        crashed = child.exit_code is not None and child.exit_code < 0
        blamed = _BAD_DATABASE.search(child.output()) is not None
        if crashed or blamed:
            path.rename(path.with_name(f"{path.name}.bad-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"))
        return crashed or blamed
