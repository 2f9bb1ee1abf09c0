"""What the store's answer to a PUT means (protocol.md section 4, "What a PUT's answer means").

Rule: pure. One table. Only what bears an S3 error is the store's word: a portal, a proxy or a load balancer may answer
in its place, and is waited out. Whatever the table does not know is refused if the store blames the request.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from device_agent.errors import PutFailed, PutFailure

MAX_BODY: Final = 64 * 1024
"""How much of an answer's body is read: more than any S3 error needs."""

MAX_RETRY_AFTER: Final = 300.0
"""Seconds; a store that asks for more is asked again after this."""

_CODE: Final = re.compile(rb"<Error\b[^>]{0,200}>.{0,2000}?<Code>([A-Za-z0-9.]{1,64})</Code>", re.DOTALL)
_ETAG: Final = re.compile(r"[!-~]{1,256}")
_BAD_DIGEST: Final = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "BadChecksum"}
)
_GONE: Final = frozenset({"NoSuchUpload", "NoSuchKey", "NoSuchBucket"})
_TRANSIENT_CODES: Final = frozenset(
    {"RequestTimeout", "IncompleteBody", "SlowDown", "InternalError", "TemporaryRedirect"}
)

# Spelled here, since only the uploader may import the package `http`.
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_PRECONDITION_FAILED: Final = 412
_PROXY_WANTS_A_PASSWORD: Final = 407
_TRANSIENT: Final = frozenset({_PROXY_WANTS_A_PASSWORD, 408, 409, 425, 429})
_STORED: Final = range(200, 300)
_BLAMES_REQUEST: Final = range(300, 500)


@dataclass(frozen=True, slots=True)
class PutResult:
    """What is read of an answer. `whole` says that the request had been sent to its end when it came."""

    status: int
    etag: str | None = None
    retry_after: str | None = None
    date: str | None = None
    body: bytes = b""
    whole: bool = True


def stored_etag(result: PutResult) -> str:
    """The ETag exactly as the store wrote it; "" for 412, where an earlier PUT of ours may have won.

    `PutFailed` says what any other answer means.
    """
    if result.status == _PRECONDITION_FAILED:
        return ""
    if result.status not in _STORED:
        raise _failure(result)
    if not result.whole:
        raise PutFailed(PutFailure.TRY_AGAIN, f"the store answered {result.status} before it had the whole part")
    if result.etag is None or _ETAG.fullmatch(result.etag) is None:
        # A load balancer in between can do that (rclone issue 9823).
        raise PutFailed(PutFailure.TRY_AGAIN, f"the store answered {result.status} without an ETag")
    return result.etag


def retry_after(result: PutResult) -> float | None:
    """Seconds for which the store asks to be left alone, at most `MAX_RETRY_AFTER`; None when it does not say.

    A date is counted from the store's own `Date`, since a device's clock may stand in 1970.

    >>> retry_after(PutResult(503, retry_after="7"))
    7.0
    """
    text = (result.retry_after or "").strip()
    if text.isascii() and text.isdigit():
        # Ten digits are centuries; a number of thousands of digits would not even convert.
        return min(float(text[:10]), MAX_RETRY_AFTER)
    until, now = _instant(text), _instant(result.date) or datetime.now(UTC)
    return None if until is None else min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER)


def _failure(result: PutResult) -> PutFailed:
    found = _CODE.search(result.body)
    code = found[1].decode() if found else ""
    kind = _kind(result.status, code)
    ours = code or result.status not in _BLAMES_REQUEST
    who = "the store" if ours else "the store, or something on the way to it,"
    text = f"{who} answered {result.status} {code}".rstrip()
    return PutFailed(kind, text, retry_after(result) if kind is PutFailure.TRY_AGAIN else None)


def _kind(status: int, code: str) -> PutFailure:
    if status not in _BLAMES_REQUEST or status in _TRANSIENT or not code or code in _TRANSIENT_CODES:
        return PutFailure.TRY_AGAIN
    if status in _FORBIDDEN:
        return PutFailure.EXPIRED_OR_FORBIDDEN
    if status == _NOT_FOUND:
        return PutFailure.GONE if code in _GONE else PutFailure.TRY_AGAIN
    if status == _BAD_REQUEST and code in _BAD_DIGEST:
        return PutFailure.BAD_DIGEST
    return PutFailure.REFUSED


def _instant(text: str | None) -> datetime | None:
    """An HTTP date, which is always in GMT (RFC 9110, section 5.6.7)."""
    try:
        instant = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant
