"""How a command that stays begins to end, and what it leaves behind: nothing.

Rule: whoever asks it to end (Ctrl-C, `kill`, a closed terminal) gets the same orderly end.
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

# Waits until its parent is gone (its standard input ends), then until nobody writes in the folder any more.
_SWEEP: Final = """
import os, shutil, sys, time
sys.stdin.read()
for _ in range(60):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.exists(sys.argv[1]):
        break
    time.sleep(0.25)
"""


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Make every request to end a `KeyboardInterrupt`."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until_told(check: Callable[[], None], every: float = 0.2) -> NoReturn:
    """Sleep until a signal or `check` raises."""
    while True:
        time.sleep(every)
        check()


def sweep_after(directory: Path) -> None:
    """See that `directory` is removed when this process is gone, even by SIGKILL.

    The sweeper holds the other end of a pipe that nobody writes to and that the kernel closes.
    """
    reader, writer = os.pipe()
    os.set_inheritable(writer, False)  # noqa: FBT003 - the signature is Python's
    subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", _SWEEP, str(directory)),
        stdin=reader,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reader)
