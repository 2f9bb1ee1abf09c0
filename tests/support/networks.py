"""A network namespace for a device, from which one address can be reached and nothing else.

Rule: every namespace is removed by the one who made it. Its name resolution is its own file of hosts: no name server is
asked.

    device --- this machine             the device reaches one address of this machine
    device --- proxy --- this machine   the device reaches one address of a namespace that forwards nothing
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

IP: Final = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
_HOSTS: Final = Path("/etc/netns")


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace; `inside` is put before a command line that runs in it."""

    name: str

    @property
    def inside(self) -> tuple[str, ...]:
        assert IP is not None
        return IP, "netns", "exec", self.name

    def run(self, *command: str) -> None:
        """Run a command of ip(8) in it."""
        ip("-n", self.name, *command)


@dataclass(frozen=True, slots=True)
class Net:
    """Addresses of one link: `near` is the end of this machine or of the middle, `far` the other one."""

    near: str
    far: str
    near6: str
    far6: str


def ip(*command: str) -> None:
    """Change the network; the arguments are those of the program."""
    assert IP is not None
    done = subprocess.run((IP, *command), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, (command, done.stderr)


@contextmanager
def namespace(hosts: Mapping[str, str]) -> Iterator[Namespace]:
    """A namespace with names of its own, or the test is skipped where none can be made."""
    name = f"bh-{secrets.token_hex(4)}"
    if IP is None or os.geteuid() != 0 or subprocess.run((IP, "netns", "add", name), check=False).returncode:
        pytest.skip("no network namespace can be made here")
    folder = _HOSTS / name
    try:
        folder.mkdir(parents=True)
        lines = [f"{address} {host}" for host, addresses in hosts.items() for address in addresses.split()]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        ip("-n", name, "link", "set", "lo", "up")
        yield Namespace(name)
    finally:
        ip("netns", "del", name)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def link(far: Namespace, near: Namespace | None = None) -> Iterator[Net]:
    """A cable between this machine, or `near`, and `far`; only the other end can be reached over it."""
    number = secrets.randbelow(250)
    net = Net(*(f"10.213.{number}.{at}" for at in (1, 2)), *(f"fd00:213:{number:x}::{at}" for at in (1, 2)))
    ours, theirs = f"bh{secrets.token_hex(4)}", f"bh{secrets.token_hex(4)}"
    ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", far.name)
    here = () if near is None else ("-n", near.name)
    if near is not None:
        ip("link", "set", ours, "netns", near.name)
    try:
        for where, device, own, own6, peer, peer6 in (
            (here, ours, net.near, net.near6, net.far, net.far6),
            (("-n", far.name), theirs, net.far, net.far6, net.near, net.near6),
        ):
            ip(*where, "link", "set", device, "up")
            ip(*where, "address", "add", own, "peer", f"{peer}/32", "dev", device)
            ip(*where, "-6", "address", "add", f"{own6}/128", "dev", device, "nodad")
            ip(*where, "-6", "route", "add", f"{peer6}/128", "dev", device)
        yield net
    finally:
        ip(*here, "link", "del", ours)
