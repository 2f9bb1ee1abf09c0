"""Why an upload or a client waits: a stable code for programs, a sentence for people.

Rule: no program compares the sentence; a code that was published keeps its meaning.
"""

from dataclasses import dataclass
from enum import StrEnum

from schemas.values import ErrorCode


class WaitCode(StrEnum):
    """The codes of this side; a `Reason` may bear a device's `ErrorCode` instead."""

    CLIENT_UNKNOWN = "client_unknown"
    CLIENT_OFFLINE = "client_offline"
    CLIENT_UNSUPPORTED = "client_unsupported"
    CLIENT_CONFLICT = "client_conflict"
    CLIENT_REPORTED = "client_reported"
    """The client named what it waits for; only its text is known."""
    DISPATCHING = "dispatching"
    AWAITING_RESPONSE = "awaiting_response"
    UPLOADING = "uploading"
    COMPLETING = "completing"
    BROKER_UNAVAILABLE = "broker_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"
    OBJECT_STORE_UNAVAILABLE = "object_store_unavailable"
    OBJECT_STORE_REFUSED = "object_store_refused"
    INTERNAL = "internal"
    """A fault of the control plane; its log has the details."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something waits. `code` is a `WaitCode` or a device's `ErrorCode`; `text` is a sentence in English."""

    code: WaitCode | ErrorCode
    text: str
