"""`docker-compose.prod.yml` with PostgreSQL, running: what it lets in, and what it does not.

Rule: the file is run as it stands. Beside it, in a file of the test, are only the two things that are elsewhere in
production: the store, and a device that reaches the broker by its public name.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.server import free_port
from tests.support.engine_fixtures import built, images, production_images
from tests.support.engine_stack import Operator, Stack, copy_checkout, digest, published, random_file
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, Wire

__all__ = ["built", "images", "production_images"]
pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

HOST: Final = "backhaul.localhost"
DEVICE: Final = "restaurant-1"
FILES: Final = ("docker-compose.prod.yml", "deploy/production/postgres.yml", "elsewhere.yml")
SERVICES: Final = ("address", "mosquitto", "server", "caddy", "postgres")
NOT_AUTHORIZED: Final = 0x87
S3: Final = "http://s3.localhost:4566"
ELSEWHERE: Final = f"""
services:
  address:
    networks: {{devices: {{aliases: [{HOST}]}}}}
  s3:
    image: backhaul-store
    environment: {{NANIO_ACCESS_KEY: test, NANIO_SECRET_KEY: test}}
    networks: {{back: {{aliases: [s3.localhost]}}, devices: {{aliases: [s3.localhost]}}}}
    volumes: ["s3-objects:/var/lib/store"]
  device:
    image: backhaul-client
    networks: [devices]
    environment:
      CLIENT_ID: {DEVICE}
      MQTT_URL: mqtts://{HOST}:8883
      MQTT_PASSWORD_FILE: /run/secrets/device_password
      SSL_CERT_FILE: /run/secrets/broker_authority
      FILE_PATH: /data/test-file.bin
      UPLOAD_HOSTS: s3.localhost:4566
    volumes: ["./test-data:/data:ro", "device-state:/var/lib/backhaul"]
    secrets: [device_password, broker_authority]
networks:
  devices: {{internal: true}}
secrets:
  device_password: {{file: ./secrets/device_password}}
  broker_authority: {{file: ./secrets/broker-ca.crt}}
volumes:
  s3-objects:
  device-state:
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The running file, and where its listeners are."""

    stack: Stack
    https: int
    devices: int
    services: int

    @property
    def secrets(self) -> Path:
        """What `make-secrets` made."""
        return self.stack.directory / "secrets"

    def operator(self, *options: str) -> Operator:
        """Someone with curl, who trusts the authority of Caddy's certificate."""
        authority = ("--cacert", str(self.secrets / "https-ca.crt"))
        return Operator(self.stack, f"https://{HOST}:{self.https}", (*authority, *options))

    def answer(self, path: str, *options: str) -> str:
        """The status of an answer."""
        operator = self.operator(*options)
        return operator.curl("--output", "/dev/null", "--write-out", "%{http_code}", f"{operator.url}{path}")

    def tls(self, *certificate: str) -> ssl.SSLContext:
        """Trusts the broker's authority; its certificate is for `HOST`, and the wire client asks for localhost."""
        context = ssl.create_default_context(cafile=str(self.secrets / "broker-ca.crt"))
        context.check_hostname = False
        if certificate:
            context.load_cert_chain(*(str(self.secrets / name) for name in certificate))
        return context


@pytest.fixture(scope="module")
def site(production_images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = copy_checkout(tmp_path_factory.mktemp("production"))
    https, devices, services = (free_port() for _ in range(3))
    environment = {
        "COMPOSE_FILE": ":".join(FILES),
        "BACKHAUL_PUBLIC_HOST": HOST,
        "BACKHAUL_HTTPS_PORT": str(https),
        "BACKHAUL_DEVICES_PORT": str(devices),
        "BACKHAUL_SERVICES_PORT": str(services),
        "AWS_ENDPOINT": S3,
    }
    stack = Stack(directory, environment, ["docker-compose"])
    site = Site(stack, https, devices, services)
    (directory / "elsewhere.yml").write_text(ELSEWHERE)
    random_file(directory / "test-data/test-file.bin", 12 << 20)
    stack.run(["deploy/production/make-secrets", HOST, "--postgres"])
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        (site.secrets / name).write_text("test\n")
    try:
        enrolled = stack.compose("run", "--rm", "enroll", "backhaul", "broker", "enroll", DEVICE)
        password = re.findall(r"MQTT_PASSWORD=(\S+)", enrolled)[0]
        (site.secrets / "device_password").write_text(f"{password}\n")
        stack.compose("up", "-d")
        root = "/var/lib/caddy/caddy/pki/authorities/local/root.crt"
        waiting = f"until cat {root} 2>/dev/null; do sleep 0.2; done"
        (site.secrets / "https-ca.crt").write_text(stack.compose("exec", "-T", "caddy", "sh", "-c", waiting))
        retried = site.operator("--retry", "30", "--retry-delay", "1", "--retry-all-errors")
        retried.curl(f"{retried.url}/health")
        yield site
    finally:
        stack.down()


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    """As the guide has it made."""
    created = site.stack.compose(
        *("exec", "-T", "server", "with-secrets", "backhaul", "token", "create", "--subject", "ann")
    )
    return created.split()[-1]


def test_https_answers_and_asks_for_a_token(site: Site, token: str) -> None:
    assert site.answer("/health") == "200"
    assert site.answer("/clients") == "401"
    assert site.answer("/clients", "--header", "Authorization: Bearer e30.e30.e30") == "401"
    assert site.answer("/trigger-download/restaurant-1", "--request", "POST") == "401"
    assert site.answer("/clients", "--header", f"Authorization: Bearer {token}") == "200"


def test_only_three_ports_are_published_and_each_speaks_tls_alone(site: Site) -> None:
    ports = {site.https, site.devices, site.services}
    assert {port for one in SERVICES for _, port in published(site.stack.inspect(one))} == ports
    plain = Operator(site.stack, f"http://{HOST}:{site.https}")
    assert plain.curl("--output", "/dev/null", "--write-out", "%{http_code}", f"{plain.url}/health") == "400"
    for port in (site.devices, site.services):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(Connect("anyone").encode())
            assert b"\x20" not in connection.recv(64)[:1]


def test_a_device_uploads_over_tls(site: Site, token: str) -> None:
    operator = site.operator("--header", f"Authorization: Bearer {token}")
    ended = operator.wait(operator.trigger(DEVICE))
    assert (ended["status"], ended["bytes_uploaded"]) == ("completed", 12 << 20), ended
    objects = site.stack.compose("exec", "-T", "s3", "sh", "-c", "cat /var/lib/store/*/uploads/*/* | sha256sum")
    assert objects.split()[0] == digest(site.stack.directory / "test-data/test-file.bin")


def test_the_rows_are_in_postgresql(site: Site, token: str) -> None:
    operator = site.operator("--header", f"Authorization: Bearer {token}")
    counted = site.stack.compose(
        *("exec", "-T", "-e", f"PGPASSWORD={(site.secrets / 'postgres_password').read_text().strip()}", "postgres"),
        *("psql", "-h", "127.0.0.1", "-U", "backhaul", "-At", "-c", "SELECT count(*) FROM uploads", "backhaul"),
    )
    assert int(counted) == len(operator.get("/uploads")["uploads"])


def test_the_migrations_job_finds_nothing_to_do(site: Site) -> None:
    assert "newest schema" in site.stack.compose("exec", "-T", "server", "with-secrets", "migrate")


def test_anonymous_and_unknown_devices_are_refused(site: Site) -> None:
    assert refused(site.devices, site.tls(), Connect("anyone")) == NOT_AUTHORIZED
    assert refused(site.devices, site.tls(), Connect("anyone", username="anyone", password="guess")) == NOT_AUTHORIZED


def test_the_services_port_wants_a_certificate_and_a_password(site: Site) -> None:
    device = Connect(DEVICE, username=DEVICE, password=(site.secrets / "device_password").read_text().strip())
    assert refused(site.services, site.tls(), device) == "closed"
    certified = site.tls("operator.crt", "operator.key")
    assert refused(site.services, certified, Connect("cli-1")) == NOT_AUTHORIZED


def test_old_tls_is_refused(site: Site) -> None:
    old = site.tls()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused(site.devices, old, Connect("anyone")) == "closed"


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_bounded_and_can_do_little(site: Site, service: str) -> None:
    found = site.stack.inspect(service)
    assert found["State"]["Running"] is True
    limits = found["HostConfig"]
    assert limits["ReadonlyRootfs"] is True
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["CapDrop"] == ["ALL"]
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert not found["Config"]["User"].startswith(("0", "root"))


def test_no_secret_stands_in_an_environment_or_a_log(site: Site, token: str) -> None:
    names = ("jwt_secret", "database_url", "postgres_password", "device_password")
    hidden = {name: (site.secrets / name).read_text().strip() for name in names} | {"token": token}
    shown = site.stack.compose("logs", "--no-color")
    shown += "".join(str(site.stack.inspect(service)["Config"]) for service in (*SERVICES, "device"))
    assert [name for name, secret in hidden.items() if secret in shown] == []


def refused(port: int, tls: ssl.SSLContext, connect: Connect) -> int | str:
    """The reason of the broker's answer; `closed` when there is none."""
    try:
        with Wire(port, tls) as wire:
            return wire.connect(connect).reason
    except (ssl.SSLError, OSError, Closed):
        return "closed"
