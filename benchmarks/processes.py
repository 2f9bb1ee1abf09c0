"""Programs under measurement: started, watched through /proc, stopped.

Rule: CPU seconds are user and system time of the whole process with all of its threads; memory is its resident set.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.child_process import bound_to_parent, clean_environment

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
_STOP_TIMEOUT: Final = 15.0
_LOOK: Final = 0.01
"""Seconds between two looks at a program that runs."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a program that has ended took: seconds of CPU and of the wall's clock, and its largest resident set."""

    cpu: float
    seconds: float
    peak_bytes: int


def run(command: Sequence[str], settings: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> Cost:
    """Run a program to its end and return what it, and the children it waited for, took; raises when it fails.

    The peak is read from /proc while it runs: `ru_maxrss` outlives exec, so it would begin at our own size.
    """
    started = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=clean_environment(settings or {}), stdout=subprocess.DEVNULL, stderr=output, cwd=cwd
        )
        while True:
            with suppress(OSError, RuntimeError):
                peak = max(peak, peak_bytes(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(_LOOK)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            message = f"{command[0]} ended with {process.returncode}: {text}"
            raise RuntimeError(message)
    return Cost(usage.ru_utime + usage.ru_stime, seconds, peak)


class Watched:
    """A program that runs beside us; a context manager that ends it."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        self.cpu = 0.0
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                bound_to_parent(command),
                env=clean_environment(settings),
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
        """SIGTERM, then SIGKILL; `cpu` then is what the whole process took."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT
        while not (found := os.wait4(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                self._process.kill()
            time.sleep(_LOOK)
        self._process.returncode = os.waitstatus_to_exitcode(found[1])
        self.cpu = found[2].ru_utime + found[2].ru_stime

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
