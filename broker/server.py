"""A real broker as a child process, for development, tests and the all-in-one command.

Rule: a broker is started only as a child that ends with its parent, and one that requires no password listens
on loopback only.

    with start_broker(Path("state")) as broker:
        print(broker.address.url)
"""

import importlib.util
import os
import secrets
import shutil
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from broker import configuration
from broker.child_process import python_program
from broker.errors import BrokerMissing, PortTaken
from broker.process import Broker, BrokerAddress, Kind, Launch

__all__ = ["Broker", "BrokerAddress", "find_mosquitto", "free_port", "start_broker", "start_configured"]

LOG_NAME: Final = "broker.log"
_PORT_TRIES: Final = 5
_PORTS: Final = range(10_000, 32_000)
_PORT_LOOKS: Final = 1000
_handed_out: Final[deque[int]] = deque(maxlen=_PORT_LOOKS)
"""Ports that were returned lately, and on which a server of this process may be about to listen."""


def find_mosquitto() -> Path | None:
    """The mosquitto program: on PATH, or in the folders of Debian and Homebrew that a plain user has not on PATH."""
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which("mosquitto", path=search)
    return Path(found) if found else None


def start_broker(
    directory: Path,
    *,
    port: int | None = None,
    kind: Literal["auto", "mosquitto", "embedded"] = "auto",
    persistence: bool = False,
) -> Broker:
    """A running broker on loopback that requires no password: for development and tests only.

    `directory` takes its configuration, log and database. Without `port` a free one is found. `BrokerMissing` if no
    program of that kind is installed; `BrokerNotStarted` with the last lines of the log if it does not come up.
    """
    chosen = _choose(kind)
    directory.mkdir(parents=True, exist_ok=True)
    for _ in range(_PORT_TRIES - 1):
        with suppress(PortTaken):
            return _started(_development(chosen, directory.resolve(), port or free_port(), persistence=persistence))
        if port is not None:
            break
    return _started(_development(chosen, directory.resolve(), port or free_port(), persistence=persistence))


def start_configured(directory: Path, config_text: str, addresses: Iterable[BrokerAddress]) -> Broker:
    """A running mosquitto with the given configuration, which must log to standard error, as it does by default.

    `addresses` are the listeners that the configuration names, as a client on this machine reaches them; the first
    one becomes `Broker.address`. It runs as the user who starts it unless the configuration names another.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return _started(_mosquitto(directory.resolve(), config_text, tuple(addresses)))


def free_port() -> int:
    """A port of loopback without a listener, outside the range from which the system takes outgoing ports.

    A port from that range could be lost while a broker restarts: to any client, even to one that waits for this
    x since a socket that keeps connecting to such a port in time connects to itself.

    Another port at each call. `PortTaken` when none is found.
    """
    for _ in range(_PORT_LOOKS):
        # Not from `random`: where that is seeded, as in a simulation, another process draws the same ports.
        port = secrets.choice(_PORTS)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((configuration.LOOPBACK, port))
            except OSError:
                continue
            _handed_out.append(port)
            return port
    message = f"no free port between {_PORTS.start} and {_PORTS.stop}"
    raise PortTaken(message)


def _choose(kind: Literal["auto", "mosquitto", "embedded"]) -> Kind:
    if kind != "embedded" and find_mosquitto() is not None:
        return "mosquitto"
    if kind != "mosquitto" and importlib.util.find_spec("iotcore") is not None:
        return "embedded"
    raise _missing(kind)


def _missing(kind: str) -> BrokerMissing:
    what = "no MQTT broker is" if kind == "auto" else f"the {kind} broker is not"
    remedies = "`apt-get install mosquitto`, or `pip install 'backhaul[demo]'` for the embedded one"
    return BrokerMissing(f"{what} installed: run {remedies}")


def _development(kind: Kind, directory: Path, port: int, *, persistence: bool) -> Launch:
    address = BrokerAddress(configuration.LOOPBACK, port)
    if kind == "mosquitto":
        text = configuration.development_mosquitto(port=port, directory=directory, persistence=persistence)
        return _mosquitto(directory, text, (address,))
    command = python_program("broker.embedded", "--port", str(port), "--directory", str(directory))
    return Launch("embedded", command, (address,), directory / LOG_NAME)


def _mosquitto(directory: Path, config_text: str, addresses: tuple[BrokerAddress, ...]) -> Launch:
    program = find_mosquitto()
    if program is None:
        raise _missing(kind="mosquitto")
    if os.geteuid() == 0 and configuration.option(config_text, "user") is None:
        # Started by root, mosquitto would become the user `mosquitto`, which may not write to a directory of root;
        # and a change of user clears the signal that ends it with its parent (prctl(2)).
        config_text = f"{config_text}\nuser root\n"
    path = directory / "mosquitto.conf"
    path.write_text(config_text)
    command = (str(program), "-c", str(path))
    return Launch("mosquitto", command, addresses, directory / LOG_NAME, configuration.database(config_text))


def _started(launch: Launch) -> Broker:
    broker = Broker(launch)
    broker.start()
    return broker
