"""The services put together over their ports: the same engine for the control plane and for the direct command line.

Rule: wiring only; names no adapter.
"""

import asyncio
from dataclasses import dataclass

from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.registry import ClientRegistry
from control_plane.services.clients.resync import Resync
from control_plane.services.clients.service import ClientService
from control_plane.services.commands import CommandPublisher
from control_plane.services.inbox import Inbox, Listeners
from control_plane.services.maintenance import Maintenance
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.readiness import ReadinessCheck
from control_plane.services.uploads.completion import Completion
from control_plane.services.uploads.observer import History
from control_plane.services.uploads.outbox import Outbox, Tools
from control_plane.services.uploads.service import UploadService
from control_plane.services.uploads.views import UploadViews
from control_plane.services.uploads.writer import Uploads


@dataclass(frozen=True, slots=True)
class Ports:
    """The neighbours of the services."""

    database: Database
    object_store: ObjectStore
    messenger: Messenger
    clock: Clock


@dataclass(frozen=True, slots=True)
class Engine:
    """Every service. The messenger delivers what it receives to `inbox`."""

    inbox: Inbox
    uploads: Uploads
    outbox: Outbox
    registry: ClientRegistry
    resync: Resync
    maintenance: Maintenance
    probe: ObjectStoreProbe
    upload_service: UploadService
    client_service: ClientService
    readiness: ReadinessCheck
    clock: Clock

    async def run(self) -> None:
        """Run every loop until cancelled."""
        async with asyncio.TaskGroup() as group:
            for loop in (self.uploads, self.outbox, self.registry, self.resync, self.maintenance, self.probe):
                group.create_task(loop.run(), name=type(loop).__name__)


def build_engine(ports: Ports, log: EventLog, policy: Policy) -> Engine:
    """Wire the services over these neighbours."""
    database, object_store, messenger, clock = ports.database, ports.object_store, ports.messenger, ports.clock
    probe = ObjectStoreProbe(object_store, log)
    uploads = Uploads(database, clock, log, owner=policy.owner, step_timeout=policy.step_timeout)
    commands = CommandPublisher(messenger, object_store, probe, clock, policy)
    completion = Completion(object_store, probe, clock, policy)
    tools = Tools(database, object_store, clock, log, commands, completion)
    outbox = Outbox(uploads, tools, step_timeout=policy.step_timeout)
    uploads.performs_with(outbox.perform)
    registry = ClientRegistry(database, clock, log)
    registry.wakes(outbox.poke)
    queries = ClientQueries(messenger)
    resync = Resync(database, clock, log, uploads=uploads, outbox=outbox, policy=policy)
    listeners = Listeners(uploads, registry, queries, resync, History(uploads, clock, policy))
    views = UploadViews(database, clock, outbox, policy.owner)
    return Engine(
        inbox=Inbox(listeners, clock, log, policy=policy, probing=probe),
        uploads=uploads,
        outbox=outbox,
        registry=registry,
        resync=resync,
        maintenance=Maintenance(database, object_store, clock, log, uploads=uploads, policy=policy),
        probe=probe,
        upload_service=UploadService(
            database=database,
            object_store=object_store,
            clock=clock,
            policy=policy,
            writer=uploads,
            probe=probe,
            views=views,
        ),
        client_service=ClientService(database=database, messenger=messenger, queries=queries, views=views),
        readiness=ReadinessCheck(
            database=database,
            object_store=object_store,
            messenger=messenger,
            probe=probe,
            base_path=policy.base_path,
        ),
        clock=clock,
    )
