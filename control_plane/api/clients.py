"""Clients over REST: who there is, what one is doing, which files it has."""

from fastapi import APIRouter, Response

from control_plane.api import models
from control_plane.api.documents import problems
from control_plane.api.parameters import ClientId, ClientsQuery, FilesQuery, Services
from schemas.messages import ListFiles

router = APIRouter(tags=["clients"])


@router.get(
    "/status/{client_id}",
    operation_id="getClientStatus",
    summary="Look at what a client is doing",
    responses=problems(404, 422),
)
async def client_status(client_id: ClientId, services: Services) -> models.ClientStatus:
    """Whether the client is connected, and its unfinished upload with the latest activity."""
    client, current = await services.client_status(client_id)
    return models.ClientStatus.of(client, current, services.now())


@router.get("/clients", operation_id="listClients", summary="List clients", responses=problems(422))
async def list_clients(services: Services, query: ClientsQuery) -> models.ClientPage:
    """Every client that ever connected, by id."""
    found, cursor, total = await services.clients(query.labels, query.page)
    now = services.now()
    return models.ClientPage(clients=[models.ClientRow.of(client, now) for client in found], total=total, cursor=cursor)


@router.get(
    "/clients/{client_id}",
    operation_id="getClient",
    summary="Look at one client",
    responses=problems(404, 422),
)
async def get_client(client_id: ClientId, services: Services) -> models.Client:
    """Everything a client said of itself, and why nothing is sent to it."""
    return models.Client.of(await services.client(client_id), services.now())


@router.delete(
    "/clients/{client_id}",
    operation_id="forgetClient",
    summary="Forget a client",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422),
)
async def forget_client(client_id: ClientId, services: Services) -> None:
    """Forget a client and its retained presence; its uploads stay. One that lives comes back at its next presence."""
    await services.forget_client(client_id)


@router.get(
    "/clients/{client_id}/files",
    operation_id="listFiles",
    summary="List files on a client",
    responses=problems(404, 422, 504),
)
async def list_files(client_id: ClientId, services: Services, query: FilesQuery) -> models.FilePage:
    """Ask a client that is connected which of its files match a pattern."""
    wanted = ListFiles(pattern=query.pattern, limit=query.limit, cursor=query.cursor, digest=query.digest)
    found = await services.files(client_id, wanted)
    return models.FilePage(files=[models.File.of(entry) for entry in found.files], cursor=found.cursor)
