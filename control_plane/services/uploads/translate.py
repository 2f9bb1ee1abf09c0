"""Responses and statuses of an agent as events of the domain.

Rule: translation only. A status that this version does not know becomes no event.
"""

import re
from typing import Final

from control_plane.domain.uploads.events import (
    AfterReported,
    CancelledByClient,
    ErrorReported,
    PartsRequested,
    Progressed,
    Rejected,
    RemoteEvent,
    Succeeded,
)
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.backoff import full_jitter
from schemas.errors import SchemaError
from schemas.messages import AfterReport, CurrentUpload, Response, UploadReport
from schemas.names import UPLOAD_ID_PATTERN
from schemas.values import DigestName, ErrorCode, ResponseStatus

SHORTEST_RETRY: Final = 5.0
"""Seconds after a reported error before the same attempt is started again, at least."""

LONGEST_RETRY: Final = 60.0
LONGEST_WORD: Final = 64
LONGEST_TEXT: Final = 1_000
LONGEST_PATH: Final = 4_096
_UPLOAD_ID: Final = re.compile(UPLOAD_ID_PATTERN)


def key_of(client_id: str, response: Response, report: UploadReport) -> UploadKey:
    """The upload that a response is about; `SchemaError` when its id is not valid.

    An upload that was started without an id has the id of its command.
    """
    upload_id = report.upload_id or response.message_id
    if _UPLOAD_ID.fullmatch(upload_id) is None:
        message = f"message_id {upload_id[:100]!r} cannot name an upload"
        raise SchemaError(message)
    return UploadKey(client_id, upload_id)


def event_of(
    response: Response, report: UploadReport, *, now: float, one_put: frozenset[DigestName]
) -> RemoteEvent | None:
    """The event in a response about an upload; None when its `status` is not known."""
    if report.after is not None:
        return _receipt(report, report.after, response.sequence, now)
    common = {"now": now, "attempt": report.attempt, "sequence": response.sequence, "etags": dict(report.etags)}
    code, text = ErrorCode.read(response.error or ""), clipped(_text_of(response))
    match ResponseStatus.read(response.status):
        case ResponseStatus.IN_PROGRESS:
            return PartsRequested(
                **common,  # type: ignore[arg-type]
                file_path=path_of(report),
                file_size=report.file_size,
                fingerprint=report.fingerprint,
                wanted=report.wanted_parts,
                one_put=one_put,
                encrypt_to=report.options.encrypt_to,
            )
        case ResponseStatus.SUCCESS:
            return Succeeded(**common)  # type: ignore[arg-type]
        case ResponseStatus.ERROR:
            return ErrorReported(**common, code=code, text=text, delay=_retry_delay())  # type: ignore[arg-type]
        case ResponseStatus.REJECTED:
            return Rejected(**common, code=code, text=text)  # type: ignore[arg-type]
        case ResponseStatus.CANCELLED:
            return CancelledByClient(**common)  # type: ignore[arg-type]
        case ResponseStatus.UNKNOWN:
            return None


def _receipt(report: UploadReport, after: AfterReport, sequence: int | None, now: float) -> AfterReported:
    return AfterReported(
        now=now,
        attempt=report.attempt,
        sequence=sequence,
        outcome=clipped(after.outcome, LONGEST_WORD),
        code=None if after.code is None else clipped(after.code, LONGEST_WORD),
        text=None if after.text is None else clipped(after.text),
    )


def _text_of(response: Response) -> str:
    """The response's message. An unknown code is put before it, since the event has no other place for it."""
    error, message = response.error or "", response.message or ""
    known = ErrorCode.read(error) is not ErrorCode.UNKNOWN
    return message if known and message else ": ".join(text for text in (error, message) if text)


def clipped(text: str, longest: int = LONGEST_TEXT) -> str:
    """The first `longest` characters of a device's text."""
    return text[:longest]


def path_of(report: UploadReport) -> str | None:
    """The path in the device's report; of a longer one than any command has, so much that it equals none of these."""
    return None if report.file_path is None else clipped(report.file_path, LONGEST_PATH + 1)


def _retry_delay() -> float:
    """Seconds before an attempt is started again: what fails on one device may fail on many at once."""
    spread = LONGEST_RETRY - SHORTEST_RETRY
    return full_jitter(0, first=spread, longest=spread, at_least=SHORTEST_RETRY)


def progress_of(current: CurrentUpload, status: str, now: float) -> Progressed:
    """The event in one entry of a status message."""
    reason = current.reason or ("the client waits" if status == "waiting" else None)
    reason = None if reason is None else clipped(reason)
    return Progressed(now=now, attempt=current.attempt, bytes_sent=current.bytes_sent, reason=reason)
