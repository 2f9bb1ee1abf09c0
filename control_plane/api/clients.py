"""Clients over REST: list, status, details, forget, files."""

from fastapi import Request, Response

from control_plane.api import models
from control_plane.api.auth import Caller, needs
from control_plane.api.documents import problems
from control_plane.api.gates import discloses
from control_plane.api.parameters import ClientId, Clients, ClientsQuery, FilesQuery, Now
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Principal, Scope
from schemas.messages import ListFiles

router = router_of_calls(tags=["clients"])


def _sees_uploads(caller: Principal) -> bool:
    """Whether the caller may see which file a client sends."""
    return Scope.UPLOADS_READ in caller.scopes


@router.get(
    "/status/{client_id}",
    operation_id="getClientStatus",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="Look at what a client is doing",
    responses=problems(404, 422),
)
async def client_status(client_id: ClientId, clients: Clients, caller: Caller, now: Now) -> models.ClientStatus:
    """Whether the client is connected, and its unfinished upload with the latest activity.

    The upload needs the scope `uploads:read` too; without it `current_upload` is null.
    """
    client, current = await clients.client_status(caller, client_id)
    current = current if _sees_uploads(caller) else None
    return models.ClientStatus.of(client, current, now, clients.reason(client, now))


@router.get(
    "/clients",
    operation_id="listClients",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="List clients",
    responses=problems(422),
)
async def list_clients(clients: Clients, caller: Caller, now: Now, query: ClientsQuery) -> models.ClientPage:
    """Every client that ever connected or is expected, by id. With a filter, `set` names the clients that match.

    `current_upload` needs the scope `uploads:read` too; without it it is null.
    """
    found, shown = await clients.clients(caller, query.where, query.page, now), _sees_uploads(caller)
    rows = [
        models.ListedClient.listed(
            client, now, clients.reason(client, now), found.busy.get(client.client_id), uploads=shown
        )
        for client in found.clients
    ]
    return models.ClientPage(clients=rows, count=found.count, set=found.set, cursor=found.cursor)


@router.get(
    "/clients/{client_id}",
    operation_id="getClient",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="Look at one client",
    responses=problems(404, 422),
)
async def get_client(client_id: ClientId, clients: Clients, caller: Caller, now: Now) -> models.Client:
    """Everything that the client's presence reported, and why commands cannot be sent to it."""
    client = await clients.client(caller, client_id)
    return models.Client.of(client, now, clients.reason(client, now))


@router.delete(
    "/clients/{client_id}",
    operation_id="forgetClient",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Forget a client",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422),
)
async def forget_client(client_id: ClientId, clients: Clients, caller: Caller) -> None:
    """Forget a client and its retained presence; its uploads stay. A connected one returns with its next presence."""
    await clients.forget(caller, client_id)


@router.get(
    "/clients/{client_id}/files",
    operation_id="listFiles",
    openapi_extra=needs(Scope.FILES_LIST),
    summary="List files on a client",
    responses=problems(404, 422, 504),
)
async def list_files(
    request: Request, client_id: ClientId, clients: Clients, caller: Caller, query: FilesQuery
) -> models.FilePage:
    """The files of a client that match a pattern: as it lists them now, or as it last did while it does not answer."""
    discloses(request, pattern=query.pattern)
    wanted = ListFiles(query.pattern, query.limit, query.cursor, query.digest, folders=query.folders)
    return models.FilePage.of(await clients.listing(caller, client_id, wanted))
