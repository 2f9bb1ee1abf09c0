"""Queries that a client answers at once: which files it has.

Rule: no query is stored. A client that does not respond in time is silent, not broken.
"""

import asyncio
from typing import Final

from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.services.clients.listings import FoundListing, KeptListings
from control_plane.services.commands import CommandPublisher, build_list_files
from control_plane.services.errors import ClientRefused, ClientSilent, MessengerDown
from schemas.messages import Command, FileList, ListFiles, Response
from schemas.values import ResponseStatus

PATIENCE: Final = 15.0
"""Seconds that a client has to respond."""


class ClientQueries:
    """Publishes queries, and matches responses to them by `message_id`. `patience` (s) is how long one waits.

    `listings` keeps the answers of clients, where a fleet is served.
    """

    def __init__(
        self, commands: CommandPublisher, *, patience: float = PATIENCE, listings: KeptListings | None = None
    ) -> None:
        self.listings = listings
        self._commands = commands
        self._patience = patience
        self._waiting: dict[tuple[str, str], asyncio.Future[Response]] = {}

    def resolve(self, client_id: str, response: Response) -> bool:
        """Give a response to the query that waits for it; False when no query does."""
        waiting = self._waiting.pop((client_id, response.message_id), None)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(response)
        return True

    async def files(self, client_id: str, request: ListFiles) -> FileList:
        """The client's files that match; `ClientSilent`, `ClientRefused`, `MessengerDown`."""
        response = await self._query(client_id, build_list_files(request))
        return response.payload if isinstance(response.payload, FileList) else FileList()

    async def listing(self, client: Client, request: ListFiles, now: float) -> FoundListing:
        """The client's files that match at `now` (s), or its last answer to the same request while it gives none.

        Without such an answer `ClientSilent`, at once for a client that is not connected; else as `files`.
        """
        try:
            files = await self._live(client, request, now)
        except (ClientSilent, MessengerDown) as error:
            kept = None
            if self.listings is not None:
                kept = await self.listings.last(client.client_id, request, _silence(client, error, now))
            if kept is None:
                raise
            return kept
        as_of = now if self.listings is None else await self.listings.keep(client.client_id, request, files)
        return FoundListing(files, as_of)

    async def _live(self, client: Client, request: ListFiles, now: float) -> FileList:
        if not client.connected(now):
            why = client.waiting_for(now) or Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
            message = f"client {client.client_id!r} cannot be asked, and no answer to this is kept: {why.text}"
            raise ClientSilent(message)
        return await self.files(client.client_id, request)

    async def _query(self, client_id: str, command: Command) -> Response:
        name = (client_id, command.message_id)
        waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[name] = waiting
        try:
            async with asyncio.timeout(self._patience):
                await self._commands.publish(client_id, command)
                response = await waiting
        except TimeoutError:
            message = f"client {client_id!r} did not answer within {self._patience:.0f} s"
            raise ClientSilent(message) from None
        finally:
            self._waiting.pop(name, None)
        if ResponseStatus.read(response.status) is not ResponseStatus.SUCCESS:
            raise ClientRefused(response.error or response.status, response.message or "")
        return response


def _silence(client: Client, error: ClientSilent | MessengerDown, now: float) -> Reason:
    """Why a client gives no answer."""
    if isinstance(error, MessengerDown):
        return Reason(ReasonCode.BROKER_UNAVAILABLE, str(error))
    return client.waiting_for(now) or Reason(ReasonCode.AWAITING_RESPONSE, str(error))
