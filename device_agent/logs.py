"""Log lines: one line each, `key=value`, and no secret in them.

Rule: the query of a URL never reaches a log, for a presigned URL's query is its key.
"""

import logging
import re
import sys
from collections import Counter
from typing import Final

from schemas.errors import SchemaError

_QUERY: Final = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@+-]+")


class LineFormatter(logging.Formatter):
    """`level=info logger=device_agent.agent message="…"`; a traceback follows as one more value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the record."""
        fields = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={_quoted(without_queries(text))}" for name, text in fields.items())


def without_queries(text: str) -> str:
    """The text with the query of every URL cut off.

    >>> without_queries("PUT https://store/key?X-Amz-Signature=abc failed")
    'PUT https://store/key?… failed'
    """
    return _QUERY.sub(r"\1?…", text)


def start_logging(level: str) -> None:
    """Log to stderr from here on; a service manager adds the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


PAUSE: Final = 60.0
"""Seconds between two lines about the same kind of message."""

_MAX_SHOWN: Final = 200

log = logging.getLogger(__name__)


class RateLimitedLog:
    """Counts in `counters`, under the name of what is wrong."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._quiet_until: dict[str, float] = {}

    def note(self, what: str, error: SchemaError, now: float) -> None:
        """One more of a kind; `now` is the time of a clock that never goes back."""
        self._counters[what] += 1
        if now < self._quiet_until.get(what, now):
            return
        self._quiet_until[what] = now + PAUSE
        log.warning("%s, %d so far, none told for %.0f s: %s", what, self._counters[what], PAUSE, _short(str(error)))


def _short(text: str) -> str:
    """The beginning of a text, parts of which the sender wrote, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN else f"{line[:_MAX_SHOWN]}…"
