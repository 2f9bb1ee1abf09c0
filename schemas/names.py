"""Names and patterns that both sides of the wire, or several modules of one side, must spell alike.

Rule: constants, and how a name is compared; topics stand in `schemas.topics`, error codes in `schemas.values`.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

UPLOAD_ID_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z"
"""Upload ids and message ids. No dot begins one: `.` and `..` in the path of a URL lead to another path.

`\\Z`, for `$` lets a newline follow: msgspec searches, it does not match the whole.
"""

TYPE_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
"""Names of the file types that a device configures."""

UNKNOWN_OWNER: Final = "cli-unknown"
"""The owner of an upload whose URLs were granted in a command that names no owner."""

TOKEN_METADATA: Final = "backhaul-token"  # noqa: S105 - the name of a metadata entry, not a secret
"""The object's metadata entry that holds the token of the upload that made it."""

NAME_METADATA: Final = "backhaul-name"
"""The object's metadata entry with the name of the file, percent-encoded, if the object's key could not have it."""

RECEIPT_SUFFIX: Final = ".receipt.json"
"""What the key of a receipt has behind the key of its object. No object of a file has a key that ends with it."""

TRACEPARENT: Final = "traceparent"
"""The user property of a message that belongs to a trace (W3C Trace Context)."""

TRACEPARENT_PATTERN: Final = r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"

TRACED_ROOM: Final = 80
"""Bytes of a packet that the user property takes."""


def covers_owner(patterns: Iterable[str], owner: str) -> bool:
    """Whether one of the `owners` of a key in the fleet's list is this owner; `*` in it stands for any text."""
    return any(fnmatchcase(owner, one.replace("[", "[[]").replace("?", "[?]")) for one in patterns)
