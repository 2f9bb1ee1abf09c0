"""The broker of a site that devices of the network reach: a Mosquitto with passwords and an access list.

Rule: the configuration is the shipped `mosquitto.conf` with this site's folders and addresses; a test compares them.
Devices connect at the address, services on loopback only, where one account may hold several connections.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker import access
from broker.configuration import CAPS, LOGGED, LOOPBACK
from broker.errors import BrokerMissing
from broker.process import Broker, BrokerAddress
from broker.server import find_mosquitto, start_configured
from schemas.topics import CONTROL_PLANE

ACCESS: Final = "access"
"""The folder of the accounts, below the broker's."""

OPERATOR: Final = "operator-local"
"""The account of the site's operator on this machine."""


def authenticated_configuration(directory: Path, devices: BrokerAddress, services: BrokerAddress) -> str:
    """The text of the configuration; `directory` holds the accounts and the database."""
    general = {
        "per_listener_settings": "false",
        "allow_anonymous": "false",
        "password_file": directory / ACCESS / access.PASSWORDS,
        "acl_file": directory / ACCESS / access.ACCESS_LIST,
        **{name: value for name, value in CAPS.items() if name != "max_qos"},
        "persistence": "true",
        "persistence_location": f"{directory}/",
        "autosave_interval": "60",
        "log_dest": "stderr",
        "log_timestamp_format": "%Y-%m-%dT%H:%M:%S",
    }
    lines = (
        *(f"{name} {value}" for name, value in general.items()),
        *LOGGED,
        f"listener {devices.port} {devices.host}",
        "use_username_as_clientid true",
        "max_connections 20000",
        f"max_qos {CAPS['max_qos']}",
        f"listener {services.port} {services.host}",
        "max_connections 200",
        f"max_qos {CAPS['max_qos']}",
    )
    return "\n".join(lines) + "\n"


class AuthenticatedBroker:
    """The broker of a site that listens on the network; the services' passwords are new at each start."""

    def __init__(self, address: str, device_port: int, service_port: int) -> None:
        self.devices = BrokerAddress(address, device_port)
        self.services = BrokerAddress(LOOPBACK, service_port)
        self.plane: dict[str, str] = {}
        """The control plane's settings: its account, and those of devices; empty before `start`."""

        self.operator: dict[str, str] = {}
        """The operator's account as settings, for `backhaul mqtt` on this machine."""

    def start(self, directory: Path) -> Broker:
        """The running broker. Its first address is the services'; `BrokerMissing` without mosquitto."""
        if find_mosquitto() is None:
            text = "only mosquitto has an access list, so --listen needs it: run `apt-get install mosquitto`"
            raise BrokerMissing(text)
        directory = directory.resolve()
        accounts = directory / ACCESS
        accounts.mkdir(parents=True, mode=0o700, exist_ok=True)
        access.prepare(accounts)
        self.plane = {
            **_account(accounts, CONTROL_PLANE),
            "BROKER_ACCESS": str(accounts),
            "DEVICE_MQTT_URL": self.devices.url,
        }
        self.operator = _account(accounts, OPERATOR)
        text = authenticated_configuration(directory, self.devices, self.services)
        return start_configured(directory, text, (self.services, self.devices))


def _account(accounts: Path, name: str) -> dict[str, str]:
    given = access.enroll_service(accounts, name, replace=True)
    return {"MQTT_USERNAME": given.username, "MQTT_PASSWORD": given.password}


def reload_on_change(broker: Broker, accounts: Path) -> Callable[[], None]:
    """A function that makes the broker read its accounts again if they have changed."""
    seen = _stamp(accounts)

    def check() -> None:
        nonlocal seen
        now = _stamp(accounts)
        if now != seen:
            seen = now
            broker.reload()

    return check


def _stamp(accounts: Path) -> tuple[int, ...]:
    return tuple((accounts / name).stat().st_mtime_ns for name in (access.PASSWORDS, access.ACCESS_LIST))


def port_is_free(address: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with suppress(OSError), socket.create_server((address, port)):
        return True
    return False
