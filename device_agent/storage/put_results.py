"""The meaning of the object store's answer to a PUT (protocol.md section 4, "What a PUT's answer means").

Rule: pure. One table. Only a refusal with an S3 error is certain to come from the object store. Another one may come
from a portal, a proxy or a load balancer before it, and the PUT is tried again. An S3 error that the table does not
list counts as refused.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from device_agent.errors import PutFailed, PutFailure

MAX_BODY: Final = 64 * 1024
"""Bytes of an answer's body that are read: more than any S3 error needs."""

MAX_RETRY_AFTER: Final = 300.0
"""Seconds; a longer Retry-After counts as this."""

_MESSAGE: Final = re.compile(rb"<Message>([^<]{1,2000})</Message>")
_MAX_MESSAGE: Final = 200
_CODE: Final = re.compile(rb"<Error\b[^>]{0,200}>.{0,2000}?<Code>([A-Za-z0-9.]{1,64})</Code>", re.DOTALL)
_ETAG: Final = re.compile(r"[!-~]{1,256}")
_BAD_DIGEST: Final = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "BadChecksum"}
)
_GONE: Final = frozenset({"NoSuchUpload", "NoSuchKey"})
_NO_BUCKET: Final = "NoSuchBucket"
_TRANSIENT_CODES: Final = frozenset(
    {"RequestTimeout", "IncompleteBody", "SlowDown", "InternalError", "TemporaryRedirect"}
)

# Written as numbers, because only the uploader may import the package `http`.
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = frozenset({401, 403})
_NOT_FOUND: Final = 404
_PRECONDITION_FAILED: Final = 412
_PROXY_AUTHENTICATION: Final = 407
_TRANSIENT: Final = frozenset({_PROXY_AUTHENTICATION, 408, 409, 425, 429})
_STORED: Final = range(200, 300)
_BLAMES_REQUEST: Final = range(300, 500)


class PutResult(Struct, frozen=True):
    """The answer to one PUT. `whole` is True when the request had been sent to its end before."""

    status: int
    etag: str | None = None
    retry_after: str | None = None
    date: str | None = None
    body: bytes = b""
    whole: bool = True
    proxy: str | None = None
    """The proxy that the request was sent to, if it could read it: the answer may be the proxy's own."""


def stored_etag(result: PutResult) -> str:
    """The ETag exactly as the object store wrote it; "" for 412, after an earlier PUT that may have stored the part.

    `PutFailed` for every other answer, with its meaning.
    """
    if result.status == _PRECONDITION_FAILED:
        return ""
    if result.status not in _STORED:
        raise _failure(result)
    if not result.whole:
        raise PutFailed(PutFailure.TRY_AGAIN, f"the object store answered {result.status} before it had the whole part")
    if result.etag is None or _ETAG.fullmatch(result.etag) is None:
        # A load balancer in between can cause this (rclone issue 9823).
        raise PutFailed(PutFailure.TRY_AGAIN, f"the object store answered {result.status} without an ETag")
    return result.etag


def retry_after(result: PutResult) -> float | None:
    """The pause that the object store requests in seconds, at most `MAX_RETRY_AFTER`; None without one.

    A date is counted from the `Date` of the same answer, because a device's clock may be wrong by years.

    >>> retry_after(PutResult(503, retry_after="7"))
    7.0
    """
    text = (result.retry_after or "").strip()
    if text.isascii() and text.isdigit():
        # Ten digits are centuries; a number of thousands of digits would not convert.
        return min(float(text[:10]), MAX_RETRY_AFTER)
    until, now = _instant(text), _instant(result.date) or datetime.now(UTC)
    return None if until is None else min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER)


def _failure(result: PutResult) -> PutFailed:
    found = _CODE.search(result.body)
    code = found[1].decode() if found else ""
    kind = _kind(result.status, code)
    sender = _sender(result, code)
    text = ": ".join(filter(None, (f"{sender} answered {result.status} {code}".rstrip(), _message(result, code))))
    return PutFailed(kind, text, retry_after(result) if kind is PutFailure.TRY_AGAIN else None)


def _sender(result: PutResult, code: str) -> str:
    if result.proxy is not None and not code:
        proxy = f"the proxy {result.proxy}"
        return proxy if result.status == _PROXY_AUTHENTICATION else f"{proxy}, or the object store behind it,"
    certain = code or result.status not in _BLAMES_REQUEST
    return "the object store" if certain else "the object store, or a proxy before it,"


def _message(result: PutResult, code: str) -> str:
    """The message of an S3 error, as one short line of printable characters."""
    found = _MESSAGE.search(result.body) if code else None
    text = " ".join(found[1].decode("utf-8", "replace").split()) if found else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:_MAX_MESSAGE]


def _kind(status: int, code: str) -> PutFailure:
    if status not in _BLAMES_REQUEST or status in _TRANSIENT or not code or code in _TRANSIENT_CODES:
        return PutFailure.TRY_AGAIN
    if status in _FORBIDDEN:
        return PutFailure.EXPIRED_OR_FORBIDDEN
    if status == _NOT_FOUND:
        # A missing bucket is no end of the attempt: its owner knows whether that may change.
        return PutFailure.GONE if code in _GONE else PutFailure.REFUSED if code == _NO_BUCKET else PutFailure.TRY_AGAIN
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
