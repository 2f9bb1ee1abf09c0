"""Signature Version 4, verified from the specification alone.

Rule: every change of a request breaks the signature; every header `x-amz-*` that is sent must be signed.
Source: "Authenticating Requests (AWS Signature Version 4)", S3 API reference. No code of botocore: a shared
signer would have the same faults.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

from tests.support.strict_s3.refusals import Code, Refusal
from tests.support.strict_s3.requests import Request, pairs_of

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
MAX_EXPIRES: Final = 604_800
MAX_SKEW: Final = 900
_SAFE: Final = "-_.~"
_HEADER: Final = re.compile(rf"{ALGORITHM} Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{{64}})")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SCOPE_PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Keys:
    """The only user of the double."""

    access_key: str
    secret_key: str
    region: str
    session_token: str | None = None


@dataclass(frozen=True, slots=True)
class Signed:
    """What a verified signature covers; `payload_sha256` is None when the body is not part of it."""

    presigned: bool
    headers: frozenset[str]
    payload_sha256: str | None


@dataclass(frozen=True, slots=True)
class _Claim:
    credential: str
    signed_headers: list[str]
    signature: str
    date: str
    payload: str
    query: list[tuple[str, str]]


def verify(request: Request, keys: Keys, now: float) -> Signed:
    """What the signature covers; `Refusal` with S3's code when it is wrong, too old or covers too little."""
    presigned = "X-Amz-Algorithm" in request.query
    claim = _from_query(request) if presigned else _from_header(request)
    _check_scope(claim, keys)
    _check_time(request, claim, now, presigned=presigned)
    _check_token(request, keys, presigned=presigned)
    if not hmac.compare_digest(_signature(request, claim, keys), claim.signature):
        raise Refusal(Code.SIGNATURE_DOES_NOT_MATCH, "The request signature we calculated does not match")
    _check_coverage(request, claim.signed_headers)
    hashed = claim.payload if _HASH.fullmatch(claim.payload) else None
    return Signed(presigned, frozenset(claim.signed_headers), hashed)


def _from_query(request: Request) -> _Claim:
    pairs = pairs_of(request.raw_query)
    query = dict(pairs)
    names = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
    if len(query) != len(pairs) or not all(f"X-Amz-{name}" in query for name in names):
        raise Refusal(
            Code.AUTHORIZATION_QUERY_PARAMETERS_ERROR, "Query-string authentication needs each parameter once"
        )
    expires = query["X-Amz-Expires"]
    if query["X-Amz-Algorithm"] != ALGORITHM or not expires.isdecimal() or not 0 < int(expires) <= MAX_EXPIRES:
        raise Refusal(Code.AUTHORIZATION_QUERY_PARAMETERS_ERROR, "X-Amz-Expires must be less than a week (in seconds)")
    return _Claim(
        query["X-Amz-Credential"],
        query["X-Amz-SignedHeaders"].split(";"),
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        UNSIGNED,
        [pair for pair in pairs if pair[0] != "X-Amz-Signature"],
    )


def _from_header(request: Request) -> _Claim:
    header = request.headers.get("authorization")
    if header is None:
        raise Refusal(Code.ACCESS_DENIED, "Anonymous access is forbidden")
    found = _HEADER.fullmatch(header)
    if found is None:
        raise Refusal(Code.AUTHORIZATION_HEADER_MALFORMED, "The authorization header is malformed")
    payload = request.headers.get("x-amz-content-sha256", "")
    if payload.startswith("STREAMING-"):
        raise Refusal(Code.NOT_IMPLEMENTED, "aws-chunked bodies are not implemented")
    if payload != UNSIGNED and not _HASH.fullmatch(payload):
        raise Refusal(Code.INVALID_REQUEST, "Missing required header for this request: x-amz-content-sha256")
    date = request.headers.get("x-amz-date", "")
    return _Claim(found[1], found[2].split(";"), found[3], date, payload, pairs_of(request.raw_query))


def _check_scope(claim: _Claim, keys: Keys) -> None:
    scope = claim.credential.split("/")
    if len(scope) != _SCOPE_PARTS or scope[3:] != ["s3", "aws4_request"] or scope[1] != claim.date[:8]:
        raise Refusal(Code.AUTHORIZATION_HEADER_MALFORMED, "The credential is malformed")
    if scope[0] != keys.access_key:
        raise Refusal(Code.INVALID_ACCESS_KEY_ID, "The access key id you provided does not exist in our records")
    if scope[2] != keys.region:
        raise Refusal(
            Code.AUTHORIZATION_HEADER_MALFORMED, f"The region '{scope[2]}' is wrong; expecting '{keys.region}'"
        )


def _check_time(request: Request, claim: _Claim, now: float, *, presigned: bool) -> None:
    try:
        signed_at = datetime.strptime(claim.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Refusal(Code.ACCESS_DENIED, "The date is not a valid ISO8601 basic date") from None
    if presigned and now > signed_at + int(request.query["X-Amz-Expires"]):
        raise Refusal(Code.ACCESS_DENIED, "Request has expired")
    too_old = not presigned and now > signed_at + MAX_SKEW
    if too_old or signed_at > now + MAX_SKEW:
        raise Refusal(Code.REQUEST_TIME_TOO_SKEWED, "The difference between the request time and our time is too large")


def _check_token(request: Request, keys: Keys, *, presigned: bool) -> None:
    given = request.query.get("X-Amz-Security-Token") if presigned else request.headers.get("x-amz-security-token")
    if given != keys.session_token:
        raise Refusal(Code.INVALID_TOKEN, "The provided token is malformed or otherwise invalid")


def _check_coverage(request: Request, signed: list[str]) -> None:
    bare = [name for name in request.headers if name.startswith("x-amz-") and name not in signed]
    if "host" not in signed or bare:
        raise Refusal(Code.ACCESS_DENIED, f"There were headers present in the request which were not signed: {bare}")


def _signature(request: Request, claim: _Claim, keys: Keys) -> str:
    query = sorted((quote(name, safe=_SAFE), quote(value, safe=_SAFE)) for name, value in claim.query)
    canonical = "\n".join(
        (
            request.method,
            quote(unquote(request.raw_path), safe=f"/{_SAFE}"),
            "&".join(f"{name}={value}" for name, value in query),
            _canonical_headers(request.headers, claim.signed_headers),
            ";".join(claim.signed_headers),
            claim.payload,
        )
    )
    _, *scope = claim.credential.split("/")
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{keys.secret_key}".encode()
    for word in scope:
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(key, "\n".join((ALGORITHM, claim.date, "/".join(scope), hashed)).encode(), "sha256").hex()


def _canonical_headers(headers: Mapping[str, str], signed: list[str]) -> str:
    return "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in signed)
