"""The TLS listeners that `mosquitto.conf` documents in its comments, with the comment signs taken off.

Rule: the text under test is the text in the file. Devices and services have authorities of their own, so a device
that reaches the services' listener is refused before it can send any name.
"""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker import access
from broker.access import Credentials
from broker.configuration import option
from broker.process import Broker, BrokerAddress
from broker.server import free_port, start_configured
from schemas.topics import Topics
from tests.support.authorities import Authority
from tests.support.brokers import LOOPBACK, shipped
from tests.support.mqtt_packets import Connect, Kind
from tests.support.mqtt_wire import Wire

NOT_AUTHORIZED = 0x87


@dataclass(frozen=True, slots=True)
class Site:
    """A broker with the two TLS listeners, and the authorities."""

    broker: Broker
    server: Authority
    devices: Authority
    services: Authority
    operator: Credentials
    mallory: Credentials

    def connect(self, listener: int, tls: ssl.SSLContext, connect: Connect) -> int | None:
        """The reason code of the CONNACK; None when the broker breaks off before one."""
        try:
            with Wire(self.broker.addresses[listener].port, tls) as wire:
                answer = wire.connect(connect)
                assert answer.kind is Kind.CONNACK
                if not answer.reason:
                    wire.ping()
                return answer.reason
        except ssl.SSLCertVerificationError:
            raise  # it is we who mistrust the broker
        except (ssl.SSLError, ConnectionError):
            return None


def uncommented(text: str, addresses: tuple[BrokerAddress, BrokerAddress]) -> str:
    """The configuration with the examples of its last section in force."""
    head, mark, examples = text.partition("# --- With TLS")
    assert mark
    examples = re.sub(r"^#   ", "", examples, flags=re.MULTILINE)
    for port, address in zip((8883, 8884), addresses, strict=True):
        examples, found = re.subn(f"^listener {port}$", f"listener {address.port}", examples, flags=re.MULTILINE)
        assert found == 1
    access_list = option(text, "acl_file")
    assert access_list is not None
    return head + mark + examples.replace("/etc/mosquitto/backhaul", str(Path(access_list).parent))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    server, devices, services = (Authority.make(tmp_path, name) for name in ("server", "devices", "services"))
    server.issue("server")
    mallory = access.enroll(tmp_path, "mallory")
    operator = access.enroll_service(tmp_path, "operator-ann")
    addresses = (BrokerAddress(LOOPBACK, free_port()), BrokerAddress(LOOPBACK, free_port()))
    text, _ = shipped(tmp_path)
    with start_configured(tmp_path, uncommented(text, addresses), addresses) as broker:
        yield Site(broker, server, devices, services, operator, mallory)


def as_account(client_id: str, credentials: Credentials) -> Connect:
    return Connect(client_id, username=credentials.username, password=credentials.password)


def test_the_name_of_a_device_comes_from_its_certificate(site: Site) -> None:
    topics, tls = Topics(), site.devices.client("mallory", site.server)
    with Wire(site.broker.addresses[0].port, tls) as wire:
        assert wire.connect(Connect("victim", username="victim", password="whatever")).reason == 0
        assert wire.publish(topics.response("mallory"), b"mine") != NOT_AUTHORIZED
        assert wire.publish(topics.response("victim"), b"forged") == NOT_AUTHORIZED


def test_a_certificate_of_another_authority_is_refused(site: Site) -> None:
    forged = Authority.make(site.server.directory, "forged").client("mallory", site.server)
    assert site.connect(0, forged, Connect("mallory")) is None
    assert site.connect(1, forged, as_account("cli-1", site.operator)) is None


def test_without_a_certificate_no_connection_is_accepted(site: Site) -> None:
    bare = ssl.create_default_context(cafile=str(site.server.directory / "server-ca.crt"))
    assert site.connect(0, bare, Connect("mallory")) is None
    assert site.connect(1, bare, as_account("cli-1", site.operator)) is None


def test_a_device_cannot_connect_to_the_services_listener(site: Site) -> None:
    """Neither with its certificate nor with its password: the hole of a shared password file is closed."""
    device = site.devices.client("mallory", site.server)
    assert site.connect(1, device, as_account("victim", site.mallory)) is None


def test_a_service_needs_its_certificate_and_its_password(site: Site) -> None:
    service = site.services.client("ann", site.server)
    assert site.connect(1, service, as_account("cli-1", site.operator)) == 0
    assert site.connect(1, service, Connect("cli-1")) == NOT_AUTHORIZED
    assert site.connect(1, service, Connect("cli-1", username="operator-ann", password="wrong")) == NOT_AUTHORIZED


def test_tls_older_than_1_3_is_refused(site: Site) -> None:
    device = site.devices.client("mallory", site.server)
    device.maximum_version = ssl.TLSVersion.TLSv1_2
    assert site.connect(0, device, Connect("mallory")) is None
