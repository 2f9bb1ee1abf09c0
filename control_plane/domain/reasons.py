"""Why something waits, ended or was refused: a stable code for programs, a sentence for people.

Rule: every code of the control plane is a member here; a device's are `schemas.values.ErrorCode`. `explanations.table`
has a row for each. No program compares the sentence; a published code keeps its meaning.
"""

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """The codes that the control plane gives: of waits first, then of jobs, of ended uploads, and of ticks."""

    CLIENT_UNKNOWN = "client_unknown"
    CLIENT_NEVER_SEEN = "client_never_seen"
    CLIENT_OFFLINE = "client_offline"
    CLIENT_UNSUPPORTED = "client_unsupported"
    CLIENT_CONFLICT = "client_conflict"
    CLIENT_NOISY = "client_noisy"
    CLIENT_REPORTED = "client_reported"
    """The client reported what it waits for; only its text is known."""
    DEVICE_BUDGET = "device_budget"
    DEVICE_METERED = "device_metered"
    DEVICE_DISK = "device_disk"
    DEVICE_BATTERY = "device_battery"
    DEVICE_LOAD = "device_load"
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
    UNMARKED_OBJECT = "object_without_token"
    JOB_PAUSED = "job_paused"
    APPROVAL_PENDING = "approval_pending"
    OUTSIDE_WINDOW = "outside_window"
    STAGE_NOT_REACHED = "stage_not_reached"
    DISPATCH_RATE = "dispatch_rate"
    RUNNING_CAP = "running_cap"
    BUDGET_SPENT = "budget_spent"
    CLIENT_QUOTA = "client_quota"
    JOB_ENDED = "job_ended"
    INTERNAL = "internal"

    CREATED = "created"
    RETRYING = "retrying"
    RETRIED = "retried"
    REJOINED = "rejoined"
    LISTING = "listing"
    APPROVAL = "approval"
    JOB_FULL = "job_full"
    NO_MATCH = "no_match"
    OVER_LIMIT = "over_limit"
    UNCHANGED = "unchanged"
    UNSUPPORTED = "unsupported"
    BY_DEVICE = "by_device"
    BY_OPERATOR = "by_operator"
    LISTING_TIMEOUT = "listing_timeout"
    EXECUTION_TIMEOUT = "execution_timeout"
    CANCELLED = "cancelled"
    ABORTED = "aborted"
    NO_LONGER_MATCHES = "no_longer_matches"
    CLIENT_FORGOTTEN = "client_forgotten"
    BAD_KEY = "bad_key"
    FILES_FAILED = "files_failed"
    SENT = "sent"
    PAUSED = "paused"

    NOT_PROVEN = "not_proven"
    STORE_REFUSED = "store_refused"
    DEADLINE_PASSED = "deadline_passed"
    NO_PROGRESS = "no_progress"
    QUOTA_EXCEEDED = "quota_exceeded"
    CHANGED_SINCE_LISTING = "changed_since_listing"

    ON_TIME = "on_time"
    CAUGHT_UP = "caught_up"
    BACKFILL = "backfill"
    OVERLAP = "overlap"
    SCHEDULE_PAUSED = "schedule_paused"
    TOO_OLD = "too_old"
    NO_CATCH_UP = "no_catch_up"
    SUPERSEDED = "superseded"
    JOB_REFUSED = "job_refused"


class ProblemCode(StrEnum):
    """The last part of a problem document's `type`: why a REST request was refused."""

    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATABASE_UNAVAILABLE = "database-unavailable"
    BROKER_UNAVAILABLE = "broker-unavailable"
    BROKER_REFUSED = "broker-refused"
    STORE_UNAVAILABLE = "store-unavailable"
    STORE_REFUSED = "store-refused"
    STORE_FORBIDS = "store-forbids"
    CLIENT_SILENT = "client-silent"
    CLIENT_REFUSED = "client-refused"
    TOO_MANY_STREAMS = "too-many-streams"
    CROWDED = "crowded"
    UNKNOWN_BUDGET = "unknown-budget"
    UNKNOWN_CLIENT = "unknown-client"
    UNKNOWN_DELIVERY = "unknown-delivery"
    UNKNOWN_GROUP = "unknown-group"
    UNKNOWN_JOB = "unknown-job"
    UNKNOWN_SCHEDULE = "unknown-schedule"
    UNKNOWN_TOKEN = "unknown-token"  # noqa: S105 - a code
    UNKNOWN_UPLOAD = "unknown-upload"
    UNKNOWN_WEBHOOK = "unknown-webhook"
    AMBIGUOUS_UPLOAD = "ambiguous-upload"
    NOT_OURS = "not-ours"
    JOB_EXISTS = "job-exists"
    JOB_STATE = "job-state"
    ILLEGAL_TRANSITION = "illegal-transition"
    CONDITION_MISSING = "condition-missing"
    CONDITION_FAILED = "condition-failed"
    VERSION_CONFLICT = "version-conflict"
    SET_CHANGED = "set-changed"
    KEY_REUSED = "idempotency-key-reused"
    KEY_TAKEN = "key-taken"
    QUOTA_EXCEEDED = "quota-exceeded"
    RATE_LIMITED = "rate-limited"
    REASON_MISSING = "reason-missing"
    BAD_INPUT = "bad-input"
    BAD_SELECTOR = "bad-selector"
    MALFORMED_JSON = "malformed-json"
    NOT_JSON = "not-json"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    BODY_TOO_LARGE = "body-too-large"
    REQUEST_TIMEOUT = "request-timeout"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    FOREIGN_PAGE = "foreign-page"
    WRONG_HOST = "wrong-host"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something waits or ended.

    `code` is a `ReasonCode`, or an `ErrorCode` of a device. It is a plain string, for the set is open: a row or a file
    may hold a code that a later version wrote. `text` is a sentence in English.
    """

    code: str
    text: str
