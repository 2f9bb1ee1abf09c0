"""Sums over the whole fleet, for people who look at it.

Rule: as `services/ports/database.py`. What is summed is bounded: by what is open now, or by a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from control_plane.domain.clients import Client
from control_plane.domain.selectors import Selector
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State, UploadKey


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """What explains an upload that is not over. `client` has its presence only; None when it is not known.

    `reported` is the reason code that it has itself, `wants` whether its client waits for URLs, and `failed` the duty
    that it waits for and that failed last, with its reason code.
    """

    key: UploadKey
    state: State
    client: Client | None
    reported: str | None
    wants: bool
    failed: tuple[Kind, str] | None


@dataclass(frozen=True, slots=True)
class Presences:
    """How many clients there are, and were never seen; and the rows of those whose last stored presence is `online`.

    A row is `client_id`, `install_id`, `epoch`, `sequence` and `seen_at`: there may be very many.
    """

    total: int
    never_seen: int
    online: Sequence[tuple[str, str, int, int, float]]


@dataclass(frozen=True, slots=True)
class Ended:
    """How many uploads ended in a state, and the bytes of their files."""

    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A control plane that shares the database; instants are seconds since the epoch."""

    replica_id: str
    host: str
    version: str
    started_at: float
    seen_at: float


class OverviewRecords(Protocol):
    """Sums over clients and uploads, and the control planes that share the database."""

    def presences(self, reach: Selector | None = None) -> Presences:
        """Of all clients, or of those that `reach` selects."""

    def open_uploads(self, owner: str, limit: int, reach: Selector | None = None) -> list[OpenUpload]:
        """Up to `limit` of this owner's uploads that are not over, in any order; with `reach`, of its clients."""

    def count_open(self, reach: Selector | None = None) -> Mapping[State, int]:
        """How many uploads there are in each state that is not terminal; with `reach`, of its clients."""

    def ended(self, since: float, until: float, reach: Selector | None = None) -> Mapping[State, Ended]:
        """What ended from `since` to before `until` (s since the epoch), by its state; with `reach`, of its clients."""

    def errors(self, since: float, limit: int, reach: Selector | None = None) -> list[tuple[str, int]]:
        """The `limit` commonest error codes of uploads that ended since then, with their numbers, commonest first.

        With `reach`, of its clients.
        """

    def put_replica(self, replica: Replica) -> None:
        """Insert the row of a control plane, or replace it."""

    def replicas(self, since: float) -> list[Replica]:
        """Those that were seen at `since` (s since the epoch) or later, in any order."""

    def remove_replica(self, replica_id: str) -> None:
        """Delete one row, if it exists."""

    def prune_replicas(self, before: float) -> None:
        """Delete those that were last seen before this instant."""
