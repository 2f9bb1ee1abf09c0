"""Real brokers for tests: started once where tests can share one, on ports without another listener.

Rule: a test that needs a broker gets a real one. Only a program that is not installed is a reason to skip, and
`make test` installs both.

A test module imports the fixtures that it needs. Tests share brokers: each uses separate client ids and topics.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker import access
from broker.errors import BrokerMissing, PortTaken
from broker.process import Broker, BrokerAddress, Kind
from broker.server import find_mosquitto, free_port, start_broker, start_configured
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Wire, connected

CONFIGURATION: Final = Path(__file__).parents[2] / "mosquitto.conf"
LOOPBACK: Final = "127.0.0.1"
_PORT_TRIES: Final = 5


def started(directory: Path, kind: Kind, *, persistence: bool = False) -> Broker:
    """A running broker of one kind, or the test is skipped with the reason."""
    try:
        return start_broker(directory, kind=kind, persistence=persistence)
    except BrokerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One anonymous mosquitto for the whole run; a test that stops or kills its broker starts its own."""
    with started(tmp_path_factory.mktemp("mosquitto"), "mosquitto") as broker:
        yield broker


@pytest.fixture(scope="session", params=["mosquitto", "embedded"])
def any_broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Each kind of broker in turn."""
    kind: Kind = request.param
    with started(tmp_path_factory.mktemp(kind), kind) as broker:
        yield broker


@dataclass(frozen=True, slots=True)
class Fleet:
    """The shipped configuration, running, with accounts in it."""

    broker: Broker
    directory: Path

    @property
    def devices(self) -> int:
        """Port of the devices' listener."""
        return self.broker.addresses[0].port

    @property
    def services(self) -> int:
        """Port of the services' listener."""
        return self.broker.addresses[1].port


def shipped(directory: Path) -> tuple[str, tuple[BrokerAddress, BrokerAddress]]:
    """The text of the shipped `mosquitto.conf` with free ports and paths below `directory`, and its listeners."""
    text = CONFIGURATION.read_text()
    devices, services = BrokerAddress(LOOPBACK, free_port()), BrokerAddress(LOOPBACK, free_port())
    for old, new in (
        ("/etc/mosquitto/backhaul/", f"{directory}/"),
        ("/var/lib/mosquitto/", f"{directory}/database/"),
        ("listener 1883\n", f"listener {devices.port} {LOOPBACK}\n"),
        ("listener 1884 127.0.0.1\n", f"listener {services.port} {services.host}\n"),
    ):
        text, found = re.subn(f"^(?!#)(.*){re.escape(old)}", rf"\g<1>{new}", text, flags=re.MULTILINE)
        assert found, f"{old!r} is not in {CONFIGURATION}"
    (directory / "database").mkdir(exist_ok=True)
    return text, (devices, services)


def start_fleet(directory: Path) -> Fleet:
    """The shipped configuration as a running broker without any account."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: run `apt-get install mosquitto`")
    access.prepare(directory)
    for _ in range(_PORT_TRIES):
        text, addresses = shipped(directory)
        with suppress(PortTaken):
            return Fleet(start_configured(directory, text, addresses), directory)
    return pytest.fail(f"others took the ports of {_PORT_TRIES} brokers before they listened")


Open = Callable[[int, Connect], Wire]


@pytest.fixture
def open_wire() -> Iterator[Open]:
    """Opens accepted connections, which end with the test."""
    with ExitStack() as stack:
        yield lambda port, connect: stack.enter_context(connected(port, connect))
