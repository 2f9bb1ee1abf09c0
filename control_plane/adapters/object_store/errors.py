"""Translates the object store's error responses and boto3's exceptions to `services.errors`.

Rule: an error is `ObjectStoreRefused` only if the object store certainly did nothing and would do nothing next time.
Everything in doubt is `ObjectStoreDown`, responses of a proxy or ingress in between included. Codes are those of "Error
responses" in the S3 API reference.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

from control_plane.services.errors import ObjectStoreDown, ObjectStoreForbids, ObjectStoreRefused, ServiceError

GONE: Final = frozenset({"NoSuchUpload", "NoSuchKey", "NotFound"})
GONE_BY_HEAD: Final = GONE | {"404"}
"""The response to a HEAD has no body, so botocore uses the status as its code."""

_PASSING: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
PASSING_STATUS: Final = frozenset({408, 425, 429})
_CREDENTIALS: Final = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "TokenRefreshRequired", "SignatureDoesNotMatch"}
)
"""Refusals of the credentials, with any status: new ones change that."""

_CREDENTIALS_BY_HEAD: Final = frozenset({"400"})
"""A HEAD of this program is well-formed: 400 is an expired token or another region: no code is sent with it."""

_NOT_IMPLEMENTED: Final = 501
_FORBIDDEN: Final = frozenset({401, 403})
_NO_ANSWER: Final = "check AWS_ENDPOINT: this is not the response of an object store"
_TEXT_LIMIT: Final = 300
_SIGNED_QUERY: Final = re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"'<]*", re.IGNORECASE)

HINTS: Final[Mapping[str, str]] = {
    "301": "AWS_REGION is not the bucket's region",
    "400": "check AWS_REGION and the credentials",
    "403": "these credentials may not do this with S3_BUCKET_NAME",
    "AccessDenied": "these credentials may not do this with S3_BUCKET_NAME",
    "AuthorizationHeaderMalformed": "check AWS_REGION",
    "BucketAlreadyExists": "S3_BUCKET_NAME is the bucket of another account: choose another name",
    "ExpiredToken": "the session token has expired: give new credentials",
    "IllegalLocationConstraintException": "AWS_REGION is not the region of AWS_ENDPOINT",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "InvalidBucketName": "check S3_BUCKET_NAME",
    "InvalidToken": "check AWS_SESSION_TOKEN",
    "NoSuchBucket": "check S3_BUCKET_NAME",
    "PermanentRedirect": "AWS_REGION is not the bucket's region",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY and AWS_REGION, and that no proxy changes the request",
    "TokenRefreshRequired": "the session token has expired: give new credentials",
}
"""What an operator should check, by the object store's code. Of a HEAD that is the status: its response has no body.

A code that is not listed has no hint: a wrong one sends the operator to the wrong place.
"""


def code_of(error: ClientError) -> str:
    """The object store's code; for a response without a body (HEAD) the HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def translated(what: str, endpoint: str) -> Iterator[None]:
    """Translate what boto3 raises during `what` to an error of `services.errors`."""
    try:
        yield
    except ServiceError:
        raise
    except ClientError as error:
        raise _with_retry_after(what, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        text = f"{what}: no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise ObjectStoreForbids(text, code="NoCredentials") from error
    except (ParamValidationError, InvalidRegionError, ValueError, UnicodeError) as error:
        text = f"{what}: {_clean(str(error))}"
        raise ObjectStoreRefused(text, code="BadParameter") from error
    except (ResponseParserError, KeyError) as error:
        text = f"{what}: the response of the object store at {endpoint} is malformed ({type(error).__name__})"
        raise ObjectStoreDown(text) from error
    except (BotoCoreError, OSError) as error:
        # The text of the error is left out: it contains the whole URL.
        text = f"{what}: the object store at {endpoint} did not answer ({type(error).__name__}): check AWS_ENDPOINT"
        raise ObjectStoreDown(text) from error


def _error_of(what: str, error: ClientError) -> ObjectStoreDown | ObjectStoreRefused:
    """The error for a response that is not a success."""
    code, status = code_of(error), status_of(error)
    foreign = _is_foreign(error)
    hint = _NO_ANSWER if foreign else HINTS.get(code)
    message = _clean(str(error.response.get("Error", {}).get("Message", "")))
    text = ": ".join(part for part in (f"{what}: the object store answered {code or status}", message, hint) if part)
    passing = code in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED) or status in PASSING_STATUS  # noqa: PLR2004
    if passing or (foreign and status != _NOT_IMPLEMENTED):
        return ObjectStoreDown(text)
    forbids = status in _FORBIDDEN or code in _CREDENTIALS | _CREDENTIALS_BY_HEAD
    return (ObjectStoreForbids if forbids else ObjectStoreRefused)(text, code=code)


def _is_foreign(error: ClientError) -> bool:
    """Whether the response is not the object store's, but for example that of an ingress without a route to it.

    Every error of S3 has a document with a code, except for a HEAD. For any other body botocore uses the status as the
    code, and for XML that is not S3's no code at all.
    """
    code = code_of(error)
    return (code.isdecimal() or not code) and not error.operation_name.startswith("Head")


def _with_retry_after(what: str, error: ClientError) -> ObjectStoreDown | ObjectStoreRefused:
    refused = _error_of(what, error)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if isinstance(refused, ObjectStoreDown) and headers.get("retry-after", "").isdecimal():
        return ObjectStoreDown(str(refused), retry_after=float(headers["retry-after"]))
    return refused


def _clean(text: str) -> str:
    """One line of limited length, without the parts of a signature."""
    return _SIGNED_QUERY.sub(r"\1…", " ".join(text.split()))[:_TEXT_LIMIT]
