"""The broker's image with the repository's `mosquitto.conf`, started by testcontainers: what docker-compose.yml runs.

Rule: the container is started as the compose file starts it (user, read-only root), and its accounts are made by
`broker.access`. Other tests check what the configuration does; this one checks that the image accepts it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker import access
from broker.access import Credentials
from schemas.topics import Topics
from tests.support.engine_fixtures import images
from tests.support.engine_images import MOSQUITTO, Images
from tests.support.engine_stack import ROOT
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Wire, connected

__all__ = ["images"]
pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

NOT_AUTHORIZED = 0x87
USER = 1883


@dataclass(frozen=True, slots=True)
class Running:
    """A broker in a container, and the account of one device at it."""

    port: int
    device: Credentials


@pytest.fixture(scope="module")
def broker(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    images.provide(MOSQUITTO)
    # The package reads these at its import. Its helper container cannot be pulled everywhere; `with` stops the broker.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy  # noqa: PLC0415

    directory = accounts(tmp_path_factory.mktemp("accounts"))
    device = access.enroll(directory, "restaurant-1")
    configured = (
        DockerContainer(MOSQUITTO)
        .with_command(["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"])
        .with_volume_mapping(str(ROOT / "mosquitto.conf"), "/mosquitto/config/mosquitto.conf", "ro")
        .with_volume_mapping(str(directory), "/etc/mosquitto/backhaul", "ro")
        .with_kwargs(
            user=f"{USER}:{USER}",
            read_only=True,
            cap_drop=["ALL"],
        )
        .waiting_for(LogMessageWaitStrategy("mosquitto version .* running").with_startup_timeout(30))
    )
    # A free port of the loopback address only: docker-py accepts the pair, and testcontainers passes it on unchanged.
    configured.ports["1883/tcp"] = ("127.0.0.1", None)  # type: ignore[assignment]
    configured.tmpfs["/var/lib/mosquitto"] = f"uid={USER},gid={USER},mode=0700"
    with configured as container:
        yield Running(int(container.get_exposed_port(1883)), device)


def accounts(directory: Path) -> Path:
    """The broker's directory; it belongs to the user of the container."""
    if os.geteuid() != 0:
        pytest.skip("only root can give the broker's files to the user of its container")
    directory.chmod(0o700)
    os.chown(directory, USER, USER)
    for parent in directory.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    access.prepare(directory)
    return directory


def test_a_device_publishes_only_under_its_client_id(broker: Running) -> None:
    topics = Topics()
    with connected(broker.port, as_device(broker, "restaurant-1")) as wire:
        assert wire.publish(topics.response("restaurant-1"), b"{}") != NOT_AUTHORIZED
        assert wire.publish(topics.response("restaurant-2"), b"{}") == NOT_AUTHORIZED


def test_a_forged_client_id_grants_no_topic(broker: Running) -> None:
    """`use_username_as_clientid`: the broker replaces the client id of a connection by its username."""
    topics = Topics()
    with connected(broker.port, as_device(broker, "restaurant-2")) as wire:
        assert wire.publish(topics.response("restaurant-2"), b"{}") == NOT_AUTHORIZED


def test_a_connection_without_a_password_is_refused(broker: Running) -> None:
    with Wire(broker.port) as wire:
        assert wire.connect(Connect("restaurant-1")).reason == NOT_AUTHORIZED


def as_device(broker: Running, client_id: str) -> Connect:
    return Connect(client_id, username=broker.device.username, password=broker.device.password)
