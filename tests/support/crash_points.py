"""Kills a program at one chosen call that makes something durable, and reads from strace's output whether it did.

Rule: strace counts `when=` for each thread and each system call apart. So a point names one call on files that one
thread writes, and the log has to show that call as the last one, begun and never done.
"""

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from tests.support.patience import came_true

NEVER: Final = 60_000
"""More calls than strace can count to, almost."""

PATIENCE: Final = 60.0
"""Seconds until a process makes a call that it was provoked to make."""


@dataclass(frozen=True, slots=True)
class Point:
    """The `number`-th `call` (for example `fsync`) about one of `paths`. Of a rename only the old name is looked at."""

    call: str
    paths: tuple[Path, ...]
    number: int


class Tracer:
    """strace with one point: either it runs the program (`command`), or it takes hold of one that runs (`attach`)."""

    def __init__(self, strace: str, log: Path, point: Point, *, follow: bool = True) -> None:
        self._strace = strace
        self._log = log
        self._point = point
        self._follow = ("-f",) if follow else ()
        self._process: subprocess.Popen[bytes] | None = None
        log.unlink(missing_ok=True)

    @property
    def command(self) -> list[str]:
        """What is put before a command line."""
        # No --seccomp-bpf: at the stops that it makes strace 6.1 injects no signal.
        point = self._point
        inject = f"inject={point.call}:signal=SIGKILL:when={point.number}"
        paths = [argument for path in point.paths for argument in ("-P", str(path))]
        quiet = (*self._follow, "-y", "-e", "signal=none", "-o", str(self._log))
        return [self._strace, *quiet, "-e", f"trace={point.call}", *paths, "-e", inject]

    def attach(self, pid: int) -> Self:
        """Trace a process with all its threads, or one thread alone, from now on; returns when it is held."""
        self._process = subprocess.Popen([*self.command, "-p", str(pid)], stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        reported = self._process.stderr.readline().decode()
        assert "attached" in reported, reported
        return self

    def release(self) -> None:
        """Detach from the process, and end."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    @property
    def calls(self) -> int:
        """How many such calls were begun."""
        return len(self._begun)

    @property
    def threads(self) -> set[int]:
        """The threads that began one of the traced calls."""
        return set(self._begun)

    @property
    def struck(self) -> bool:
        """Whether the process, which is dead, was killed at the very call: its thread had done every other one.

        A second thread may begin a call of its own in the instant before the process is dead.
        """
        done = Counter(_thread(line) for line in self.log.splitlines() if line.endswith(" = 0"))
        begun = Counter(self._begun)
        return any(begun[thread] == self._point.number == done[thread] + 1 for thread in begun)

    @property
    def _begun(self) -> list[int]:
        return [_thread(line) for line in self.log.splitlines() if re.search(rf"\b{self._point.call}\(", line)]

    @property
    def log(self) -> str:
        """What strace saw."""
        return self._log.read_text() if self._log.exists() else ""


def _thread(line: str) -> int:
    """Of a line of strace, which names no thread where it follows only one: 0."""
    first = line.split(maxsplit=1)[0]
    return int(first) if first.isdecimal() else 0


def thread_of(strace: str, log: Path, point: Point, pid: int, provoke: Callable[[], object]) -> int:
    """The one thread of a process that makes these calls, found out as it makes some for `provoke`.

    Traced alone it leaves the others as quick as they are. On a busy machine the process may not have answered when
    `provoke` gives up, so it is provoked until a call is seen.
    """
    found: set[int] = set()

    def seen() -> bool:
        tracer = Tracer(strace, log, replace(point, number=NEVER)).attach(pid)
        provoke()
        tracer.release()
        found.update(tracer.threads)
        return bool(found)

    assert came_true(seen, PATIENCE), f"no {point.call} of {point.paths} was seen"
    (thread,) = found
    return thread


def kill_traced(process: subprocess.Popen[bytes]) -> None:
    """End a program that strace runs; strace alone would let it live on."""
    kill_children(process.pid)
    process.kill()
    process.wait(60)


def kill_children(pid: int) -> None:
    """SIGKILL the processes that a process has started. One that ends in the meantime is no error."""
    for child in children(pid):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def children(pid: int) -> Sequence[int]:
    """The processes that a process has started and not outlived."""
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return ()
