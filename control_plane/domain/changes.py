"""What happened, as typed facts: the durable change log is made of these.

Rule: a change is appended in the transaction that makes it true, and gets its number there. Readers (event streams,
webhooks, audit, metrics) see changes in the order of their numbers, on every replica.
"""

from dataclasses import dataclass

from control_plane.domain.uploads.model import State


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadCreated:
    """An upload of this owner was accepted. `at` is seconds since the epoch (UTC)."""

    at: float
    client_id: str
    upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStateChanged:
    """An upload went from one state to another; `error` is its error code once it failed."""

    at: float
    client_id: str
    upload_id: str
    attempt: int
    was: State
    state: State
    error: str | None


Change = UploadCreated | UploadStateChanged


@dataclass(frozen=True, slots=True)
class NumberedChange:
    """A committed change; numbers rise in the order of the commits, and may have gaps."""

    number: int
    change: Change
