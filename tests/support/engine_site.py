"""`docker-compose.prod.yml` as it stands, running, with two things that are elsewhere in production.

Rule: those two, the store and a device that reaches the broker by its public name, stand in a file of the test. HTTPS
is signed by Caddy's own authority, since no public one knows `HOST`.
"""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.server import free_port
from tests.support.engine_stack import Operator, Stack, copy_checkout, random_file

HOST: Final = "backhaul.localhost"
DEVICE: Final = "restaurant-1"
SIZE: Final = 12 << 20
"""Bytes of the device's file."""

_PRODUCTION: Final = "docker-compose.prod.yml"
_ELSEWHERE: Final = "elsewhere.yml"
_S3: Final = "http://s3.localhost:4566"
_CONTENT: Final = f"""
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
      BUNDLE_FILE: /run/secrets/device_bundle
      # The port of the broker in the network of this test.
      MQTT_URL: mqtts://{HOST}:8883
    volumes: ["./test-data:/data:ro", "device-state:/var/lib/backhaul"]
    secrets: [device_bundle]
networks:
  devices: {{internal: true}}
secrets:
  device_bundle: {{file: ./secrets/device.json}}
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

    def wait(self) -> None:
        """Until HTTPS answers."""
        patient = self.operator("--fail", "--retry", "30", "--retry-delay", "1", "--retry-all-errors")
        patient.curl(f"{patient.url}/health")

    def answer(self, path: str, *options: str) -> str:
        """The status of an answer."""
        operator = self.operator(*options)
        return operator.curl("--output", "/dev/null", "--write-out", "%{http_code}", f"{operator.url}{path}")

    def tls(self, *certificate: str) -> ssl.SSLContext:
        """Trusts the broker's authority; its certificate is for `HOST`, and the wire client connects to localhost."""
        context = ssl.create_default_context(cafile=str(self.secrets / "broker-ca.crt"))
        context.check_hostname = False
        if certificate:
            context.load_cert_chain(*(str(self.secrets / name) for name in certificate))
        return context

    @property
    def bundle(self) -> dict[str, Any]:
        """The device's."""
        found: dict[str, Any] = json.loads((self.secrets / "device.json").read_text())
        return found

    def token(self) -> str:
        """An operator's, as the guide has it made."""
        arguments = ("exec", "-T", "server", "with-secrets", "backhaul", "token", "create", "--subject", "ann")
        return self.stack.compose(*arguments).split()[-1]


@contextmanager
def running(directory: Path, *more: str, secrets: tuple[str, ...] = ()) -> Iterator[Site]:
    """The production file and more, up in a copy of the checkout; `secrets` are arguments of `make-secrets`."""
    https, devices, services = (free_port() for _ in range(3))
    environment = {
        "COMPOSE_FILE": ":".join((_PRODUCTION, *more, _ELSEWHERE)),
        "BACKHAUL_PUBLIC_HOST": HOST,
        "BACKHAUL_CERTIFICATE": "internal",
        "BACKHAUL_HTTPS_PORT": str(https),
        "BACKHAUL_DEVICES_PORT": str(devices),
        "BACKHAUL_SERVICES_PORT": str(services),
        "AWS_ENDPOINT": _S3,
    }
    stack = Stack(copy_checkout(directory), environment, ["docker-compose"])
    site = Site(stack, https, devices, services)
    (directory / _ELSEWHERE).write_text(_CONTENT)
    random_file(directory / "test-data/test-file.bin", SIZE)
    stack.run(["deploy/production/make-secrets", HOST, *secrets])
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        (site.secrets / name).write_text("test\n")
    try:
        # As the guide does, but for the way by which the bundle comes to the device.
        wanted = "--roots /data --file /data/test-file.bin --hosts http://s3.localhost:4566/"
        enroll = f"docker-compose run --rm -T devices enroll {DEVICE} {wanted} > secrets/device.json"
        stack.run(["bash", "-euo", "pipefail", "-c", enroll])
        stack.compose("up", "-d")
        root = "/var/lib/caddy/caddy/pki/authorities/local/root.crt"
        waiting = f"until cat {root} 2>/dev/null; do sleep 0.2; done"
        (site.secrets / "https-ca.crt").write_text(stack.compose("exec", "-T", "caddy", "sh", "-c", waiting))
        site.wait()
        yield site
    finally:
        stack.down()
