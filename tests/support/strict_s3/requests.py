"""One request to the strict double: the bytes of path, query and headers, and the operation.

Rule: nothing is normalised before its signature is verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote


class Operation(StrEnum):
    """The operations, with the names of the S3 API reference."""

    CREATE_BUCKET = "CreateBucket"
    HEAD_BUCKET = "HeadBucket"
    DELETE_BUCKET = "DeleteBucket"
    GET_BUCKET_LOCATION = "GetBucketLocation"
    PUT_BUCKET_RULES = "PutBucketRules"
    GET_BUCKET_RULES = "GetBucketRules"
    LIST_OBJECTS = "ListObjectsV2"
    LIST_MULTIPART_UPLOADS = "ListMultipartUploads"
    PUT_OBJECT = "PutObject"
    GET_OBJECT = "GetObject"
    HEAD_OBJECT = "HeadObject"
    DELETE_OBJECT = "DeleteObject"
    CREATE_MULTIPART_UPLOAD = "CreateMultipartUpload"
    UPLOAD_PART = "UploadPart"
    COMPLETE_MULTIPART_UPLOAD = "CompleteMultipartUpload"
    ABORT_MULTIPART_UPLOAD = "AbortMultipartUpload"
    LIST_PARTS = "ListParts"
    UNKNOWN = "Unknown"


RULES: Final = ("lifecycle", "publicAccessBlock")
"""Sub-resources of a bucket that are stored and returned unchanged."""

# (method, whether there is a key, the distinguishing query name): the first match.
_TABLE: Final = (
    ("PUT", False, "publicAccessBlock", Operation.PUT_BUCKET_RULES),
    ("PUT", False, "lifecycle", Operation.PUT_BUCKET_RULES),
    ("GET", False, "publicAccessBlock", Operation.GET_BUCKET_RULES),
    ("GET", False, "lifecycle", Operation.GET_BUCKET_RULES),
    ("GET", False, "location", Operation.GET_BUCKET_LOCATION),
    ("GET", False, "uploads", Operation.LIST_MULTIPART_UPLOADS),
    ("GET", False, "", Operation.LIST_OBJECTS),
    ("PUT", False, "", Operation.CREATE_BUCKET),
    ("HEAD", False, "", Operation.HEAD_BUCKET),
    ("DELETE", False, "", Operation.DELETE_BUCKET),
    ("POST", True, "uploads", Operation.CREATE_MULTIPART_UPLOAD),
    ("POST", True, "uploadId", Operation.COMPLETE_MULTIPART_UPLOAD),
    ("PUT", True, "partNumber", Operation.UPLOAD_PART),
    ("GET", True, "uploadId", Operation.LIST_PARTS),
    ("DELETE", True, "uploadId", Operation.ABORT_MULTIPART_UPLOAD),
    ("PUT", True, "", Operation.PUT_OBJECT),
    ("GET", True, "", Operation.GET_OBJECT),
    ("HEAD", True, "", Operation.HEAD_OBJECT),
    ("DELETE", True, "", Operation.DELETE_OBJECT),
)
_SUB_RESOURCES: Final = frozenset({"acl", "cors", "delete", "encryption", "policy", "tagging", "versioning"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request without its body; header names are lower-case, `query` is decoded."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    bucket: str = ""
    key: str = ""

    @property
    def operation(self) -> Operation:
        """The operation."""
        if _SUB_RESOURCES & set(self.query):
            return Operation.UNKNOWN
        for method, has_key, name, operation in _TABLE:
            if method == self.method and has_key == bool(self.key) and (not name or name in self.query):
                return operation
        return Operation.UNKNOWN

    @property
    def part_number(self) -> int | None:
        """The number of the part."""
        number = self.query.get("partNumber", "")
        return int(number) if number.isdecimal() else None

    @property
    def upload_id(self) -> str | None:
        """The id of the multipart upload."""
        return self.query.get("uploadId")

    @property
    def length(self) -> int | None:
        """Content-Length (bytes)."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None


def pairs_of(raw_query: str) -> list[tuple[str, str]]:
    """Names and values of a query string, decoded; a plus sign is a plus sign (RFC 3986)."""
    split = (pair.partition("=") for pair in raw_query.split("&") if pair)
    return [(unquote(name), unquote(value)) for name, _, value in split]


def read_request(scope: Mapping[str, Any]) -> Request:
    """The request in an ASGI scope; path-style addresses only."""
    raw_path = scope["raw_path"].decode("ascii")
    raw_query = scope["query_string"].decode("ascii")
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        known = headers.get(name.decode("latin-1"))
        text = value.decode("latin-1")
        headers[name.decode("latin-1")] = text if known is None else f"{known},{text}"
    bucket, _, key = unquote(raw_path).lstrip("/").partition("/")
    return Request(scope["method"], raw_path, raw_query, headers, dict(pairs_of(raw_query)), bucket, key)
