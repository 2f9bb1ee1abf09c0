"""A command as a person sees it: run in a terminal of a given width, with what it drew.

Rule: a real pseudo-terminal, so the command itself decides what a terminal gets.
"""

import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import ioctl
from typing import Final

BACKHAUL: Final = (sys.executable, "-m", "control_plane.cli.main")
"""The command line as a program."""

_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r")


@dataclass(frozen=True, slots=True)
class Screen:
    """What was drawn, control sequences and all, and how the command ended."""

    drawn: str
    exit_code: int

    @property
    def text(self) -> str:
        """The letters without what moves the cursor or colours them."""
        return _plain(self.drawn)

    @property
    def moved(self) -> bool:
        """Whether a part of the screen was drawn over."""
        return re.search(r"\x1b\[\d*[AFJK]", self.drawn) is not None


def _plain(drawn: str) -> str:
    return _CONTROL.sub("", drawn)


def run_in_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    env: Mapping[str, str] | None = None,
    patience: float = 60.0,
    interrupt_at: str | None = None,
    typed: Sequence[tuple[str, str]] = (),
) -> Screen:
    """Run `command` in a terminal of `columns` by 40 and wait for its end, at most `patience` seconds.

    `typed` are pairs of a text to wait for and a line to type then. As soon as the text `interrupt_at` was drawn, the
    command gets what Ctrl-C sends.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    given = {**os.environ, "TERM": "xterm-256color", **(env or {})}
    given.pop("COLUMNS", None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=given, start_new_session=True)
    os.close(theirs)
    try:
        end = time.monotonic() + patience
        drawn = b""
        for prompt, line in typed:
            drawn += _read(ours, end, prompt)
            os.write(ours, f"{line}\n".encode())
        if interrupt_at is not None:
            drawn += _read(ours, end, interrupt_at)
            process.send_signal(signal.SIGINT)
        drawn += _read(ours, end)
        return Screen(drawn.decode(errors="replace"), process.wait(60))
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(descriptor: int, deadline: float, text: str | None = None) -> bytes:
    """Everything until `text` was drawn or the other end is closed; what came so far when that takes too long."""
    chunks: list[bytes] = []

    def drawn() -> bool:
        return text is not None and text in _plain(b"".join(chunks).decode(errors="replace"))

    while time.monotonic() < deadline and not drawn():
        ready, _, _ = select.select([descriptor], [], [], 0.1)
        if not ready:
            continue
        try:
            chunk = os.read(descriptor, 65_536)
        except OSError:
            # Linux returns EIO once the terminal's other end is closed.
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


@contextmanager
def started(command: Sequence[str], env: Mapping[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A program with pipes for its output; however the block ends, the two end with it."""
    with subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def backhaul(
    *arguments: str, env: Mapping[str, str] | None = None, patience: float = 60.0, text: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the command line with pipes for all its streams."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("BACKHAUL_")}
    return subprocess.run(
        (*BACKHAUL, *arguments),
        input=text,
        env={**given, **(env or {})},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )
