"""`docker-compose.prod.yml` as it stands, running, with two things that are elsewhere in production.

Rule: those two, the store and a device that reaches the broker by its public name, stand in a file of the test. HTTPS
is signed by Caddy's own authority, since no public one knows `HOST`. The fleet has a root of trust, as the guide makes
it: the commands of docs/how-to/sign-the-fleet.md are run, on "another machine", which is this one.
"""

import json
import re
import shlex
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.server import free_port
from tests.support import local_names
from tests.support.engine_stack import ROOT, Operator, Stack, copy_checkout, eventually, random_file

HOST: Final = "backhaul.localhost"
DEVICE: Final = "restaurant-1"
SIZE: Final = 12 << 20
"""Bytes of the device's file."""

_SIGN: Final = ROOT / "docs/how-to/sign-the-fleet.md"
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

    def root_of_trust(self) -> str:
        """Make it, as step 1 of the guide; the SHA-256 of the root."""
        (make,) = _steps("1")
        return str(self._keys(make)["root_sha256"])

    def sign_the_fleet(self) -> dict[str, Any]:
        """List the control plane's key and publish the list, as step 2 of the guide; what is published."""
        *steps, look = _steps("2")
        for step in steps:
            self._keys(step, BACKHAUL_TOKEN=self.token())
        token = self.token()
        return eventually(lambda: self._keys(look, BACKHAUL_TOKEN=token), lambda found: bool(found["keys"]), 60.0)

    def _keys(self, command: str, **more: str) -> dict[str, Any]:
        """The answer to a command of an operator, in whose folder the key of the root is."""
        home = self.stack.directory / "operator"
        home.mkdir(exist_ok=True)
        (home / "passphrase").write_text("a passphrase of the root\n")
        program, group, action, *arguments = shlex.split(command)
        assert (program, group) == ("backhaul", "keys"), command
        typed = ["--passphrase-file", str(home / "passphrase")] if action in {"init", "add"} else []
        given = {
            # The C library knows no name below `localhost`.
            "PYTHONPATH": f"{Path(local_names.__file__).parent}:{ROOT}",
            "XDG_CONFIG_HOME": str(home),
            "BACKHAUL_URL": f"https://{HOST}:{self.https}",
            "SSL_CERT_FILE": str(self.secrets / "https-ca.crt"),
            **more,
        }
        ended = subprocess.run(
            [sys.executable, "-m", "control_plane.cli.main", group, action, *arguments, *typed, "--json"],
            cwd=home,
            env=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        answer: dict[str, Any] = json.loads(ended.stdout)
        return answer

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
    with (directory / ".env").open("a") as settings:
        # No device of this site was ever unsigned, so the door of step 5 is closed at once.
        settings.write(f"TRUST_ROOT={site.root_of_trust()}\nREQUIRE_SIGNED=true\n")
    try:
        stack.compose("up", "-d", "caddy")
        root = "/var/lib/caddy/caddy/pki/authorities/local/root.crt"
        waiting = f"until cat {root} 2>/dev/null; do sleep 0.2; done"
        (site.secrets / "https-ca.crt").write_text(stack.compose("exec", "-T", "caddy", "sh", "-c", waiting))
        site.wait()
        site.sign_the_fleet()
        # As the guide does, but for the way by which the bundle comes to the device.
        wanted = "--roots /data --file /data/test-file.bin --hosts http://s3.localhost:4566/"
        enroll = f"docker-compose run --rm -T devices enroll {DEVICE} {wanted} > secrets/device.json"
        stack.run(["bash", "-euo", "pipefail", "-c", enroll])
        stack.compose("up", "-d")
        yield site
    finally:
        stack.down()


def _steps(number: str) -> list[str]:
    """The commands of a step of the guide."""
    (step,) = re.findall(rf"^## {number}\. (.*?)^## ", _SIGN.read_text(), re.MULTILINE | re.DOTALL)
    (block,) = re.findall(r"^```sh\n(.*?)^```$", step, re.MULTILINE | re.DOTALL)
    return str(block).splitlines()
