"""The services put together over their ports: the same engine for the control plane and for the direct command line.

Rule: wiring only; names no adapter.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from control_plane.domain.uploads.duties import close
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.budget import IngestBudget
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.choosing import ClientChooser
from control_plane.services.clients.fleet import FleetService
from control_plane.services.clients.listings import KeptListings
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.clients.registry import ClientRegistry
from control_plane.services.clients.resync import Resync
from control_plane.services.clients.service import ClientService
from control_plane.services.clients.sets import ShownSets
from control_plane.services.commands import CommandPublisher
from control_plane.services.devices.clearing import PresenceClearer
from control_plane.services.devices.pinning import KeyPinner
from control_plane.services.devices.pins import Pins
from control_plane.services.errors import UnknownUpload
from control_plane.services.events.log import ChangeLogger
from control_plane.services.gate.budgets import BudgetService
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.gate.sender import GrantSender
from control_plane.services.inbox import Inbox, UploadScope
from control_plane.services.jobs.plans import UploadPlanner
from control_plane.services.jobs.runner import JobRunner
from control_plane.services.jobs.turn import JobTools
from control_plane.services.maintenance import Maintenance
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.overview.service import OverviewService
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.ports.tracing import Tracer
from control_plane.services.readiness import ReadinessCheck
from control_plane.services.receipts.maker import ReceiptMaker, ReceiptRules
from control_plane.services.steady_clock import SteadyClock
from control_plane.services.tracing import NO_TRACES, DeviceSpans
from control_plane.services.trust.judge import Judge
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.sessions import ClientSessions
from control_plane.services.uploads.completion import Completion
from control_plane.services.uploads.grants import UrlSigner
from control_plane.services.uploads.observer import UploadObserver
from control_plane.services.uploads.outbox import Outbox
from control_plane.services.uploads.quota import Quota
from control_plane.services.uploads.service import UploadService
from control_plane.services.uploads.views import UploadViews
from control_plane.services.uploads.writer import Decision, UploadWriter
from schemas.messages import Presence
from schemas.topics import Topics

if TYPE_CHECKING:
    from schemas.signing.ed25519 import Verifier
    from schemas.signing.trust import Trust


@dataclass(frozen=True, slots=True)
class Ports:
    """The neighbours of the services."""

    database: Database
    object_store: ObjectStore
    messenger: Messenger
    clock: Clock
    tracer: Tracer = NO_TRACES
    key: ControlPlaneKey | None = None
    """Signs commands; None where no client wants them signed."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Every service. The messenger delivers what it receives to `inbox`; `uploads` is the writer."""

    ports: Ports
    inbox: Inbox
    uploads: UploadWriter
    outbox: Outbox
    registry: ClientRegistry
    beats: Beats
    chooser: ClientChooser
    resync: Resync
    maintenance: Maintenance
    probe: ObjectStoreProbe
    commands: CommandPublisher
    signer: UrlSigner
    upload_service: UploadService
    client_service: ClientService
    budget_service: BudgetService
    fleet_service: FleetService
    overview_service: OverviewService
    readiness: ReadinessCheck
    pins: Pins
    clearer: PresenceClearer
    receipts: ReceiptMaker | None = None
    """None where no receipts are made."""
    jobs: JobRunner | None = None
    """None without a database that keeps jobs."""

    @property
    def clock(self) -> Clock:
        """Both clocks of the services."""
        return self.ports.clock

    async def run(self) -> None:
        """Run every loop until cancelled."""
        async with asyncio.TaskGroup() as group:
            for loop in (
                self.uploads,
                self.outbox,
                self.registry,
                self.resync,
                self.maintenance,
                self.probe,
                self.pins,
                self.inbox.introductions,
            ):
                group.create_task(loop.run(), name=type(loop).__name__)
            if self.receipts is not None:
                group.create_task(self.receipts.run(), name="ReceiptMaker")
            if self.jobs is not None:
                group.create_task(self.jobs.run(), name=type(self.jobs).__name__)

    async def adopt(self, upload: Upload) -> Upload:
        """Insert an upload that was made elsewhere, such as on the command line; its duties are performed at once.

        Returns it as committed; `KeyTaken` when its id or object key is in use, `DatabaseUnavailable`.
        """
        return await self.uploads.create(lambda _records: upload)

    async def resume(self, key: UploadKey) -> None:
        """Perform every duty that the upload's state requires: the process that started it may have performed none.

        Only a stray object is deleted no earlier than it may be. `UnknownUpload`, `DatabaseUnavailable`.
        """
        await self.outbox.resume(key)

    async def release(self, key: UploadKey) -> None:
        """Publish the close of an upload again: the process that ended it may have stopped before its own.

        `UnknownUpload`, `DatabaseUnavailable`.
        """
        upload = await self.ports.database.read(lambda records: records.uploads.get(key))
        if upload is None:
            raise UnknownUpload(key.upload_id)
        self.outbox.perform(Decision(key, upload, close(upload, self.clock.now()), upload.attempt))

    def released(self, key: UploadKey) -> asyncio.Event:
        """The event that is set when a close for this upload is published, from the first call for it on."""
        return self.outbox.released(key)


def build_engine(
    ports: Ports,
    log: EventLog,
    policy: Policy,
    *,
    scope: UploadScope | None = None,
    performs: bool = True,
    fleet: bool = False,
    trust: Callable[[], "Trust | None"] = lambda: None,
) -> Engine:
    """Wire the services over these neighbours.

    With `scope` the inbox drops what is not about that upload. With `performs` False every duty is stored, and none is
    performed. With `fleet` jobs run and uploads pass the gate; that needs a database of SQL. `trust` gives the keys
    whose commands signed clients obey.
    """
    clock = SteadyClock(ports.clock, log)
    ports = replace(ports, clock=clock)
    database, object_store, messenger = ports.database, ports.object_store, ports.messenger
    probe = ObjectStoreProbe(object_store, log, clock_steps=lambda: clock.steps)
    clock.judged_by(lambda: probe.clock_is_wrong)
    tracer = ports.tracer
    spans = DeviceSpans(tracer, database, clock)
    pins = Pins(database)
    clearer = PresenceClearer(messenger, pins, log)
    sessions = ClientSessions(database)
    commands = CommandPublisher(
        messenger, clock, tracer, Topics(policy.topic_root), spans, ports.key, sessions, pins.dispatchable
    )
    signer = UrlSigner(object_store, probe, policy)
    beats = Beats(clock.now())
    quota = Quota(policy.max_uploads, policy.max_bytes)
    gate = GateKeeper(quota, policy.owner) if fleet else None
    writer = UploadWriter(
        database, clock, log, owner=policy.owner, step_timeout=policy.step_timeout, quota=quota, beats=beats, gate=gate
    )
    sender = GrantSender(
        database=database,
        clock=clock,
        writer=writer,
        commands=commands,
        signer=signer,
        gate=gate,
        step_timeout=policy.step_timeout,
    )
    receipts = None
    if ports.key is not None:
        beside = policy.receipts is True
        rules = ReceiptRules(ports.key.signer, lambda client_id: _key_of(pins, client_id), beside=beside)
        receipts = ReceiptMaker(
            rules,
            database=database,
            object_store=object_store,
            clock=clock,
            log=log,
            writer=writer,
            release=lambda decision: outbox.perform(decision),  # noqa: PLW0108 - the outbox is made below
        )
    completion = Completion(object_store, probe, clock, policy)
    if receipts is not None and policy.receipts is not None:
        # Without: what was begun before RECEIPTS=off is ended, or its duties and its devices would come again for ever.
        completion = replace(completion, receipts=receipts.rules.begin)
    outbox = Outbox(
        database=database,
        object_store=object_store,
        clock=clock,
        log=log,
        writer=writer,
        commands=commands,
        sender=sender,
        gate=gate,
        completion=completion,
        beats=beats,
        probe=probe,
        step_timeout=policy.step_timeout,
        performs=performs,
        receipts=None if receipts is None else receipts.perform,
    )
    probe.on_good(outbox.poke)
    # First what a device waits for, then the log.
    writer.on_commit(outbox.on_commit)
    writer.on_commit(ChangeLogger(log).on_commit)
    jobs = None
    if gate is not None:
        tools = JobTools(writer, beats, UploadPlanner(policy, probe, tracer), gate, policy.max_job_files)
        jobs = JobRunner(
            database=database,
            clock=clock,
            log=log,
            writer=writer,
            commands=commands,
            tools=tools,
            duties_begun=lambda: outbox.running,
        )
    registry = ClientRegistry(database, clock, log, beats=beats, on_woken=outbox.poke, jobs=jobs, sessions=sessions)
    resync = Resync(database, clock, log, writer=writer, outbox=outbox, gate=gate, owner=policy.owner)
    queries = ClientQueries(commands, listings=KeptListings(database, clock) if fleet else None)
    budget = IngestBudget(clock)
    views = UploadViews(database, clock, policy.owner, beats)
    chooser = ClientChooser(beats, ShownSets())
    return Engine(
        ports=ports,
        inbox=Inbox(
            clock=clock,
            log=log,
            policy=policy,
            budget=budget,
            probe=probe,
            writer=writer,
            registry=registry,
            queries=queries,
            resync=resync,
            observer=UploadObserver(writer, clock, policy, probe),
            jobs=jobs,
            scope=scope,
            spans=spans,
            judge=Judge(pins, trust, require_signed=policy.require_signed),
            sessions=sessions,
            introduce=partial(_introduce, KeyPinner(database, clock, log, pins), sessions),
            receipts=None if receipts is None else receipts.receive,
            on_revoked=clearer.heard,
        ),
        uploads=writer,
        outbox=outbox,
        registry=registry,
        beats=beats,
        chooser=chooser,
        resync=resync,
        maintenance=Maintenance(
            database, object_store, clock, log, writer=writer, policy=policy, probe=probe, fleet=fleet
        ),
        probe=probe,
        commands=commands,
        signer=signer,
        upload_service=UploadService(
            database=database,
            object_store=object_store,
            clock=clock,
            policy=policy,
            writer=writer,
            probe=probe,
            tracer=tracer,
            views=views,
            chooser=chooser,
        ),
        client_service=ClientService(
            database=database,
            clock=clock,
            messenger=messenger,
            queries=queries,
            views=views,
            budget=budget,
            chooser=chooser,
            jobs=jobs,
        ),
        budget_service=BudgetService(
            database=database, clock=clock, on_change=(lambda: None) if gate is None else gate.read_again
        ),
        overview_service=OverviewService(database, clock, beats, views, policy.owner),
        fleet_service=FleetService(database=database, clock=clock, chooser=chooser, jobs=jobs),
        readiness=ReadinessCheck(
            database=database,
            object_store=object_store,
            messenger=messenger,
            probe=probe,
            clock=clock,
            base_path=policy.base_path,
        ),
        pins=pins,
        clearer=clearer,
        receipts=receipts,
        jobs=jobs,
    )


def _key_of(pins: Pins, client_id: str) -> "Verifier | None":
    pin = pins.of(client_id)
    return None if pin is None or pin.alarm else pin.verifier


async def _introduce(pinner: KeyPinner, sessions: ClientSessions, presence: Presence) -> bool:
    """Pin the key of a first presence, and sign for its session from then on."""
    pinned = await pinner.first_presence(presence)
    if pinned:
        sessions.begin(presence)
    return pinned
