"""What the store's answers and boto3's exceptions mean, in the words of `services.errors`.

Rule: an answer means `ObjectStoreRefused` only if the store surely did nothing and would do nothing next time;
whatever is in doubt is `ObjectStoreDown`. Codes are those of "Error responses" in the S3 API reference.
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

from control_plane.services.errors import ObjectStoreDown, ObjectStoreRefused, ServiceError

GONE: Final = frozenset({"NoSuchUpload", "NoSuchKey", "NotFound", "404"})
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
        raise ObjectStoreRefused(text, code="NoCredentials") from error
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


def refused(what: str, code: str, status: int, said: str) -> ObjectStoreDown | ObjectStoreRefused:
    """The error for an answer of the store that was not a success."""
    hint = HINTS.get(code) or HINTS.get(str(status))
    parts = (f"{what}: the object store answered {code or status}", _clean(said), hint)
    text = ": ".join(part for part in parts if part)
    if code in _PASSING or (status >= 500 and status != _NOT_IMPLEMENTED) or status in PASSING_STATUS:  # noqa: PLR2004
        return ObjectStoreDown(text)
    return ObjectStoreRefused(text, code=code)


def _refusal(what: str, error: ClientError) -> ObjectStoreDown | ObjectStoreRefused:
    said = str(error.response.get("Error", {}).get("Message", ""))
    answer = refused(what, code_of(error), status_of(error), said)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if isinstance(answer, ObjectStoreDown) and headers.get("retry-after", "").isdecimal():
        return ObjectStoreDown(str(answer), retry_after=float(headers["retry-after"]))
    return answer


def _clean(text: str) -> str:
    """One line, not too long, without what a signature is made of."""
    return _SIGNED_QUERY.sub(r"\1…", " ".join(text.split()))[:_TEXT_LIMIT]
