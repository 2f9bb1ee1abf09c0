"""The bytes of an event stream (WHATWG HTML, "Server-sent events").

Rule: pure. Every document is JSON in one line, so a frame has one `data:`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from control_plane.domain.changes import NumberedChange
from control_plane.domain.uploads.model import Upload
from control_plane.presentation import change_document, progress_document
from control_plane.services.events.filters import PROGRESS
from control_plane.services.events.streams import Encoders

RESYNC: Final = "resync"
RETRY: Final = 2_000
"""Milliseconds after which a caller connects again."""


def change_frame(numbered: NumberedChange) -> bytes:
    """A change: its number is the id."""
    change = numbered.change
    return _frame(change.name, change_document(change), numbered.number)


def progress_frame(upload: Upload) -> bytes:
    """Progress has no id: it cannot be resumed from."""
    return _frame(PROGRESS, progress_document(upload))


def start_frame(number: int) -> bytes:
    """An id without an event: a caller that is disconnected before the first event resumes from here."""
    return b"retry: %d\nid: %d\n\n" % (RETRY, number)


def resync_frame(number: int) -> bytes:
    """Changes are missing: the caller reads again what it shows."""
    return _frame(RESYNC, {"after": number}, number)


def _frame(event: str, document: Mapping[str, Any], number: int | None = None) -> bytes:
    head = b"" if number is None else b"id: %d\n" % number
    return head + b"event: %s\ndata: %s\n\n" % (event.encode(), msgspec.json.encode(document))


def chunk(data: bytes) -> bytes:
    """Bytes as one chunk of an answer without a length (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


FRAMES: Final = Encoders(
    change=change_frame,
    progress=progress_frame,
    start=start_frame,
    resync=resync_frame,
    keep_alive=b":\n\n",
    framed=chunk,
)
