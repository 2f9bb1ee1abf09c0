"""The use cases of clients: look at them, forget one, list its files.

Rule: every method takes the calling `Principal` first; input is checked here once, for every entry point.
"""

from collections.abc import Mapping

from control_plane.domain.access import Principal
from control_plane.domain.changes import ClientForgotten
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, WaitCode
from control_plane.domain.uploads.model import OPEN
from control_plane.services.budget import IngestBudget
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.errors import BadInput, UnknownClient
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.messenger import Messenger
from control_plane.services.uploads.views import UploadView, UploadViews
from schemas.errors import SchemaError
from schemas.messages import FileList, ListFiles
from schemas.topics import Channel, require_client_id


class ClientService:
    """What a caller may do with clients."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        messenger: Messenger,
        queries: ClientQueries,
        views: UploadViews,
        budget: IngestBudget,
        beats: Beats,
    ) -> None:
        self._beats = beats
        self._database = database
        self._clock = clock
        self._budget = budget
        self._messenger = messenger
        self._queries = queries
        self._views = views

    async def client(self, _principal: Principal, client_id: str) -> Client:
        """One client; `UnknownClient`, or `BadInput` when `client_id` is no valid id."""
        check_client_id(client_id)
        client = await self._database.read(lambda records: records.clients.get(client_id))
        if client is None:
            raise UnknownClient(client_id)
        return self._beats.latest(client)

    def reason(self, client: Client, now: float) -> Reason | None:
        """Why no command is published to the client at `now` (s), or that it is noisy; None when all is well."""
        noisy = Reason(WaitCode.CLIENT_NOISY, "the client sends more messages than an agent may; the rest is dropped")
        return client.waiting_for(now) or (noisy if self._budget.noisy(client.client_id) else None)

    async def clients(
        self, _principal: Principal, labels: Mapping[str, str], page: Page
    ) -> tuple[list[Client], str | None, int]:
        """The clients with all these labels, by id; the cursor of the next page; the total count."""
        found, cursor, total = await self._database.read(lambda records: records.clients.list(labels, page))
        return [self._beats.latest(client) for client in found], cursor, total

    async def client_status(self, principal: Principal, client_id: str) -> tuple[Client, UploadView | None]:
        """A client, and its open upload with the latest change; `UnknownClient`, `BadInput`."""
        client = await self.client(principal, client_id)
        uploads = await self._database.read(lambda records: records.uploads.open_of(client_id))
        unfinished = [upload for upload in uploads if upload.state in OPEN]
        if not unfinished:
            return client, None
        return client, await self._views.of(max(unfinished, key=lambda upload: upload.updated_at))

    async def forget(self, principal: Principal, client_id: str) -> None:
        """Delete a client and clear its retained presence; its uploads stay. `UnknownClient`, `MessengerDown`."""
        await self.client(principal, client_id)
        await self._messenger.publish(Channel.PRESENCE, client_id, b"")
        now = self._clock.now()

        def work(records: Records) -> None:
            if records.clients.delete(client_id):
                records.changes.append([ClientForgotten(at=now, client_id=client_id)])

        await self._database.write(work)

    async def files(self, principal: Principal, client_id: str, request: ListFiles) -> FileList:
        """The client's files that match; `UnknownClient`, `ClientSilent`, `ClientRefused`, `MessengerDown`."""
        await self.client(principal, client_id)
        return await self._queries.files(client_id, request)


def check_client_id(client_id: str) -> None:
    """`BadInput` unless `client_id` is a valid id."""
    try:
        require_client_id(client_id)
    except SchemaError as error:
        raise BadInput(str(error)) from error
