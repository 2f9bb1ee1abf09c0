"""Why an upload or a client waits: a stable code for programs, a sentence for people.

Rule: no program compares the sentence; a published code keeps its meaning.
"""

from dataclasses import dataclass
from enum import StrEnum


class WaitCode(StrEnum):
    """The codes that the control plane gives."""

    CLIENT_UNKNOWN = "client_unknown"
    CLIENT_NEVER_SEEN = "client_never_seen"
    """An operator expects the client, and its agent has not connected yet."""
    CLIENT_OFFLINE = "client_offline"
    CLIENT_UNSUPPORTED = "client_unsupported"
    CLIENT_CONFLICT = "client_conflict"
    CLIENT_NOISY = "client_noisy"
    """The client is over its budget of messages: what is beyond it is dropped. Commands are still published to it."""
    CLIENT_REPORTED = "client_reported"
    """The client reported what it waits for; only its text is known."""
    DISPATCHING = "dispatching"
    AWAITING_RESPONSE = "awaiting_response"
    UPLOADING = "uploading"
    COMPLETING = "completing"
    BROKER_UNAVAILABLE = "broker_unavailable"
    BROKER_REFUSED = "broker_refused"
    DATABASE_UNAVAILABLE = "database_unavailable"
    OBJECT_STORE_UNAVAILABLE = "object_store_unavailable"
    OBJECT_STORE_REFUSED = "object_store_refused"
    OBJECT_NOT_VISIBLE = "object_not_visible"
    """Every part is stored, and the object store does not show the object yet."""
    UNMARKED_OBJECT = "object_without_token"
    JOB_PAUSED = "job_paused"
    APPROVAL_PENDING = "approval_pending"
    OUTSIDE_WINDOW = "outside_window"
    STAGE_NOT_REACHED = "stage_not_reached"
    DISPATCH_RATE = "dispatch_rate"
    RUNNING_CAP = "running_cap"
    BUDGET_SPENT = "budget_spent"
    CLIENT_QUOTA = "client_quota"
    """The client may begin nothing more for now: it has too many open uploads, or offered too many bytes in a day."""
    JOB_ENDED = "job_ended"
    """The job is over or is being ended: its uploads get no more grants."""
    INTERNAL = "internal"
    """A fault of the control plane or of the agent; its log has the details."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something waits.

    `code` is a `WaitCode`, an `ErrorCode` of a device, or a `Refusal`. It is a plain string, for the set is open: a row
    or a file may hold a code that a later version wrote. `text` is a sentence in English.
    """

    code: str
    text: str
