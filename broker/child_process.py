"""Child processes that end with this process, with their output in a log file.

Rule: the only wrapper of a long-running child. It knows no program: brokers, object stores, control planes and agents
all run in a `ChildProcess`, and each of their modules adds its command line and its own error.

On Linux the kernel sends SIGTERM to the child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG).
Each child is therefore started by a separate thread, which then waits for it, so that any thread of the caller may
start one. A small program arms the signal and replaces itself with the real one; `preexec_fn` would run Python
between fork and exec, which can deadlock in a process with threads.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

from broker.errors import NotListening

STOP_TIMEOUT: Final = 8.0
"""Seconds between SIGTERM and SIGKILL: an agent publishes its last presence, a server completes its requests."""

LOG_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a child's log; the one before it has as many."""

_ARM: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent process ended before this program started")
os.execv(sys.argv[2], sys.argv[2:])
"""

_INHERITED: Final = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV")
_INHERITED_PREFIXES: Final = ("LC_", "PYTHON", "SSL_CERT_")
_TAIL_LINES: Final = 12
_POLL: Final = 0.005
_PORT_TAKEN: Final = re.compile("address already in use", re.IGNORECASE)


def bound_to_parent(command: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs `command` and ends it with this process; `command` itself outside Linux."""
    if sys.platform != "linux":
        return tuple(command)
    return (sys.executable, "-I", "-S", "-c", _ARM, str(os.getpid()), *command)


def python_program(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line that runs an installed module.

    -P: `-m` alone searches the working folder first, so that an `uvicorn.py` which lies there would be run.
    """
    return (sys.executable, "-P", "-m", module, *arguments)


def bound_log(path: Path, limit: int = LOG_LIMIT) -> None:
    """Keep the log of a running child below `limit` bytes: what it has becomes `NAME.1`, and the file is emptied.

    The child keeps its descriptor and appends. Lines that it writes between the copy and the cut are lost.
    """
    with suppress(OSError):
        if path.stat().st_size >= limit:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program of this project: `settings`, and no setting of the calling process."""
    inherited = {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    # No proxy and no AWS profile applies to servers on this machine.
    local = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_PROXY": "*"}
    return {**inherited, **local, **settings}


class ChildProcess:
    """One running program. Its standard output and error are appended to `log_path`.

    It runs in the folder of its log, so that it reads neither a `.env` nor a module of the caller's folder. With
    `settings` its environment is clean and holds them; without, it inherits the environment. It starts a new session: a
    Ctrl-C reaches only this process, which then stops its children in order. As a context manager it is stopped at the
    end.
    """

    def __init__(self, command: Sequence[str], log_path: Path, *, settings: Mapping[str, str] | None = None) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path = log_path.resolve()
        self._command = bound_to_parent(command)
        self._environment = None if settings is None else clean_environment(settings)
        self._log_start = log_path.stat().st_size if log_path.exists() else 0
        started: SimpleQueue[subprocess.Popen[bytes] | Exception] = SimpleQueue()
        self._waiter = threading.Thread(target=self._run, args=(started,), name="child-process", daemon=True)
        self._waiter.start()
        outcome = started.get()
        if isinstance(outcome, Exception):
            raise outcome
        self._process = outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id; the arming program and the real one have the same."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    @property
    def port_taken(self) -> bool:
        """Whether it reported that another process listens on its port."""
        return _PORT_TAKEN.search(self.output()) is not None

    def output(self) -> str:
        """The output of this child so far, without that of earlier ones in the same log."""
        with self.log_path.open("rb") as log:
            # Shorter than at the start: it was cut by `bound_log`.
            log.seek(self._log_start if self.log_path.stat().st_size >= self._log_start else 0)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        """The last lines of its output, indented."""
        return "\n".join(f"  {line}" for line in self.output().splitlines()[-_TAIL_LINES:]) or "  (nothing)"

    def wait_until_listening(
        self, announcement: re.Pattern[str], addresses: Iterable[tuple[str, int]], timeout: float
    ) -> None:
        """Wait until the output matches `announcement` and each (host, port) accepts a connection.

        Both, because a port alone may belong to another process. `NotListening` when the program ends first, or when
        that takes more than `timeout` seconds; the program is then gone.
        """
        listeners = tuple(addresses)
        deadline = time.monotonic() + timeout
        while not self._listens(announcement, listeners):
            if not self.alive or time.monotonic() > deadline:
                code = self.exit_code
                self.kill()
                what = f"did not listen within {timeout:g} s" if code is None else f"ended with code {code}"
                message = f"{what}; {self.log_path} ends:\n{self.log_tail()}"
                raise NotListening(message, port_taken=self.port_taken)
            time.sleep(_POLL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the program still runs."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when the program does not end within `STOP_TIMEOUT`."""
        self.send(signal.SIGTERM)
        self._waiter.join(STOP_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when the program is gone."""
        self.send(signal.SIGKILL)
        self._waiter.join()

    def _run(self, started: "SimpleQueue[subprocess.Popen[bytes] | Exception]") -> None:
        try:
            with self.log_path.open("ab") as log:
                process = subprocess.Popen(
                    self._command,
                    cwd=self.log_path.parent,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except Exception as error:  # noqa: BLE001 (for the thread that waits: without an answer it would wait for ever)
            started.put(error)
            return
        started.put(process)
        process.wait()

    def _listens(self, announcement: re.Pattern[str], addresses: Sequence[tuple[str, int]]) -> bool:
        announced = announcement.search(self.output()) is not None
        return announced and all(accepts(host, port) for host, port in addresses) and self.alive


def accepts(host: str, port: int) -> bool:
    """Whether something accepts TCP connections at this address now."""
    with suppress(OSError):
        socket.create_connection((host, port), timeout=1.0).close()
        return True
    return False


def stop_all(children: Sequence[ChildProcess]) -> None:
    """Stop them at the same time."""
    for child in children:
        child.send(signal.SIGTERM)
    for child in children:
        child.stop()
