"""One of the compose files, running from a copy of the checkout, as someone who cloned it would run it.

Rule: a stack has its own copy, project name and free ports, so that it meets neither another stack nor what else runs
on the machine; when it ends, its containers, networks and volumes are gone.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from broker.server import free_port
from tests.support.patience import came_true

ROOT: Final = Path(__file__).parents[2]
LOOPBACK: Final = "127.0.0.1"
PATIENCE: Final = 120.0
_TERMINAL: Final = frozenset({"completed", "failed", "cancelled", "rejected", "expired"})


def copy_checkout(directory: Path) -> Path:
    """What is under version control or about to be, as a clone would have it."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


@dataclass(frozen=True, slots=True)
class Ports:
    """Free ports of this machine in place of the documented ones."""

    http: int = field(default_factory=free_port)
    mqtt: int = field(default_factory=free_port)
    s3: int = field(default_factory=free_port)

    def in_place(self, text: str) -> str:
        """The documented commands with these ports in them."""
        return text.replace(":8080", f":{self.http}").replace(":4566", f":{self.s3}").replace(":1883", f":{self.mqtt}")


class Stack:
    """A checkout and a compose project in it."""

    def __init__(self, directory: Path, environment: Mapping[str, str], compose: Sequence[str]) -> None:
        self.directory = directory
        self.project = f"backhaul-test-{secrets.token_hex(3)}"
        self._compose = tuple(compose)
        self.environment = {**os.environ, "COMPOSE_PROJECT_NAME": self.project, **environment}

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run docker-compose in the checkout; what it printed."""
        return self.run([*self._compose, *arguments], check=check)

    def run(self, command: Sequence[str], *, check: bool = True) -> str:
        """Run a command in the checkout, with the stack's environment; stdout and stderr together."""
        ended = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == 0 or not check, f"{' '.join(command)}:\n{ended.stdout[-4000:]}"
        return ended.stdout

    def container(self, service: str) -> str:
        """The id of a service's container; those of `docker-compose run` do not count."""
        listed = self.run(
            [
                *("docker", "ps", "--all", "--quiet", "--no-trunc"),
                *("--filter", f"label=com.docker.compose.project={self.project}"),
                *("--filter", f"label=com.docker.compose.service={service}"),
                *("--filter", "label=com.docker.compose.oneoff=False"),
            ]
        )
        (found,) = listed.split()
        return found

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        found: list[dict[str, Any]] = json.loads(self.run(["docker", "inspect", self.container(service)]))
        return found[0]

    def running(self) -> list[str]:
        """The services that run."""
        listed = self.run(
            [
                *("docker", "ps", "--format", '{{.Label "com.docker.compose.service"}}'),
                *("--filter", f"label=com.docker.compose.project={self.project}"),
            ]
        )
        return sorted(listed.split())

    def down(self) -> None:
        """Take everything away."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "3", check=False)

    def leftovers(self) -> str:
        """What of the project the engine still has; empty when it was taken down."""
        label = f"label=com.docker.compose.project={self.project}"
        listings = (["ps", "--all"], ["volume", "ls"], ["network", "ls"])
        return "".join(self.run(["docker", *arguments, "--quiet", "--filter", label]) for arguments in listings).strip()


@dataclass(frozen=True, slots=True)
class Operator:
    """Someone with curl."""

    stack: Stack
    url: str
    options: tuple[str, ...] = ()

    def curl(self, *arguments: str) -> str:
        """What curl prints on stdout."""
        return self.stack.run(["curl", "--silent", "--show-error", *self.options, *arguments])

    def get(self, path: str) -> dict[str, Any]:
        """The JSON of an answer."""
        answer: dict[str, Any] = json.loads(self.curl(f"{self.url}{path}"))
        return answer

    def trigger(self, client: str = "restaurant-1", **body: object) -> str:
        """Trigger, and the upload's id."""
        arguments = ["--request", "POST", f"{self.url}/trigger-download/{client}"]
        if body:
            arguments += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
        answer = json.loads(self.curl(*arguments))
        return str(answer["upload_id"])

    def wait(self, upload_id: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The upload when it has ended."""
        return eventually(
            lambda: self.get(f"/uploads/{upload_id}"), lambda found: found["status"] in _TERMINAL, patience
        )

    def stored(self, upload_id: str) -> str:
        """The SHA-256 of the object, fetched by its presigned URL."""
        path = self.stack.directory / f"fetched-{upload_id}"
        try:
            url = self.get(f"/uploads/{upload_id}/url")["url"]
            self.stack.run(["curl", "--silent", "--show-error", "--fail", url, "--output", str(path)])
            return digest(path)
        finally:
            path.unlink(missing_ok=True)


def eventually(
    look: Callable[[], dict[str, Any]], seen: Callable[[dict[str, Any]], bool], patience: float
) -> dict[str, Any]:
    """Repeat until it succeeds; the failure shows the last result."""
    found: dict[str, Any] = {}

    def met() -> bool:
        nonlocal found
        found = look()
        return seen(found)

    assert came_true(met, patience, 0.2), f"not within {patience:g} s: {found}"
    return found


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        content = sha256()
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def random_file(path: Path, size: int) -> str:
    """Write a file that compresses to nothing less than itself; its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))
    return digest(path)


def process(inspected: Mapping[str, Any]) -> dict[str, str]:
    """This machine's kernel's view of a container's first process (proc(5), status)."""
    status = Path(f"/proc/{inspected['State']['Pid']}/status")
    if not status.exists():
        pytest.skip("the engine runs elsewhere")
    return dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)


def published(inspected: Mapping[str, Any]) -> set[tuple[str, int]]:
    """The addresses and ports of this machine at which a container is reached."""
    bindings = inspected["NetworkSettings"]["Ports"] or {}
    return {(one["HostIp"], int(one["HostPort"])) for entries in bindings.values() for one in entries or ()}


def listeners(port: int) -> set[str]:
    """The local addresses at which a process listens on a port, as /proc/net/tcp and tcp6 write them (proc(5))."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    found = re.compile(rf"^ *\d+: ([0-9A-F]+):{port:04X} \S+ 0A ")
    return {match[1] for line in lines if (match := found.match(line))}
