"""Log lines on their way to standard error, written by a thread of their own.

Rule: a reader of the log that stalls, or a stream that is closed, never stops the program. Lines are queued up to a
bound, and what exceeds it is dropped and counted.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

MAX_QUEUED: Final = 10_000
"""Lines that wait for the stream; about 4 MB."""

FLUSH: Final = 1.0
"""Seconds for which the end of the program waits for the lines that are queued."""


class QueuedHandler(logging.Handler):
    """Formats a line where it is logged, and writes it in a thread."""

    def __init__(self, stream: TextIO, *, max_queued: int = MAX_QUEUED) -> None:
        super().__init__()
        self._write = _writer(stream)
        self._lines: queue.Queue[str | None] = queue.Queue(max_queued)
        self._dropped = 0
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line; count it as dropped when the queue is full. A record with wrong arguments raises nothing."""
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 (a line of the log, also of a library, ends no thread)
            text = f"{record.levelname} {record.name}: {record.msg!r} cannot be formatted: {error}"
        self.put(text)

    def put(self, text: str) -> None:
        """Queue a line as it is, at any level of the log."""
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until every queued line is written, for `FLUSH` seconds at most."""
        end = time.monotonic() + FLUSH
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks and (left := end - time.monotonic()) > 0:
                self._lines.all_tasks_done.wait(left)

    def close(self) -> None:
        """End the thread after the lines that are queued."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            # A closed stream is no reason to end: the program continues without its log.
            with suppress(OSError, ValueError):
                self._write(f"{line}\n")
                self._report_dropped()
            self._lines.task_done()
        self._lines.task_done()

    def _report_dropped(self) -> None:
        self.acquire()
        count, self._dropped = self._dropped, 0
        self.release()
        if count:
            record = logging.LogRecord("backhaul", logging.WARNING, "", 0, f"log.dropped lines={count}", None, None)
            self._write(f"{self.format(record)}\n")


def _writer(stream: TextIO) -> Callable[[str], object]:
    """Writes to the descriptor: at the end of the program the interpreter waits for the lock of a Python stream."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return stream.write

    def write(text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(descriptor, data) :]

    return write
