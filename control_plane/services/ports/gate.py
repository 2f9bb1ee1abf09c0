"""What the gate remembers: rates, budgets, who has or awaits a share of one, and ledgers of devices.

Rule: as in `ports.database`. A transaction that writes a rate which another one wrote meanwhile loses the race and runs
again, so a rate is exact over replicas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from control_plane.domain.gate.devices import Ledger
from control_plane.domain.uploads.model import UploadKey

if TYPE_CHECKING:
    from control_plane.services.ports.database import Page


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `rate` bytes a second, on average, from all clients with this label together."""

    label: str
    value: str
    rate: int
    updated_at: float

    @property
    def key(self) -> str:
        """Its name."""
        return f"{self.label}={self.value}"


@dataclass(frozen=True, slots=True)
class Share:
    """One upload under one budget.

    `placed_at`, with `priority`, orders the waiters: the instant at which its last grant was paid off, or that of its
    first request. `since` is when it began to wait, None while it does not. `absent`: it let its turn pass, and others
    are served until it requests again. `attempt`, `sequence` and `bytes` are of its last grant.
    """

    key: str
    client_id: str
    upload_id: str
    priority: int
    placed_at: float
    job_id: str | None = None
    since: float | None = None
    absent: bool = False
    attempt: int = 0
    sequence: int = 0
    bytes: int = 0

    @property
    def upload_key(self) -> UploadKey:
        """The upload."""
        return UploadKey(self.client_id, self.upload_id)


class GateRecords(Protocol):
    """Rates, budgets and shares."""

    def tat(self, name: str) -> float | None:
        """When the next event of a rate is free; None for one that was never used, or not for long."""

    def set_tat(self, name: str, tat: float) -> None:
        """Set it."""

    def ledger(self, client_id: str) -> Ledger:
        """What was granted to a device and is not in its report; an empty one for a client without any."""

    def put_ledger(self, client_id: str, ledger: Ledger) -> None:
        """Replace it; the client must exist."""

    def budgets(self) -> list[Budget]:
        """All, by label and value."""

    def page_of_budgets(self, page: "Page") -> tuple[list[Budget], str | None]:
        """Budgets by label and value, and the cursor of the next page; `BadInput` when the cursor is malformed."""

    def budgets_of(self, labels: Mapping[str, str]) -> list[Budget]:
        """Those that apply to a client with these labels, by label."""

    def put_budget(self, budget: Budget) -> None:
        """Insert or replace."""

    def drop_budget(self, label: str, value: str) -> bool:
        """Delete a budget, and leave its shares; False when there is none."""

    def shares_of(self, upload: UploadKey) -> dict[str, Share]:
        """The shares of one upload, by the key of the budget."""

    def has_shares(self) -> bool:
        """Whether any upload has one."""

    def put_share(self, share: Share) -> None:
        """Insert or replace."""

    def drop_shares(self, upload: UploadKey) -> None:
        """Delete the shares of an upload that is over."""

    def ahead_of(self, share: Share) -> int:
        """How many waiters of the budget that are not absent come before this share; of many, the first ones count."""

    def pass_over(self, share: Share) -> None:
        """Mark the waiters that come before this share as absent."""

    def first(self, key: str, limit: int) -> list[Share]:
        """The waiters of a budget in the order of their turns; the absent ones are left out."""

    def waiters(self, key: str, limit: int) -> tuple[list[Share], int]:
        """All waiters, longest first, and how many there are."""

    def users(self, key: str, since: float, limit: int) -> list[Share]:
        """The shares whose last grant is paid off at `since` or later, the latest first."""

    def prune(self, before: float) -> int:
        """Delete rates that were free before this instant, and shares of uploads that are over; returns how many."""
