"""A root of Debian that runs: with systemd as its first process (systemd-nspawn), or one command at a time.

Rule: the machine around it is left as it was: a mount namespace of its own, a control group of its own, no entry with a
service manager. The network is this machine's: a broker on loopback is reached.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from broker.child_process import bound_to_parent
from tests.support.patience import came_true

PATIENCE: Final = 60.0
_GROUPS: Final = Path("/sys/fs/cgroup")
# systemd 257 refuses the old hierarchy of control groups: the container sees the new one alone.
_START: Final = """
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || { umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; }
mkdir "/sys/fs/cgroup/$1" && echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
exec systemd-nspawn --quiet --boot --keep-unit --register=no --console=pipe --machine="$1" --directory="$2"
"""
# The kernel's entry for programs of another processor: the header of ELF, and which of its bits count. Flag F: the
# kernel opens the emulator now, so that the root needs none. The entry ends with this mount.
_ENTRY: Final = (
    r":backhaul-{name}:M::\x7fELF\x0{words}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x{machine:x}\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{emulator}:OCF"
)
_EMULATED: Final = {"arm64": ("aarch64", 2, 0xB7), "armhf": ("arm", 1, 0x28)}
"""By Debian's name: the name of qemu, the class of ELF (1 is 32 bits), and its machine (elf(5))."""
_EMULATE: Final = r"""
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
ls /proc/sys/fs/binfmt_misc | grep -qE "(backhaul|qemu)-$3\$" || printf %s "$2" >/proc/sys/fs/binfmt_misc/register
mount --rbind /dev "$1/dev" && mount -t proc none "$1/proc"
root=$1; shift 3
# Not by exec: this shell is the first process and stays root. With another user its signal at the parent's end is gone.
chroot "$root" "$@"
exit $?
"""
_QUIET: Final = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


UNSAFE: Final = ("-o", "Dpkg::Options::=--force-unsafe-io")
"""A root that is thrown away needs no fsync for each file."""


class Failed(Exception):
    """A command in the root failed; the text is its output."""


class Debian:
    """A root in `folder`, and the words that lead into it."""

    def __init__(self, folder: Path, *inside: str) -> None:
        self.folder = folder
        self._inside = inside

    def run(self, *command: str) -> str:
        """Run a command to its end; what it printed, errors too. `Failed` for another code than 0."""
        ended = self.ended(*command)
        if ended.returncode != 0:
            text = f"{' '.join(command)}: {ended.returncode}\n{ended.stdout}"
            raise Failed(text)
        return ended.stdout

    def ended(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The same, with its code."""
        return subprocess.run(
            [*self._inside, *command],
            env=_QUIET,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )

    def start(self, log: Path, *command: str) -> "subprocess.Popen[bytes]":
        """Start a command; its output goes to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen([*self._inside, *command], env=_QUIET, stdout=output, stderr=output)

    def install(self, deb: Path, *options: str) -> str:
        """Install a package as an administrator does, from a file; what apt printed."""
        shutil.copy(deb, self.folder / "root")
        return self.run("apt-get", "install", "-y", "-q", *UNSAFE, *options, f"/root/{deb.name}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the root."""
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def exists(self, path: str) -> bool:
        """Whether the root has a file or a folder."""
        return (self.folder / path.lstrip("/")).exists()

    def shown(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()


@contextmanager
def booted(folder: Path) -> Iterator[Debian]:
    """Boot a root; it is shut down at the end."""
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("systemd-nspawn is not installed")
    name = f"backhaul-{os.getpid()}-{folder.name}"
    with tempfile.TemporaryFile() as log:
        unshare = shutil.which("unshare") or "/usr/bin/unshare"
        words = bound_to_parent([unshare, "--mount", "bash", "-c", _START, "start", name, str(folder)])
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        way: tuple[str, ...] = ()
        try:
            way = _way_in(process)
            yield Debian(folder, *way)
        finally:
            # At once: the root is thrown away.
            if way:
                with suppress(subprocess.TimeoutExpired):
                    subprocess.run(
                        [*way, "systemctl", "poweroff", "-ff"],
                        env=_QUIET,
                        capture_output=True,
                        timeout=PATIENCE,
                        check=False,
                    )
            else:
                process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _remove_group(name)


def emulated(folder: Path, architecture: str) -> Debian:
    """A root of arm64 or armhf, by the emulation of qemu, one command at a time."""
    name, words, machine = _EMULATED[architecture]
    emulator = shutil.which(f"qemu-{name}-static")
    if emulator is None:
        pytest.skip("qemu-user-static is not installed")
    entry = _ENTRY.format(name=name, words=words, machine=machine, emulator=emulator)
    # unshare(1) blocks SIGTERM while it waits, so it is ended with this process by SIGKILL, and the rest with it.
    apart = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
    return Debian(folder, *apart, "bash", "-c", _EMULATE, "start", str(folder), entry, name)


def _way_in(process: "subprocess.Popen[bytes]") -> tuple[str, ...]:
    """The words that run a command in the booted root, once it has started everything."""
    found: list[str] = []

    def up() -> bool:
        assert process.poll() is None, "systemd-nspawn ended"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        found[:] = ["nsenter", "--all", "--target", *children[:1]]
        if not children:
            return False
        asked = [*found, "systemctl", "is-system-running"]
        answer = subprocess.run(asked, env=_QUIET, capture_output=True, text=True, timeout=60, check=False)
        return answer.stdout.strip() in {"running", "degraded"}

    assert came_true(up, PATIENCE), "systemd did not start"
    return tuple(found)


def _remove_group(name: str) -> None:
    for base in (_GROUPS, _GROUPS / "unified"):
        for folder in sorted((base / name).glob("**/"), reverse=True):
            with suppress(OSError):
                folder.rmdir()
