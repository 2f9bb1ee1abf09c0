"""The use cases of clients: look at them, forget one, list its files.

Rule: every method takes the calling `Principal` first; input is checked here once, for every entry point.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act, Outcome
from control_plane.domain.changes import ClientForgotten
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import OPEN
from control_plane.services.audit.recording import record
from control_plane.services.budget import IngestBudget
from control_plane.services.clients.choosing import ClientChooser, ClientFilter
from control_plane.services.clients.history import MOST_CHANGES, History, history_of
from control_plane.services.clients.listings import FoundListing
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.reach import reach_of, require_reach
from control_plane.services.errors import BadInput, ServiceError
from control_plane.services.jobs.runner import JobRunner, forget_client
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import ClientPage, Database, OpenUploads, Page, Records
from control_plane.services.ports.messenger import Messenger
from control_plane.services.uploads.views import UploadView, UploadViews
from schemas.errors import SchemaError
from schemas.messages import FileList, ListFiles
from schemas.topics import Channel, require_client_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundClients:
    """A page of clients, the cursor of the next one, how many match on all pages, and the hash of their ids.

    `busy` has the open uploads of those that have some.
    """

    clients: list[Client]
    cursor: str | None
    count: int
    set: str | None
    busy: Mapping[str, OpenUploads] = field(default_factory=dict)


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
        chooser: ClientChooser,
        jobs: JobRunner | None = None,
    ) -> None:
        self._beats = chooser.beats
        self._chooser = chooser
        self._jobs = jobs
        self._database = database
        self._clock = clock
        self._budget = budget
        self._messenger = messenger
        self._queries = queries
        self._views = views

    async def client(self, principal: Principal, client_id: str) -> Client:
        """One client; `UnknownClient`, or `BadInput` when `client_id` is no valid id."""
        check_client_id(client_id)
        client = await self._database.read(lambda records: records.clients.get(client_id))
        return self._beats.latest(require_reach(principal, client, client_id))

    def reason(self, client: Client, now: float) -> Reason | None:
        """Why no command is published to the client at `now` (s), or that it is noisy; None when all is well."""
        noisy = Reason(ReasonCode.CLIENT_NOISY, "the client sends more messages than an agent may; the rest is dropped")
        return client.waiting_for(now) or (noisy if self._budget.noisy(client.client_id) else None)

    async def clients(self, principal: Principal, where: ClientFilter, page: Page, now: float) -> FoundClients:
        """A page of the clients that match at `now` (s), by id; `SelectorError`.

        Of all clients no set is named: to hash all ids takes longer than the page.
        """
        reach = reach_of(principal)

        def work(records: Records) -> tuple[ClientPage, list[str] | None, Mapping[str, OpenUploads]]:
            every = where == ClientFilter()
            client_ids = None if every else self._chooser.matching(records, where, now, reach)
            found = records.clients.list(page, client_ids, reach if every else None)
            return found, client_ids, records.uploads.open_among([client.client_id for client in found[0]])

        (found, cursor, count), client_ids, busy = await self._database.read(work)
        hashed = None if client_ids is None else self._chooser.sets.shown(client_ids, reach).set
        return FoundClients([self._beats.latest(client) for client in found], cursor, count, hashed, busy)

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
                target = f"client:{client_id}"
                record(records, principal, Act.CLIENT_FORGET, now, target=target, clients=[client_id])
                records.changes.append([ClientForgotten(at=now, client_id=client_id)])

        await self._database.write(work)

    async def files(self, principal: Principal, client_id: str, request: ListFiles) -> FileList:
        """The client's files that match; `UnknownClient`, `ClientSilent`, `ClientRefused`, `MessengerDown`."""
        await self.client(principal, client_id)
        return await self._listed(principal, client_id, request, self._queries.files(client_id, request))

    async def listing(self, principal: Principal, client_id: str, request: ListFiles) -> FoundListing:
        """The client's files that match, now; or as it last answered the same, while it does not answer.

        As `files`, and `ClientSilent` at once for a client that is not connected.
        """
        client = await self.client(principal, client_id)
        asked = self._queries.listing(client, request, self._clock.now())
        return await self._listed(principal, client_id, request, asked)

    async def _listed(self, principal: Principal, client_id: str, request: ListFiles, asked: Awaitable[T]) -> T:
        """The answer, once it is recorded that this caller read it; a question without an answer is recorded too."""

        async def note(outcome: Outcome, error: str) -> None:
            facts = {"pattern": request.pattern, **({"error": error} if error else {})}
            at, target = self._clock.now(), f"client:{client_id}"
            await self._database.write(
                lambda records: record(
                    records,
                    principal,
                    Act.FILES_LIST,
                    at,
                    target=target,
                    clients=[client_id],
                    detail=facts,
                    outcome=outcome,
                )
            )

        try:
            answer = await asked
        except ServiceError as error:
            await note(Outcome.FAILED, type(error).__name__)
            raise
        await note(Outcome.DONE, "")
        return answer

    async def history(self, principal: Principal, client_id: str, seconds: float) -> History:
        """When the client was connected in the last `seconds`; `UnknownClient`, `BadInput`."""
        client = await self.client(principal, client_id)
        now = self._clock.now()
        changes = await self._database.read(lambda records: records.changes.about(client_id, client_id, MOST_CHANGES))
        return history_of(client, changes, now - seconds, now)


def check_client_id(client_id: str) -> None:
    """`BadInput` unless `client_id` is a valid id."""
    try:
        require_client_id(client_id)
    except SchemaError as error:
        raise BadInput(str(error)) from error
