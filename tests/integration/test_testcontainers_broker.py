"""The broker's image with the repository's `mosquitto.conf`, started by testcontainers: what docker-compose.yml runs.

Rule: the container is started as the compose file starts it (user, read-only root), and its accounts are made by
`broker.access`. What the configuration does is tested on a real broker elsewhere; here it is that the image takes it.
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
    """A broker in a container, and a device's account there."""

    port: int
    device: Credentials


@pytest.fixture(scope="module")
def broker(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    images.provide(MOSQUITTO)
    # Read when the package is imported; its helper container cannot be pulled everywhere, and ours are stopped below.
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
    # A free port of loopback alone: docker-py takes the pair, and testcontainers passes on what it is given.
    configured.ports["1883/tcp"] = ("127.0.0.1", None)  # type: ignore[assignment]
    configured.tmpfs["/var/lib/mosquitto"] = f"uid={USER},gid={USER},mode=0700"
    with configured as container:
        yield Running(int(container.get_exposed_port(1883)), device)


def accounts(directory: Path) -> Path:
    """The broker's directory; the container's user owns what it has to read."""
    if os.geteuid() != 0:
        pytest.skip("only root can give the broker's files to the user of its container")
    directory.chmod(0o700)
    os.chown(directory, USER, USER)
    for parent in directory.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    access.prepare(directory)
    return directory


def test_a_device_comes_in_under_its_own_name(broker: Running) -> None:
    topics = Topics()
    with connected(broker.port, as_device(broker, "restaurant-1")) as wire:
        assert wire.publish(topics.response("restaurant-1"), b"{}") != NOT_AUTHORIZED
        assert wire.publish(topics.response("restaurant-2"), b"{}") == NOT_AUTHORIZED


def test_another_client_id_is_not_believed(broker: Running) -> None:
    """`use_username_as_clientid`: whoever claims to be another is still itself."""
    topics = Topics()
    with connected(broker.port, as_device(broker, "restaurant-2")) as wire:
        assert wire.publish(topics.response("restaurant-2"), b"{}") == NOT_AUTHORIZED


def test_a_missing_password_is_refused(broker: Running) -> None:
    with Wire(broker.port) as wire:
        assert wire.connect(Connect("restaurant-1")).reason == NOT_AUTHORIZED


def as_device(broker: Running, client_id: str) -> Connect:
    return Connect(client_id, username=broker.device.username, password=broker.device.password)
