"""S3's error responses, as the strict double sends them.

Rule: codes and statuses are those of "Error responses" in the S3 API reference.
"""

from enum import Enum
from xml.sax.saxutils import escape


class Code(Enum):
    """S3's error codes, with their HTTP statuses."""

    ACCESS_DENIED = "AccessDenied", 403
    AUTHORIZATION_HEADER_MALFORMED = "AuthorizationHeaderMalformed", 400
    AUTHORIZATION_QUERY_PARAMETERS_ERROR = "AuthorizationQueryParametersError", 400
    BAD_DIGEST = "BadDigest", 400
    BUCKET_ALREADY_OWNED_BY_YOU = "BucketAlreadyOwnedByYou", 409
    BUCKET_NOT_EMPTY = "BucketNotEmpty", 409
    ENTITY_TOO_LARGE = "EntityTooLarge", 400
    ENTITY_TOO_SMALL = "EntityTooSmall", 400
    EXPIRED_TOKEN = "ExpiredToken", 400
    INCOMPLETE_BODY = "IncompleteBody", 400
    INTERNAL_ERROR = "InternalError", 500
    INVALID_ACCESS_KEY_ID = "InvalidAccessKeyId", 403
    INVALID_ARGUMENT = "InvalidArgument", 400
    INVALID_BUCKET_NAME = "InvalidBucketName", 400
    INVALID_DIGEST = "InvalidDigest", 400
    INVALID_PART = "InvalidPart", 400
    INVALID_PART_ORDER = "InvalidPartOrder", 400
    INVALID_RANGE = "InvalidRange", 416
    INVALID_REQUEST = "InvalidRequest", 400
    INVALID_TOKEN = "InvalidToken", 400
    MALFORMED_XML = "MalformedXML", 400
    METADATA_TOO_LARGE = "MetadataTooLarge", 400
    METHOD_NOT_ALLOWED = "MethodNotAllowed", 405
    MISSING_CONTENT_LENGTH = "MissingContentLength", 411
    NO_SUCH_BUCKET = "NoSuchBucket", 404
    NO_SUCH_KEY = "NoSuchKey", 404
    NO_SUCH_LIFECYCLE_CONFIGURATION = "NoSuchLifecycleConfiguration", 404
    NO_SUCH_PUBLIC_ACCESS_BLOCK_CONFIGURATION = "NoSuchPublicAccessBlockConfiguration", 404
    NO_SUCH_UPLOAD = "NoSuchUpload", 404
    NOT_IMPLEMENTED = "NotImplemented", 501
    PRECONDITION_FAILED = "PreconditionFailed", 412
    REQUEST_TIME_TOO_SKEWED = "RequestTimeTooSkewed", 403
    REQUEST_TIMEOUT = "RequestTimeout", 400
    SECOND_LEVEL_DOMAIN_FORBIDDEN = "SecondLevelDomainForbidden", 403
    SERVICE_UNAVAILABLE = "ServiceUnavailable", 503
    SIGNATURE_DOES_NOT_MATCH = "SignatureDoesNotMatch", 403
    SLOW_DOWN = "SlowDown", 503
    X_AMZ_CONTENT_SHA256_MISMATCH = "XAmzContentSHA256Mismatch", 400

    @property
    def text(self) -> str:
        """The code in the error document."""
        return str(self.value[0])

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.value[1])


class Refusal(Exception):
    """The request is rejected."""

    def __init__(self, code: Code, message: str = "") -> None:
        super().__init__(f"{code.text}: {message}")
        self.code = code.text
        self.status = code.status
        self.message = message


class Vanished(Exception):
    """The client disconnected before its request was complete."""


def error_document(code: str, message: str) -> bytes:
    """The body of an error response."""
    text = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
