"""The services put together over their ports: the same engine for the control plane and for the direct command line.

Rule: wiring only; names no adapter.
"""

import asyncio
from dataclasses import dataclass

from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.registry import ClientRegistry
from control_plane.services.clients.resync import Resync
from control_plane.services.commands import CommandPublisher
from control_plane.services.inbox import Inbox, Listeners
from control_plane.services.maintenance import Maintenance
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import Policy
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.completion import Completion
from control_plane.services.uploads.observer import History
from control_plane.services.uploads.outbox import Outbox, Tools
from control_plane.services.uploads.service import Neighbours, Operations
from control_plane.services.uploads.writer import Uploads


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that runs; `inbox.hear` is to be fed by the messenger."""

    uploads: Uploads
    outbox: Outbox
    presences: ClientRegistry
    hellos: Resync
    inbox: Inbox
    reaper: Maintenance
    probing: ObjectStoreProbe
    operations: Operations

    async def run(self) -> None:
        """Run every loop until cancelled."""
        async with asyncio.TaskGroup() as group:
            for loop in (self.uploads, self.outbox, self.presences, self.hellos, self.reaper, self.probing):
                group.create_task(loop.run(), name=type(loop).__name__)


def build_engine(near: Neighbours, log: EventLog, policy: Policy) -> Engine:
    """Wire the services over these neighbours."""
    store, objects, clock = near.store, near.objects, near.clock
    probing = ObjectStoreProbe(objects, log)
    uploads = Uploads(store, clock, log, owner=policy.owner, step_timeout=policy.step_timeout)
    sayings = CommandPublisher(near.messenger, objects, probing, clock, policy)
    completion = Completion(objects, probing, clock, policy)
    tools = Tools(store, objects, clock, log, sayings, completion)
    outbox = Outbox(uploads, tools, step_timeout=policy.step_timeout)
    uploads.performs_with(outbox.perform)
    presences = ClientRegistry(store, clock, log)
    presences.wakes(outbox.poke)
    inquiries = ClientQueries(near.messenger)
    hellos = Resync(store, clock, log, uploads=uploads, outbox=outbox, policy=policy)
    listeners = Listeners(uploads, presences, inquiries, hellos, History(uploads, clock, policy))
    return Engine(
        uploads=uploads,
        outbox=outbox,
        presences=presences,
        hellos=hellos,
        inbox=Inbox(listeners, clock, log, policy=policy, probing=probing),
        reaper=Maintenance(store, objects, clock, log, uploads=uploads, policy=policy),
        probing=probing,
        operations=Operations(
            near, uploads=uploads, outbox=outbox, inquiries=inquiries, policy=policy, probing=probing
        ),
    )
