"""Programs under measurement: started, watched through /proc, stopped.

Rule: CPU seconds are user and system time of the whole process with all of its threads; memory is its resident set.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.leash import leashed
from control_plane.cli.children import environment

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
_STOP_TIMEOUT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program that has ended took: seconds of CPU and of the wall's clock, and its largest resident set."""

    cpu: float
    seconds: float
    peak_bytes: int


def run(command: Sequence[str], settings: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> Cost:
    """Run a program to its end and return what it, and the children it waited for, took; raises when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment(settings or {}), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd
    )
    assert process.stderr is not None  # noqa: S101 - for the type checker
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"{command[0]} ended with {process.returncode}: {said.decode(errors='replace')[-2000:]}"
        raise RuntimeError(message)
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - started, usage.ru_maxrss * _KIB)


class Watched:
    """A program that runs beside us; a context manager that ends it."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                leashed(command),
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=log_path.parent,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_for(self, text: str, patience: float = 30.0) -> None:
        """Wait until its log has this text."""
        deadline = time.monotonic() + patience
        while text not in self.log_path.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = f"never said {text!r}: {self.log_path.read_text(errors='replace')[-2000:]}"
                raise RuntimeError(message)
            time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a running process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Its resident set now."""
    return _status(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The largest resident set since its start, or since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let the peak begin anew at what is resident now (proc(5), clear_refs)."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _KIB
    message = f"/proc/{pid}/status has no {name}"
    raise RuntimeError(message)


def allow_many_files() -> None:
    """Let this process and its children open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def python_module(name: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs one of our modules."""
    return (sys.executable, "-m", name, *arguments)
