"""Acts on many clients over REST: change their labels, cancel their uploads.

Rule: a body names its clients one by one, or a filter with the `count` and `set` that `GET /clients` showed for it.
"""

from typing import Annotated, Any, Final, Self

from fastapi import Depends, Request
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import Input, SetCount, SetName, shown_set
from control_plane.api.documents import problems
from control_plane.api.fleet.bodies import LabelChanges
from control_plane.api.models import Output
from control_plane.api.parameters import ClientPattern, SelectorText, Uploads
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.domain.clients import ClientState
from control_plane.services.clients.choosing import MAX_NAMED, ClientChoice, ClientFilter
from control_plane.services.clients.fleet import FleetService
from schemas.topics import require_client_id

_EXAMPLE: Final[dict[str, Any]] = {"selector": "site=berlin", "count": 12, "set": "5f3da80c4dfc339e"}

router = router_of_calls(tags=["fleet"])


class ChosenClients(Input):
    """The clients of a bulk act: `clients` by id, or a filter as of `GET /clients` with its `count` and `set`."""

    clients: Annotated[
        tuple[Annotated[str, AfterValidator(require_client_id)], ...] | None, Field(min_length=1, max_length=MAX_NAMED)
    ] = None
    id: ClientPattern | None = None
    selector: SelectorText | None = None
    state: ClientState | None = None
    count: SetCount | None = None
    set: SetName | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        shown_set(self.count, self.set)
        filtered = (self.id, self.selector, self.state, self.set) != (None, None, None, None)
        if filtered == (self.clients is not None):
            message = "name clients, or a filter with its count and set, and not both"
            raise ValueError(message)
        if filtered and self.set is None:
            message = "a filter needs the count and the set that the list of clients showed for it"
            raise ValueError(message)
        return self

    @property
    def choice(self) -> ClientChoice:
        """As the services take it."""
        return ClientChoice(
            ClientFilter(self.id, self.selector, self.state),
            self.clients,
            shown_set(self.count, self.set),
        )


class LabelManyBody(Input):
    """Which clients, and which labels: a text sets one, null takes it off, the others stay."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"where": _EXAMPLE, "labels": {"ring": "beta"}}]})

    where: ChosenClients
    labels: LabelChanges


class CancelManyBody(Input):
    """Whose uploads to cancel."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"where": _EXAMPLE}]})

    where: ChosenClients


class LabelledClients(Output):
    """How many clients were meant, and how many of them have other labels now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"clients": 12, "changed": 10}]})

    clients: int
    changed: int


class CancelledUploads(Output):
    """What became of the uploads of `clients`.

    `refused` were completing, or over by then. `more`: there are further ones, for the same request again.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"clients": 12, "cancelled": 30, "refused": 1, "more": False}]}
    )

    clients: int
    cancelled: int
    refused: int
    more: bool


async def _fleet_of(request: Request) -> FleetService:
    fleet: FleetService = request.app.state.fleet
    return fleet


@router.patch(
    "/clients/labels",
    operation_id="labelClients",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Change labels of many clients",
    responses=problems(400, 404, 409, 415, 422),
)
async def label_clients(
    body: LabelManyBody, fleet: Annotated[FleetService, Depends(_fleet_of)], caller: Caller
) -> LabelledClients:
    """Of all of them, or of none. 409 with both counts when the set is no longer the one that was shown."""
    clients, changed = await fleet.label_many(caller, body.where.choice, body.labels)
    return LabelledClients(clients=clients, changed=changed)


@router.post(
    "/uploads/cancel",
    operation_id="cancelUploads",
    openapi_extra=needs(Scope.UPLOADS_WRITE),
    summary="Cancel the uploads of many clients",
    responses=problems(400, 404, 409, 415, 422),
)
async def cancel_uploads(body: CancelManyBody, uploads: Uploads, caller: Caller) -> CancelledUploads:
    """Every upload of them that is not over, each as if it were cancelled by itself."""
    found = await uploads.cancel_many(caller, body.where.choice)
    return CancelledUploads(clients=found.clients, cancelled=found.cancelled, refused=found.refused, more=found.more)
