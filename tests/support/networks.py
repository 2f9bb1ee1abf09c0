"""A network namespace for a device, from which one address can be reached and nothing else.

Rule: a namespace has no name, and is the network of one process that ends with this one: also after a test that was
killed the kernel removes it, with its links. Its name resolution is its own file of hosts: no name server is asked.

    device --- this machine             the device reaches one address of this machine
    device --- proxy --- this machine   the device reaches one address of a namespace that forwards nothing
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from broker.child_process import ChildProcess
from tests.support.patience import came_true

_PATH: Final = f"{os.environ['PATH']}:/usr/sbin:/sbin"
IP: Final = shutil.which("ip", path=_PATH)
_UNSHARE, _NSENTER = (shutil.which(name, path=_PATH) or name for name in ("unshare", "nsenter"))


_ENTER: Final = """
mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv.conf" "$(realpath /etc/resolv.conf)" && exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Namespace:
    """The network of the process `pid`; `inside` is put before a command line that runs in it."""

    pid: int
    folder: Path

    @property
    def inside(self) -> tuple[str, ...]:
        network = (_NSENTER, f"--net=/proc/{self.pid}/ns/net")
        return *network, "unshare", "--mount", "sh", "-c", _ENTER, str(self.folder)

    def know(self, *lines: str) -> None:
        """The names that are known in it: lines of a file of hosts."""
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def run(self, *command: str) -> None:
        """Run a command of ip(8) in it."""
        _run(_NSENTER, f"--net=/proc/{self.pid}/ns/net", *_ip(*command))


@dataclass(frozen=True, slots=True)
class Net:
    """Addresses of one link: `near` is the end of this machine or of the middle, `far` the other one."""

    near: str
    far: str
    near6: str
    far6: str


def _ip(*command: str) -> tuple[str, ...]:
    assert IP is not None
    return (IP, *command)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (command, done.stderr)


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace in which no name is known, or the test is skipped where none can be made."""
    if IP is None or subprocess.run((_UNSHARE, "--net", "--mount", "true"), check=False).returncode:
        pytest.skip("no network namespace can be made here")
    with tempfile.TemporaryDirectory(prefix="backhaul-network-") as scratch:
        folder = Path(scratch)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        # `echo` comes after the namespace is made: only then its process is in it.
        holder = (_UNSHARE, "--net", "sh", "-c", "echo made && exec sleep infinity")
        with ChildProcess(holder, folder / "log") as process:
            assert came_true(lambda: "made" in process.output(), 60), process.output()
            made = Namespace(process.pid, folder)
            made.know()
            made.run("link", "set", "lo", "up")
            yield made


@contextmanager
def link(far: Namespace, near: Namespace | None = None) -> Iterator[Net]:
    """A cable between this machine, or `near`, and `far`; only the other end can be reached over it."""
    first, second, third = 224 + secrets.randbelow(32), secrets.randbelow(256), 4 * secrets.randbelow(64)
    near4, far4 = (f"10.{first}.{second}.{third + at}" for at in (1, 2))
    near6, far6 = (f"fd00:{first:x}:{second:x}:{third:x}::{at}" for at in (1, 2))
    net = Net(near4, far4, near6, far6)
    ours, theirs = f"bh{secrets.token_hex(4)}", f"bh{secrets.token_hex(4)}"
    at_near = near.run if near is not None else lambda *command: _run(*_ip(*command))
    at_near("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(far.pid))
    try:
        for at, device, own, own6, peer, peer6 in (
            (at_near, ours, net.near, net.near6, net.far, net.far6),
            (far.run, theirs, net.far, net.far6, net.near, net.near6),
        ):
            at("link", "set", device, "up")
            at("address", "add", own, "peer", f"{peer}/32", "dev", device)
            at("-6", "address", "add", f"{own6}/128", "dev", device, "nodad")
            at("-6", "route", "add", f"{peer6}/128", "dev", device)
        yield net
    finally:
        at_near("link", "del", ours)
