"""Our own programs as child processes with an environment of their own, their output in a log file.

Rule: a child ends with its parent, however that ends (`broker.child_process`), and never sees a Ctrl-C that its
parent has yet to answer. Start it from the main thread: the kernel ties it to the thread that started it.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.child_process import leashed

STOP_TIMEOUT: Final = 8.0
"""Seconds between SIGTERM and SIGKILL: an agent says goodbye, a server ends its requests."""

_KEPT: Final = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV")
_KEPT_PREFIXES: Final = ("LC_", "PYTHON", "SSL_CERT_")
_LOG_LINES: Final = 12


class Program:
    """One running program. Used as a context manager it is stopped at the end."""

    def __init__(self, command: Sequence[str], *, settings: Mapping[str, str], log_path: Path) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                leashed(command),
                # Its own folder: no `.env` of whoever started us.
                cwd=log_path.parent,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for a program that does not listen."""
        self.ask_to_stop()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """The last lines of its log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:]) or "  (nothing)"


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What every program needs of ours, and `settings`; no setting of the caller's leaks in."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    # Neither a proxy nor an AWS profile has a say about servers on this machine.
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "NO_PROXY": "*"}
    return {**kept, **nowhere, **settings}


def stop_all(programs: Sequence[Program]) -> None:
    """Stop them at the same time."""
    for program in programs:
        program.ask_to_stop()
    for program in programs:
        program.stop()
