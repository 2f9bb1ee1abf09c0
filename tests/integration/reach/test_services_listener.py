"""Port 8884 of the broker in Kubernetes: it wants a certificate of the services' authority, and services show one.

Rule: Mosquitto reads the configuration that is shipped, with other ports and folders; the certificates are those that
the guide has made, under the names that the overlay gives them.
"""

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from broker import access
from broker.access import Credentials
from broker.errors import PortTaken
from broker.process import Broker, BrokerAddress
from broker.server import find_mosquitto, free_port, start_configured
from control_plane import bootstrap
from control_plane.adapters.mqtt.messenger import MqttMessenger
from control_plane.adapters.mqtt.prompt_client import UNCERTIFIED
from control_plane.services.ports.log import EventLog
from control_plane.settings import Settings
from schemas.topics import Topics
from tests.support.brokers import LOOPBACK
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, Wire

ROOT: Final = Path(__file__).parents[3]
BASE: Final = ROOT / "deploy/kubernetes/base"
EXAMPLE: Final = ROOT / "deploy/kubernetes/example/kustomization.yaml"
MOUNTED: Final = "/run/secrets/backhaul"
TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Cluster:
    """The broker, what the pods of the control plane have, and a device."""

    broker: Broker
    settings: dict[str, str]
    authority: Path
    device: Credentials

    def log_in(self, listener: int) -> int | None:
        """The broker's answer to the device without a certificate; None where it ends the connection before one."""
        tls = ssl.create_default_context(cafile=str(self.authority))
        try:
            with Wire(self.broker.addresses[listener].port, tls) as wire:
                name = self.device.username
                return wire.connect(Connect(name, username=name, password=self.device.password)).reason
        except (ssl.SSLError, ConnectionError, Closed):
            return None


def mounted(secret: str, secrets: Path, folder: Path) -> Path:
    """A Secret of the overlay, as a pod has it in a folder."""
    (found,) = [one for one in yaml.safe_load(EXAMPLE.read_text("utf-8"))["secretGenerator"] if one["name"] == secret]
    folder.mkdir()
    for entry in found["files"]:
        name, _, source = entry.rpartition("=")
        path = secrets / Path(source).name
        # The other files of the control plane are made by other commands of the guide.
        if path.exists():
            shutil.copy(path, folder / (name or path.name))
    return folder


def environment_of_a_pod(folder: Path) -> dict[str, str]:
    """What the manifests set for the broker, with a folder of this machine for the mounted one."""
    documents: list[Any] = [*yaml.safe_load_all((BASE / "control-plane.yaml").read_text("utf-8"))]
    (plane,) = [one for one in documents if one["kind"] == "Deployment"]
    (container,) = plane["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"] if one["name"] in {"MQTT_CERTIFICATE", "MQTT_KEY"}}
    return {name: value.replace(MOUNTED, str(folder)) for name, value in given.items()}


def configuration(home: Path, certificate: Path, addresses: tuple[BrokerAddress, ...]) -> str:
    """The shipped text with folders and ports of this machine."""
    text = (BASE / "mosquitto.conf").read_text("utf-8")
    ports = zip((8883, 8884), addresses, strict=True)
    pairs = [(f"listener {port}", f"listener {one.port} {one.host}") for port, one in ports]
    pairs += [("/etc/mosquitto/certificate", str(certificate)), ("/etc/mosquitto/backhaul", str(home / "accounts"))]
    for old, new in [*pairs, ("/var/lib/mosquitto/", f"{home}/state/")]:
        assert old in text
        text = re.sub(rf"^(?!#)(.*){re.escape(old)}", rf"\g<1>{new}", text, flags=re.MULTILINE)
    return text


@pytest.fixture(scope="module", name="cluster")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if find_mosquitto() is None or shutil.which("openssl") is None:
        pytest.skip("mosquitto or openssl is not installed")
    home = tmp_path_factory.mktemp("cluster")
    secrets, accounts = home / "secrets", home / "accounts"
    make = [str(ROOT / "deploy/production/make-secrets"), "localhost", "--kubernetes", str(secrets)]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    accounts.mkdir(mode=0o700)
    (home / "state").mkdir()
    plane = access.enroll_service(accounts, "control-plane")
    device = access.enroll(accounts, "till-1")
    certificate = mounted("broker-certificate", secrets, home / "certificate")
    for _ in range(TRIES):
        addresses = (BrokerAddress(LOOPBACK, free_port()), BrokerAddress(LOOPBACK, free_port()))
        with suppress(PortTaken):
            broker = start_configured(home / "broker", configuration(home, certificate, addresses), addresses)
            break
    else:
        pytest.fail(f"others took the ports of {TRIES} brokers")
    settings = {
        "MQTT_URL": f"mqtts://localhost:{addresses[1].port}",
        "MQTT_USERNAME": plane.username,
        "MQTT_PASSWORD": plane.password,
        **environment_of_a_pod(mounted("control-plane", secrets, home / "pod")),
    }
    with broker:
        yield Cluster(broker, settings, certificate / "ca.crt", device)


def of_the_control_plane(settings: Settings, log: EventLog) -> MqttMessenger:
    return MqttMessenger(bootstrap._mqtt_settings_of(settings), Topics(settings.topic_root), log)


def of_the_command_line(settings: Settings, log: EventLog) -> MqttMessenger:
    """As every command of `mqtt` connects."""
    return bootstrap.direct_messenger(settings, log, identifier="cli-1")


async def first_event(settings: dict[str, str], connection: Callable[[Settings, EventLog], MqttMessenger]) -> str:
    """What the connection logs first, with its reason if it has one."""
    seen: asyncio.Queue[str] = asyncio.Queue()
    messenger = connection(
        Settings.load(settings), lambda event, facts: seen.put_nowait(f"{event} {facts.get('error', '')}")
    )
    running = asyncio.create_task(messenger.run(lambda _: None))
    try:
        async with asyncio.timeout(60):
            return await seen.get()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("connection", [of_the_control_plane, of_the_command_line])
async def test_a_service_connects_with_its_certificate_and_not_without(
    cluster: Cluster,
    connection: Callable[[Settings, EventLog], MqttMessenger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(cluster.authority))
    assert cluster.settings.keys() >= {"MQTT_CERTIFICATE", "MQTT_KEY"}
    assert await first_event(cluster.settings, connection) == "broker.connected "
    bare = {name: value for name, value in cluster.settings.items() if name not in {"MQTT_CERTIFICATE", "MQTT_KEY"}}
    assert await first_event(bare, connection) == f"broker.failed {UNCERTIFIED}"


async def test_a_certificate_alone_is_not_enough(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(cluster.authority))
    wrong = {**cluster.settings, "MQTT_PASSWORD": "guess"}
    assert "Not authorized" in await first_event(wrong, of_the_control_plane)


def test_devices_need_no_certificate_and_reach_their_own_listener_alone(cluster: Cluster) -> None:
    assert cluster.log_in(0) == 0
    assert cluster.log_in(1) is None
