"""The shapes of budgets in REST.

Rule: as `api/models.py`.
"""

from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema

from control_plane.api.bodies import Input
from control_plane.api.models import Instant, Output
from control_plane.domain.jobs.durations import read_bytes
from control_plane.presentation import instant, known_instant
from control_plane.services.gate.budgets import BudgetView
from control_plane.services.ports.gate import Share

MOST: Final = 2**40


def _rate(value: object) -> int:
    rate = read_bytes(value)
    if not 1 <= rate <= MOST:
        message = "must be 1 byte to 1 TiB a second"
        raise ValueError(message)
    return rate


BytesPerSecond = Annotated[
    int,
    PlainValidator(_rate),
    WithJsonSchema({"description": "`2MiB`, or bytes.", "anyOf": [{"type": "string"}, {"type": "integer"}]}),
]


class BudgetBody(Input):
    """How many bytes a second all clients with the label may send together, on average."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"bytes_per_second": "2MiB"}]})

    bytes_per_second: BytesPerSecond


class BudgetUse(Output):
    """An upload; its last grant, of `bytes`, is paid off at `until`."""

    client_id: str
    upload_id: str
    job_id: str | None
    bytes: int
    until: Instant

    @classmethod
    def of(cls, share: Share) -> Self:
        """The share of an upload that uses the budget."""
        return cls(
            client_id=share.client_id,
            upload_id=share.upload_id,
            job_id=share.job_id,
            bytes=share.bytes,
            until=known_instant(share.placed_at),
        )


class BudgetWaiter(Output):
    """An upload that waits. `absent`: it let its turn pass, such as a client that is offline."""

    client_id: str
    upload_id: str
    job_id: str | None
    priority: int
    since: Instant | None
    absent: bool

    @classmethod
    def of(cls, share: Share) -> Self:
        """The share of an upload that waits for the budget."""
        return cls(
            client_id=share.client_id,
            upload_id=share.upload_id,
            job_id=share.job_id,
            priority=share.priority,
            since=instant(share.since),
            absent=share.absent,
        )


class BudgetDocument(Output):
    """A budget, with some of the uploads that use it or wait for it; `waiting` is how many wait."""

    label: str
    value: str
    bytes_per_second: int
    updated_at: Instant
    spent_until: Annotated[Instant | None, Field(description="When the next grant is free; null when one is now.")]
    waiting: int
    users: list[BudgetUse]
    waiters: list[BudgetWaiter]

    @classmethod
    def of(cls, view: BudgetView) -> Self:
        """The view as JSON."""
        return cls(
            label=view.budget.label,
            value=view.budget.value,
            bytes_per_second=view.budget.rate,
            updated_at=known_instant(view.budget.updated_at),
            spent_until=instant(view.spent_until),
            waiting=view.waiting,
            users=[BudgetUse.of(share) for share in view.users],
            waiters=[BudgetWaiter.of(share) for share in view.waiters],
        )


class BudgetPage(Output):
    """Budgets by label and value; `cursor` is null on the last page."""

    budgets: list[BudgetDocument]
    cursor: str | None
