"""Log lines: one line each, `key=value`, without secrets, and rate-limited where a sender could cause many.

Rule: every text passes `schemas.redaction`: the query of a presigned URL is its key. DEBUG is for the agent's own
lines, since a library logs whole requests at that level.
"""

import faulthandler
import logging
import re
import sys
from collections import Counter
from typing import Final

from schemas.errors import SchemaError
from schemas.log_sink import QueuedHandler
from schemas.redaction import without_secrets

PAUSE: Final = 60.0
"""Seconds between two lines about the same kind of message."""

_MAX_SHOWN: Final = 200
_STDERR: Final = 2
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@+-]+")

log = logging.getLogger(__name__)


class LineFormatter(logging.Formatter):
    """`level=info logger=device_agent.agent message="…"`; a traceback follows as one more value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for any record."""
        fields = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={_quoted(without_secrets(text))}" for name, text in fields.items())


class RateLimitedLog:
    """Warnings about messages that cannot be read or carried out: all are counted, one a minute of each kind is logged.

    A sender may publish bad messages as fast as the network carries them; they must not fill the log's memory card.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._quiet_until: dict[str, float] = {}

    def warn(self, kind: str, error: SchemaError, now: float) -> None:
        """Count one message in the counter `kind`; `now` is in seconds on a clock that never goes back."""
        self._counters[kind] += 1
        if now < self._quiet_until.get(kind, now):
            return
        self._quiet_until[kind] = now + PAUSE
        count = self._counters[kind]
        log.warning("%s: %d so far, next line in %.0f s at the earliest: %s", kind, count, PAUSE, _short(str(error)))


def start_logging(level: str) -> None:
    """Log to stderr, from a separate thread: a reader that stalls stops nothing. A service manager adds the time.

    A watchdog ends a loop that is stuck by SIGABRT: then the log has the lines at which each thread was.
    """
    handler = logging.NullHandler() if sys.stderr is None else QueuedHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    if sys.stderr is not None:
        faulthandler.enable(_STDERR)
    wanted = level.upper()
    logging.basicConfig(level="INFO" if wanted == "DEBUG" else wanted, handlers=[handler], force=True)
    logging.getLogger(__package__).setLevel(wanted)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _short(text: str) -> str:
    """The beginning of a text that a sender may have written, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}…"
