"""Streams that are full, slow or closed: the program goes on, and what is lost of its log is counted."""

import io
import logging
import os
import re
from pathlib import Path

import pytest

from control_plane.observability import configure_logging
from schemas.log_sink import QueuedHandler

LINES = 3_000
LINE = "x" * 200


def logged(handler: logging.Handler, count: int) -> None:
    for _ in range(count):
        handler.handle(logging.LogRecord("backhaul", logging.INFO, "", 0, LINE, None, None))


def test_a_reader_that_stalls_stops_nobody_and_what_is_dropped_is_counted() -> None:
    """A pipe takes 64 KiB, then a write waits for its reader: on the event loop that is the end of the service."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        handler = QueuedHandler(stream, max_queued=100)
        # Nobody reads yet: a handler that waits for the pipe never comes back.
        logged(handler, LINES)
        text, accounted = b"", 0
        while accounted < LINES:
            text += os.read(reader.fileno(), 65_536)
            dropped = sum(map(int, re.findall(rb"log.dropped lines=(\d+)\n", text)))
            accounted = text.count(LINE.encode() + b"\n") + dropped
        assert (accounted, dropped > 0) == (LINES, True)
        handler.close()


def test_a_closed_stream_stops_nobody(tmp_path: Path) -> None:
    stream = (tmp_path / "log").open("w")
    handler = QueuedHandler(stream)
    stream.close()
    logged(handler, 10)
    handler.flush()
    assert handler._lines.unfinished_tasks == 0
    handler.close()


def test_a_record_that_cannot_be_formatted_ends_no_thread() -> None:
    """As with the handlers of the standard library: a wrong line of some library is no fault of the caller."""
    stream = io.StringIO()
    handler = QueuedHandler(stream)
    handler.handle(logging.LogRecord("library", logging.INFO, "", 0, "%d parts", ("no number",), None))
    handler.flush()
    assert "'%d parts' cannot be formatted" in stream.getvalue()
    handler.close()


def test_every_line_is_written_before_the_program_ends() -> None:
    stream = io.StringIO()
    handler = QueuedHandler(stream)
    logged(handler, 1_000)
    handler.flush()
    assert stream.getvalue().count("\n") == 1_000
    handler.close()


def test_without_standard_error_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", None)
    try:
        configure_logging("INFO")
        logging.getLogger("backhaul").warning("to nowhere")
        assert [type(handler) for handler in root.handlers] == [logging.NullHandler]
    finally:
        root.handlers[:], root.level = handlers, level
