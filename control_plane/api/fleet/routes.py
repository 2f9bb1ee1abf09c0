"""The fleet over REST: expect clients, set labels, keep groups.

Rule: as the routers above: a body becomes the arguments of one use case.
"""

from typing import Annotated

from fastapi import Body, Depends, Path, Request, Response

from control_plane.api import models
from control_plane.api.auth import Caller, needs
from control_plane.api.documents import problems
from control_plane.api.fleet.bodies import (
    CHANGES_EXAMPLE,
    ENTRIES_BODY,
    LABELS_EXAMPLE,
    Entries,
    GroupBody,
    GroupContent,
    LabelChanges,
    LabelMap,
)
from control_plane.api.fleet.models import EnlistedClients, GroupDocument, GroupList
from control_plane.api.parameters import ClientId, Clients, Now
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.domain.groups import Group
from control_plane.services.clients.fleet import FleetService

router = router_of_calls(tags=["fleet"])


async def fleet_of(request: Request) -> FleetService:
    """The use cases of the fleet."""
    fleet: FleetService = request.app.state.fleet
    return fleet


Fleet = Annotated[FleetService, Depends(fleet_of)]
GroupName = Annotated[str, Path(description="The group's name.")]
LabelName = Annotated[str, Path(description="The label's name.")]


@router.post(
    "/clients",
    operation_id="expectClients",
    summary="Expect clients: one, a list, or a CSV",
    responses={
        201: {"model": models.Client, "description": "One client that was not known"},
        **problems(400, 415, 422),
    },
    openapi_extra={**ENTRIES_BODY, **needs(Scope.CLIENTS_ADMIN)},
)
async def expect_clients(
    response: Response, entries: Entries, fleet: Fleet, clients: Clients, caller: Caller, now: Now
) -> models.Client | EnlistedClients:
    """Name clients as part of the fleet before they connect, or after. A repeat changes nothing.

    One client is answered in full; several, a JSON array or `text/csv`, with their numbers: all are taken, or none.
    """
    if isinstance(entries, list):
        found = await fleet.expect(caller, entries)
        return EnlistedClients(clients=len(found.clients), created=found.created, changed=found.changed)
    found = await fleet.expect(caller, [entries])
    (client,) = found.clients
    if found.created:
        response.status_code = 201
        response.headers["Location"] = f"/clients/{client.client_id}"
    return models.Client.of(client, now, clients.reason(client, now))


@router.put(
    "/clients/{client_id}/labels",
    operation_id="setLabels",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Replace the labels that an operator set on a client",
    responses=problems(400, 404, 415, 422),
)
async def set_labels(
    client_id: ClientId,
    labels: Annotated[LabelMap, Body(examples=[LABELS_EXAMPLE])],
    fleet: Fleet,
    clients: Clients,
    caller: Caller,
    now: Now,
) -> models.Client:
    """They win over the labels that the device reports, which stay."""
    client = await fleet.set_labels(caller, client_id, labels)
    return models.Client.of(client, now, clients.reason(client, now))


@router.patch(
    "/clients/{client_id}/labels",
    operation_id="changeLabels",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Change some of the labels that an operator set on a client",
    responses=problems(400, 404, 415, 422),
)
async def change_labels(
    client_id: ClientId,
    changes: Annotated[LabelChanges, Body(examples=[CHANGES_EXAMPLE])],
    fleet: Fleet,
    clients: Clients,
    caller: Caller,
    now: Now,
) -> models.Client:
    """A merge patch (RFC 7396): a text sets a label, null takes it off, the others stay."""
    client = await fleet.change_labels(caller, client_id, changes)
    return models.Client.of(client, now, clients.reason(client, now))


@router.delete(
    "/clients/{client_id}/labels/{name:path}",
    operation_id="dropLabel",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Take a label off that an operator set",
    responses=problems(404, 422),
)
async def drop_label(
    client_id: ClientId, name: LabelName, fleet: Fleet, clients: Clients, caller: Caller, now: Now
) -> models.Client:
    """If the device reports this label, its value shows again. A label that is not there changes nothing."""
    client = await fleet.change_labels(caller, client_id, {name: None})
    return models.Client.of(client, now, clients.reason(client, now))


@router.get("/groups", operation_id="listGroups", openapi_extra=needs(Scope.CLIENTS_READ), summary="List groups")
async def list_groups(fleet: Fleet, caller: Caller) -> GroupList:
    """Every group, by name."""
    return GroupList.of(await fleet.groups(caller))


@router.post(
    "/groups",
    operation_id="createGroup",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Create a group: a named selection of clients",
    status_code=201,
    responses=problems(400, 404, 409, 415, 422),
)
async def create_group(response: Response, body: GroupBody, fleet: Fleet, caller: Caller, now: Now) -> GroupDocument:
    """Used as `group:NAME` wherever clients are named. The same group again changes nothing."""
    group, selected = await fleet.create_group(caller, _group(body.name, body, now))
    response.headers["Location"] = f"/groups/{group.name}"
    return GroupDocument.found(group, selected)


@router.get(
    "/groups/{name}",
    operation_id="getGroup",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="Look at one group",
    responses=problems(404),
)
async def get_group(name: GroupName, fleet: Fleet, caller: Caller) -> GroupDocument:
    """What the group selects, and how many clients that are now."""
    return GroupDocument.found(*await fleet.group(caller, name))


@router.put(
    "/groups/{name}",
    operation_id="putGroup",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Create or replace a group",
    responses={201: {"model": GroupDocument, "description": "The group is new"}, **problems(400, 404, 415, 422)},
)
async def put_group(
    response: Response, name: GroupName, body: GroupContent, fleet: Fleet, caller: Caller, now: Now
) -> GroupDocument:
    """What uses the group selects by its new content from now on; a job that exists keeps its clients."""
    group, selected, new = await fleet.put_group(caller, _group(name, body, now))
    if new:
        response.status_code = 201
        response.headers["Location"] = f"/groups/{group.name}"
    return GroupDocument.found(group, selected)


@router.delete(
    "/groups/{name}",
    operation_id="deleteGroup",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Delete a group",
    status_code=204,
    response_class=Response,
    responses=problems(404),
)
async def delete_group(name: GroupName, fleet: Fleet, caller: Caller) -> None:
    """Its clients stay. A request that names the group is refused from now on."""
    await fleet.delete_group(caller, name)


def _group(name: str, body: GroupContent, now: float) -> Group:
    return Group(
        name=name, clients=body.clients, selector=body.selector, note=body.note, created_at=now, updated_at=now
    )
