"""What the store's answers and boto3's exceptions mean, in the words of `services.errors`.

Rule: an answer means `ObjectStoreRefused` only if the store surely did nothing and would do nothing next time;
whatever is in doubt is `ObjectStoreDown`, and so is what something before the store answers. Codes are those of "Error
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
"""The answer to a HEAD has no body, so botocore makes the status its code."""

_PASSING: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "ExpiredToken",
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
_NOT_IMPLEMENTED: Final = 501
_FORBIDDEN: Final = frozenset({401, 403})
_NO_ANSWER: Final = "check AWS_ENDPOINT: that is no answer of an object store"
_TEXT_LIMIT: Final = 300
_SIGNED_QUERY: Final = re.compile(r"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"'<]*", re.IGNORECASE)

HINTS: Final[Mapping[str, str]] = {
    "301": "AWS_REGION is not the bucket's region",
    "400": "check AWS_REGION and the credentials",
    "403": "these credentials may not do this with S3_BUCKET_NAME",
    "AccessDenied": "these credentials may not do this with S3_BUCKET_NAME",
    "AuthorizationHeaderMalformed": "check AWS_REGION",
    "BucketAlreadyExists": "S3_BUCKET_NAME is somebody else's bucket: choose another name",
    "ExpiredToken": "the session token has expired: give new credentials",
    "IllegalLocationConstraintException": "AWS_REGION is not the region of AWS_ENDPOINT",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "InvalidBucketName": "check S3_BUCKET_NAME",
    "NoSuchBucket": "check S3_BUCKET_NAME",
    "PermanentRedirect": "AWS_REGION is not the bucket's region",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY and AWS_REGION",
}
"""What an operator should look at, by the store's code."""


def code_of(error: ClientError) -> str:
    """The store's code; of an answer without a body (HEAD) the HTTP status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def translated(what: str, endpoint: str) -> Iterator[None]:
    """Turn whatever boto3 raises while doing `what` into an error of `services.errors`."""
    try:
        yield
    except ServiceError:
        raise
    except ClientError as error:
        raise _refusal(what, error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        text = f"{what}: no credentials for the object store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise ObjectStoreForbids(text, code="NoCredentials") from error
    except (ParamValidationError, InvalidRegionError, ValueError, UnicodeError) as error:
        text = f"{what}: {_clean(str(error))}"
        raise ObjectStoreRefused(text, code="BadParameter") from error
    except (ResponseParserError, KeyError) as error:
        text = f"{what}: the answer of the object store at {endpoint} makes no sense ({type(error).__name__})"
        raise ObjectStoreDown(text) from error
    except (BotoCoreError, OSError) as error:
        # Not its text, which carries the whole URL.
        text = f"{what}: the object store at {endpoint} did not answer ({type(error).__name__}): check AWS_ENDPOINT"
        raise ObjectStoreDown(text) from error


def _refused(what: str, error: ClientError) -> ObjectStoreDown | ObjectStoreRefused:
    """The error for an answer that was not a success."""
    code, status = code_of(error), status_of(error)
    foreign = _is_foreign(error)
    hint = HINTS.get(code) or HINTS.get(str(status)) or (_NO_ANSWER if foreign else None)
    said = _clean(str(error.response.get("Error", {}).get("Message", "")))
    text = ": ".join(part for part in (f"{what}: the object store answered {code or status}", said, hint) if part)
    passing = code in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED) or status in PASSING_STATUS  # noqa: PLR2004
    if passing or (foreign and status != _NOT_IMPLEMENTED):
        return ObjectStoreDown(text)
    return (ObjectStoreForbids if status in _FORBIDDEN else ObjectStoreRefused)(text, code=code)


def _is_foreign(error: ClientError) -> bool:
    """Whether it was not the store that answered: an ingress without a route to it (`404 page not found`), say.

    Every refusal of S3's has a document with a code, except to a HEAD. Of any other body botocore makes the status
    the code, and of XML that is not S3's no code at all.
    """
    code = code_of(error)
    return (code.isdecimal() or not code) and not error.operation_name.startswith("Head")


def _refusal(what: str, error: ClientError) -> ObjectStoreDown | ObjectStoreRefused:
    answer = _refused(what, error)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if isinstance(answer, ObjectStoreDown) and headers.get("retry-after", "").isdecimal():
        return ObjectStoreDown(str(answer), retry_after=float(headers["retry-after"]))
    return answer


def _clean(text: str) -> str:
    """One line, not too long, without what a signature is made of."""
    return _SIGNED_QUERY.sub(r"\1…", " ".join(text.split()))[:_TEXT_LIMIT]
