"""The use cases of clients: look at them, forget one, list its files.

Rule: every method takes the calling `Principal` first; input is checked here once, for every entry point.
"""

from dataclasses import dataclass

from control_plane.domain.access import Principal
from control_plane.domain.changes import ClientForgotten
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.selectors import parse
from control_plane.domain.uploads.model import OPEN
from control_plane.services.budget import IngestBudget
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.targeting import set_hash
from control_plane.services.errors import BadInput, UnknownClient
from control_plane.services.jobs.runner import JobRunner, forget_client
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import ClientPage, Database, Page, Records
from control_plane.services.ports.messenger import Messenger
from control_plane.services.uploads.views import UploadView, UploadViews
from schemas.errors import SchemaError
from schemas.messages import FileList, ListFiles
from schemas.topics import Channel, require_client_id


@dataclass(frozen=True, slots=True)
class FoundClients:
    """A page of clients, the cursor of the next one, how many match on all pages, and the hash of their ids."""

    clients: list[Client]
    cursor: str | None
    count: int
    set: str | None


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
        jobs: JobRunner | None = None,
    ) -> None:
        self._beats = beats
        self._jobs = jobs
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
        noisy = Reason(ReasonCode.CLIENT_NOISY, "the client sends more messages than an agent may; the rest is dropped")
        return client.waiting_for(now) or (noisy if self._budget.noisy(client.client_id) else None)

    async def clients(
        self, _principal: Principal, page: Page, now: float, *, selector: str | None = None, state: str | None = None
    ) -> FoundClients:
        """A page of the clients that `selector` matches and that are in `state` at `now` (s), by id.

        `SelectorError`. Without either, of all clients, and then no set is named: to hash all ids takes longer than
        the page.
        """

        def work(records: Records) -> tuple[ClientPage, str | None]:
            if selector is None and state is None:
                return records.clients.list(page), None
            client_ids = records.clients.matching((), parse(selector or ""))
            if state is not None:
                known = records.clients.among(client_ids)
                client_ids = [one for one in client_ids if self._beats.latest(known[one]).state(now) == state]
            return records.clients.list(page, client_ids), set_hash(client_ids)

        (found, cursor, count), hashed = await self._database.read(work)
        return FoundClients([self._beats.latest(client) for client in found], cursor, count, hashed)

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
                if self._jobs is not None:
                    forget_client(records, client_id, now)
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
