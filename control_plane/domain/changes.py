"""Committed changes as typed facts: the entries of the durable change log.

Rule: a change is appended, and numbered, in the transaction that commits it. Readers (event streams, webhooks, audit,
metrics) receive changes in the order of their numbers, on every replica.
"""

from dataclasses import dataclass

from control_plane.domain.uploads.model import State


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadCreated:
    """A use case created an upload at `at` (s since the epoch).

    An upload that a device's offer started, and an observed one, have no such change.
    """

    at: float
    client_id: str
    upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadStateChanged:
    """An upload changed from the state `was` to `state` at `at` (s since the epoch).

    `error` is the error code of an upload that failed, was rejected or expired; in other states None, except that an
    observed upload has the code of the last error that its client reported.
    """

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
    """A committed change. Numbers rise in commit order, with gaps allowed."""

    number: int
    change: Change
