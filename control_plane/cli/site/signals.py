"""Signal handling and clean-up of commands that run until they are stopped.

Rule: Ctrl-C, `kill` and a closed terminal all end a command in the same order; a second signal ends it at once, and its
child processes with it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Waits until its parent is gone (its standard input ends), then until no process writes to the folder any more.
_REMOVE: Final = """
import os, shutil, sys, time
sys.stdin.read()
for _ in range(60):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.exists(sys.argv[1]):
        break
    time.sleep(0.25)
"""


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on the first of SIGINT, SIGTERM and SIGHUP; the next one ends this process.

    A signal that is ignored stays ignored: `nohup` ignores SIGHUP, and a shell SIGINT for its background jobs.
    """
    numbers = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_termination(check: Callable[[], None], every: float = 0.2) -> NoReturn:
    """Sleep until a signal or `check` raises."""
    while True:
        time.sleep(every)
        check()


def remove_after_exit(directory: Path) -> None:
    """Remove `directory` when this process has ended, even by SIGKILL.

    The removing program reads a pipe that this process never writes to and that the kernel closes.
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, False)  # noqa: FBT003 - the signature is Python's
    subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", _REMOVE, str(directory)),
        stdin=reader,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reader)
