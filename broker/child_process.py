"""A child process that cannot outlive the process that started it, with its output in a log file.

Rule: this module knows nothing of MQTT; it starts one program, tells whether it lives, and ends it.

On Linux the kernel sends SIGTERM to the child when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG).
So every child is started by a thread of its own, which then waits for it: the two end together, whichever thread
of the caller asked. The signal is armed by a tiny program that replaces itself with the real one; `preexec_fn`
would run Python between fork and exec, which can deadlock in a process with threads.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Final

STOP_TIMEOUT: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""

_ARM: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before its broker began")
os.execv(sys.argv[2], sys.argv[2:])
"""


def leashed(command: Sequence[str]) -> tuple[str, ...]:
    """The command line that runs `command` on a leash; `command` itself where the kernel offers none."""
    if sys.platform != "linux":
        return tuple(command)
    return (sys.executable, "-I", "-S", "-c", _ARM, str(os.getpid()), *command)


class Child:
    """One running program. Its standard output and error are appended to `log_path`."""

    def __init__(self, command: Sequence[str], log_path: Path) -> None:
        self._command = leashed(command)
        self._log_path = log_path
        self._log_start = log_path.stat().st_size if log_path.exists() else 0
        started: SimpleQueue[subprocess.Popen[bytes] | OSError] = SimpleQueue()
        self._waiter = threading.Thread(target=self._run, args=(started,), name="broker-leash", daemon=True)
        self._waiter.start()
        outcome = started.get()
        if isinstance(outcome, OSError):
            raise outcome
        self._process = outcome

    @property
    def pid(self) -> int:
        """Process id; it stays the same when the leash gives way to the program."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def output(self) -> str:
        """What this child, not an earlier one with the same log, has written so far."""
        with self._log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the program still runs."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for a program that does not listen."""
        self.send(signal.SIGTERM)
        self._waiter.join(STOP_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when the program is gone."""
        self.send(signal.SIGKILL)
        self._waiter.join()

    def _run(self, started: "SimpleQueue[subprocess.Popen[bytes] | OSError]") -> None:
        try:
            with self._log_path.open("ab") as log:
                process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
        except OSError as error:
            started.put(error)
            return
        started.put(process)
        process.wait()
