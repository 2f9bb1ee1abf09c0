"""strace on a running agent: calls about one file that fail, and every call that writes to a disk.

Rule: the program is not changed; strace is detached by its own process, and the agent continues.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

SYNCS: Final = ("fsync", "fdatasync", "sync_file_range", "msync", "syncfs", "sync")
WRITES: Final = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range")
CHANGES: Final = (
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "linkat"),
    *("truncate", "ftruncate", "fallocate", "symlink", "symlinkat", "utimensat", "fchmod", "chmod", "fchmodat"),
)
OPENS: Final = ("open", "openat", "openat2", "creat")
_FOR_WRITING: Final = re.compile(r"\bO_(WRONLY|RDWR|CREAT|TRUNC)\b")
_LINE: Final = re.compile(r"^(?:\d+ +)?(?P<call>\w+)\((?P<rest>.*)$")
_DESCRIPTOR: Final = re.compile(r"^\d+<(?P<place>[^>]*)>")
_RESULT: Final = re.compile(r" = (?P<number>-?\d+)")


class Disk(Struct, frozen=True):
    """What a program asked of its disks: how many synchronisations, bytes written, and each line that may write."""

    syncs: int
    bytes: int
    lines: tuple[str, ...]


class _Attached:
    """strace, attached to a process with all its threads for the time of the block."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self._command = [*command, "-p", str(pid)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        reported = self._process.stderr.readline().decode()
        assert "attached" in reported, reported
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()


class Injected(_Attached):
    """Every one of `calls` about `path` fails with `error`, for the time of the block."""

    def __init__(self, strace: str, log: Path, pid: int, calls: Sequence[str], error: str, path: Path) -> None:
        names = ",".join(calls)
        inject = ("-e", f"trace={names}", "-P", str(path), "-e", f"inject={names}:error={error}")
        super().__init__(pid, (strace, "-f", "-e", "signal=none", "-o", str(log), *inject))


class Watched(_Attached):
    """Everything that a process asks of disks, for the time of the block; `disk` is what it was."""

    def __init__(self, strace: str, log: Path, pid: int) -> None:
        self._log = log
        names = ",".join((*SYNCS, *WRITES, *CHANGES, *OPENS))
        super().__init__(
            pid, (strace, "-f", "-y", "-s", "0", "-e", "signal=none", "-o", str(log), "-e", f"trace={names}")
        )

    @property
    def disk(self) -> Disk:
        """What was asked until now; a write to a socket, a pipe or an eventfd is none to a disk."""
        return disk_of(self._log.read_text().splitlines())


def disk_of(lines: Sequence[str]) -> Disk:
    """The calls in the output of strace that ask something of a disk; a call in two lines is counted once."""
    syncs = written = 0
    found = []
    unfinished: dict[str, str] = {}
    for line in lines:
        thread = line.split(maxsplit=1)[0]
        whole = line
        if line.endswith("<unfinished ...>"):
            unfinished[thread] = line.removesuffix("<unfinished ...>")
            continue
        if "resumed>" in line:
            whole = unfinished.pop(thread, "") + line.partition("resumed>")[2]
        match = _LINE.match(whole)
        if match is None:
            continue
        call, rest = match["call"], match["rest"]
        result = _RESULT.search(whole)
        if call in SYNCS:
            syncs += 1
        elif call in WRITES:
            place = _DESCRIPTOR.match(rest)
            if place is None or not place["place"].startswith("/"):
                continue
            written += max(0, int(result["number"])) if result else 0
        elif call in OPENS and not _FOR_WRITING.search(rest):
            continue
        found.append(whole)
    return Disk(syncs, written, tuple(found))
