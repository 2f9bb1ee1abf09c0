"""The loop: an event changes an upload, the change becomes durable, and then its effects run.

Rule: one thread owns all state. `durability` decides what may run before the commit; everything that may take long runs
on the thread pools of `effects`.
"""

import functools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol, assert_never

from msgspec import Struct, field

from device_agent import VERSION
from device_agent.after.closed import ClosedUploads
from device_agent.after.duties import AfterDone
from device_agent.after.policy import AfterPolicy
from device_agent.commands import Commands
from device_agent.durability import CommitResult, Durability
from device_agent.effects import PUT, UNANSWERED_EVERY, EffectRunner
from device_agent.errors import JournalError
from device_agent.files.roots import Roots
from device_agent.inbox import (
    BirthArrived,
    CommandArrived,
    Connected,
    ConsentDecided,
    Disconnected,
    EffectDone,
    EventQueue,
    KeysArrived,
    LoopEvent,
    QueryAnswered,
    RetryPlanned,
    StatusAsked,
    StopRequested,
)
from device_agent.limits.limits import Limits
from device_agent.local.model import LocalStatus
from device_agent.local.reporter import LocalReporter
from device_agent.local.requests import decide
from device_agent.mqtt.presence import PresenceBuilder
from device_agent.mqtt.publisher import Outbound, Publisher
from device_agent.mqtt.session import AckToken
from device_agent.mqtt.status import StatusReporter
from device_agent.queries.answers import HealthQuery, Query, answer_query, answer_with, failed_query
from device_agent.queries.selections import SelectionMissing, Selections, WalkEnded
from device_agent.service_manager import Notifier, status_line
from device_agent.settings import Settings
from device_agent.state.consents import Consents
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.state.selections import KeptSelections
from device_agent.system_info import boot_clock
from device_agent.transfer.events import PartStored, PublishResponse
from device_agent.transfer.machine import needs_source
from device_agent.transfer.model import State, Transfer
from device_agent.uploads import UNRESPONSIVE, DeferredEffect, Run, Uploads
from device_agent.watching.exporter import Exporter
from device_agent.watching.figures import Figures
from schemas.messages import Command, Nothing, Response, SelectFiles, Selection
from schemas.topics import Channel
from schemas.values import ErrorCode, PresignedPart, SystemInfo

if TYPE_CHECKING:
    # An unsigned agent imports no PyNaCl.
    from device_agent.trust.signing import DeviceSigning

MAX_QUERIES: Final = 16
"""Queries about the device that run or wait; more are answered `busy`."""

_SHOWN: Final = tuple(str(state) for state in State if state is not State.CLOSED)
_LONGEST_SLEEP: Final = 60.0
_SMALLEST_SAMPLE: Final = 256 * 1024
_SAMPLE_WEIGHT: Final = 0.3

log = logging.getLogger(__name__)


class Network(Protocol):
    """The connection to the broker, as `device_agent.mqtt.connection.Connection` implements it."""

    @property
    def room(self) -> int:
        """Bytes of the largest payload that the broker takes."""

    def start(self) -> None:
        """Start to connect; returns at once."""

    def stop(self, offline: bytes | None = None) -> None:
        """Publish `offline` as presence, and disconnect."""

    def publish(
        self, channel: Channel, data: bytes, *, expiry: int | None = None, traceparent: str | None = None
    ) -> bool:
        """Publish a message that expires after `expiry` seconds; False when it was not accepted."""

    def ack(self, token: AckToken) -> None:
        """Acknowledge a command."""


class Environment(Struct, frozen=True):
    """Everything outside of the loop that it uses, so that a test or a simulation can replace all of it.

    `clock` never goes back, `wall` may; both in seconds. `chance` is from 0 to 1. `connect` takes the maker of wills,
    which also reads the stored presence. `signing` is None where no root of trust is stored.
    """

    inbox: EventQueue
    runner: EffectRunner
    connect: Callable[[PresenceBuilder], Network]
    check_url: Callable[[PresignedPart], object]
    system_info: Callable[[], SystemInfo]
    selections: KeptSelections
    roots: Roots = field(default_factory=Roots)
    timezone: str | None = None
    limits: Limits = field(default_factory=Limits)
    consents: Consents | None = None
    after_policy: AfterPolicy = field(default_factory=AfterPolicy)
    after_grace: float = 300.0
    metrics: Exporter = field(default_factory=Exporter)
    manager: Notifier = field(default_factory=Notifier)
    signing: "DeviceSigning | None" = None
    clock: Callable[[], float] = field(default=boot_clock)
    wall: Callable[[], float] = field(default=time.time)
    chance: Callable[[], float] = field(default=random.random)


class Agent:
    """One agent. `run` returns after `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        transfers: dict[str, Transfer],
        installation: Installation,
        environment: Environment,
    ) -> None:
        self._environment = environment
        self._journal = journal
        self._installation = installation
        journal.on_gone = self._written_again
        self._roots = environment.roots
        self._inbox, self._runner, self._clock = environment.inbox, environment.runner, environment.clock
        self._runner.sweep_copies([transfer.order for transfer in transfers.values() if needs_source(transfer)])
        self._limits = environment.limits
        self._limits.restore(journal.memory.spent)
        self._uploads = Uploads(
            journal,
            transfers.values(),
            workers=settings.max_parallel_parts,
            now=environment.clock(),
            wall=environment.wall,
            mount_of=environment.roots.mount_of,
            limits=self._limits,
            consents=environment.consents,
        )
        self._presence = PresenceBuilder(
            settings.client_id,
            installation,
            labels=settings.labels,
            default_file=settings.default_file,
            timezone=environment.timezone,
            roots=[place.written for place in environment.roots.folders],
            types=environment.roots.types,
            policy=environment.roots.policy.named,
            budget=lambda: self._limits.report(self._clock()),
            signing=environment.signing,
        )
        self._connection = environment.connect(self._presence)
        status = StatusReporter(settings.client_id, environment.system_info)
        self._publisher = Publisher(self._presence, status, self._publish, lambda: self._connection.room)
        self._durability = Durability(journal, self._connection.ack)
        self._closed = ClosedUploads(
            journal,
            self._roots,
            environment.after_policy,
            client_id=settings.client_id,
            signer=None if environment.signing is None else environment.signing.signer,
            publish=lambda response, key: self._publisher.enqueue(response, key=key),
            in_use=lambda path: any(run.transfer.order.file_path == path and not run.ended for run in self._uploads),
            run=self._runner.run_after,
            post=self._inbox.put,
            grace=environment.after_grace,
            wall=environment.wall,
        )
        self._commands = Commands(
            self._uploads,
            journal,
            installation=installation,
            default_file=settings.default_file,
            check_url=environment.check_url,
            disk_failure=lambda: self._durability.failure,
            publish=self._publisher.enqueue,
            run_query=self._run_query,
            patterns_of=environment.roots.patterns_of,
            after_refusal=environment.after_policy.refusal,
            after_acknowledged=self._closed.acknowledged,
            signing=environment.signing,
            needs_operator=environment.roots.policy.document.commands_need == "operator",
        )
        self._selections = Selections(
            environment.selections,
            self._roots,
            submit=self._runner.run_walk,
            post=self._inbox.put,
            read=self._read_selection,
            answer=lambda command, selection: self._publisher.enqueue(answer_with(command, lambda: selection)),
            fail=lambda command, code, text: self._publisher.enqueue(failed_query(command, code, text)),
            wall=environment.wall,
        )
        self._local = LocalReporter(settings, environment.roots.policy, environment.wall, environment.signing)
        self._queries: set[str] = set()
        """Message ids of the queries that were started and are not answered."""
        self._stopping = False
        self._manager = environment.manager
        self._longest_sleep = min(_LONGEST_SLEEP, self._manager.pulse or _LONGEST_SLEEP)
        self._broker = settings.mqtt_url
        self._connected = False
        self._offline_for = ""
        self._contact_at: float | None = None
        self._bytes_sent = self._parts_sent = 0
        self._metrics_at = 0.0 if environment.metrics.enabled else None

    @property
    def uploads(self) -> Uploads:
        """The uploads that are not closed."""
        return self._uploads

    def stop(self) -> None:
        """End gracefully: uploads stay resumable."""
        self._inbox.put(StopRequested())

    def run(self) -> None:
        """Work until `stop`."""
        self.start()
        timeout = self.turn(())
        self._manager.ready()
        while not self._stopping:
            timeout = self.turn(self._inbox.take(timeout))
        log.info("stopping")
        self._manager.stopping()
        self._shut_down()
        self._manager.close()

    def _shut_down(self) -> None:
        """Stop all work, keep the parts that are stored by now, and publish offline."""
        for run in self._uploads:
            # The end of the process closes the sources: a close may block on a file system that does not answer.
            run.session.stopped.set()
        self._closed.stop()
        self._selections.stop()
        self._runner.stop()
        while arrived := self._inbox.take(0.0):
            for event in arrived:
                # All other work is done again after the next start.
                if isinstance(event, EffectDone) and isinstance(event.event, PartStored):
                    self._effect_done(event)
                elif isinstance(event, EffectDone) and event.kind == PUT:
                    self._uploads.put_done(event.session, event.size, event.sent)
        self._keep_counts(others=True)
        try:
            self._journal.commit()
        except JournalError as error:
            log.error("%s", error)  # noqa: TRY400 (the disk's fault, not a bug)
        self._connection.stop(self._presence.offline())

    def start(self) -> None:
        """Start to connect, and to work on the uploads of the journal."""
        self._runner.start()
        self._environment.metrics.start()
        self._connection.start()

    def turn(self, arrived: Iterable[LoopEvent]) -> float:
        """Process events and do what is due; returns the seconds until something else is due."""
        for event in arrived:
            self._handle(event)
        if self._stopping:
            return 0.0
        self._work()
        self._manager.turned()
        return self._sleep()

    def _work(self) -> None:
        now = self._clock()
        self._selections.tick(now)
        self._uploads.unanswered(self._runner.replace_stuck(now), self._runner.lost_senders)
        if self._publisher.hello_due(now):
            self._publisher.hello(self._installation.install_id, self._transfers())
            self._uploads.derive_effects()
        if self._durability.failure is None or self._flush(now):
            self._uploads.tick(now, self._environment.chance(), connected=self._connected)
            self._uploads.schedule(now)
            self._flush(now)
        active = [run for run in self._uploads.durable() if not run.ended]
        self._publisher.flush(now, active, self._durability.failure)
        if self._metrics_at is not None and now >= self._metrics_at:
            self._metrics_at = now + self._environment.metrics.every
            self._environment.metrics.show(self._figures())
        line = status_line(
            self._broker if self._connected else None,
            offline_for=self._offline_for,
            uploads=len(active),
            failure=self._durability.failure,
        )
        self._manager.show(line, now)

    def _figures(self) -> Figures:
        """The figures of this moment."""
        wall, uploads = self._environment.wall(), self._uploads
        info = self._environment.system_info()
        if self._connected:
            self._contact_at = wall
        return Figures(
            version=VERSION,
            at=wall,
            connected=self._connected,
            contact_at=self._contact_at,
            uploads=dict.fromkeys(_SHOWN, 0) | Counter(str(run.transfer.state) for run in uploads),
            unresponsive=sum(run.session.unanswered_since is not None for run in uploads),
            journal_failing=self._durability.failure is not None,
            disk_free=info.disk_free,
            disk_total=info.disk_total,
            journal_size=self._journal.size,
            bytes_sent=self._bytes_sent,
            parts_sent=self._parts_sent,
            ended={str(outcome): count for outcome, count in uploads.outcomes.items()},
            events=dict(uploads.counters),
            budget=self._limits.budget() if self._limits.enabled else None,
        )

    def _local_status(self) -> LocalStatus:
        """The state of this moment, for a person on this device."""
        return self._local.status(
            self._uploads,
            now=self._clock(),
            journal_size=self._journal.size,
            failing=self._durability.failure,
            disk_free=self._environment.system_info().disk_free,
            limits=self._limits,
        )

    def _sleep(self) -> float:
        now = self._clock()
        durability = self._durability
        wake = self._uploads.next_wake() if durability.failure is None else durability.retry_at
        unanswered = now + UNANSWERED_EVERY if self._runner.busy else None
        moments = (
            unanswered,
            wake,
            durability.commit_at,
            self._publisher.next_at(now),
            self._selections.next_at,
            self._metrics_at,
            self._closed.next_at(connected=self._connected) if durability.failure is None else None,
            self._manager.next_at,
        )
        longest = self._longest_sleep
        earliest = min((moment for moment in moments if moment is not None), default=now + longest)
        return min(max(0.0, earliest - now), longest)

    # Events.

    def _handle(self, event: LoopEvent) -> None:
        match event:
            case CommandArrived():
                self._receive(event)
            case EffectDone():
                self._effect_done(event)
            case AfterDone():
                self._closed.done(event, self._clock())
            case Connected():
                self._connected = True
                self._limits.look_soon()
                self._local.connected()
                log.info("connected: epoch=%d", self._installation.epoch)
                self._publisher.on_connected(self._clock(), self._installation.install_id, self._transfers())
                self._uploads.derive_effects()
                self._closed.connected()
            case Disconnected(text=text):
                self._connected, self._contact_at, self._offline_for = False, self._environment.wall(), text
                self._local.disconnected()
                self._publisher.on_disconnected()
            case RetryPlanned(text=text, seconds=seconds):
                self._local.retries(text, seconds)
            case BirthArrived(data=data, signature=signature):
                if self._commands.verifies_birth(data, signature, self._clock()):
                    self._publisher.schedule_hello(self._clock())
            case KeysArrived(data=data):
                self._commands.read_keys(data, self._clock())
            case QueryAnswered(response=response):
                self._answer_query(response)
            case SelectionMissing(command=command, request=request, scope=scope):
                self._queries.discard(command.message_id)
                self._selections.missing(command, request, self._clock(), scope)
            case WalkEnded():
                self._selections.ended(event)
            case StatusAsked(answer=answer):
                answer(self._local_status())
            case ConsentDecided(data=data, answer=answer):
                answer(decide(self._uploads, data, self._clock()))
            case StopRequested():
                self._stopping = True
            case _:
                assert_never(event)

    def _receive(self, arrived: CommandArrived) -> None:
        records_before = self._journal.pending
        try:
            if arrived.retained:
                self._commands.drop_retained(self._clock())
            else:
                self._commands.receive(arrived.data, self._clock(), arrived.traceparent, arrived.signature)
        except Exception:
            # A message that meets a bug is acknowledged all the same, or the broker would send it for ever.
            self._uploads.counters["poison"] += 1
            log.exception("a command could not be carried out")
        self._durability.acknowledge_later(arrived.token, records_before)

    def _effect_done(self, done: EffectDone) -> None:
        self._runner.finished(done)
        if done.kind == PUT:
            self._uploads.put_done(done.session, done.size, done.sent)
        else:
            self._uploads.effect_done(done.session)
        stored = isinstance(done.event, PartStored)
        if stored:
            self._bytes_sent, self._parts_sent = self._bytes_sent + done.size, self._parts_sent + 1
            self._measure_rate(done)
        if done.kind == PUT:
            self._uploads.host_backoff.record_result(done.url, done.event)
        current = self._uploads.get(done.run.upload_id) is done.run
        # A resumed upload has its old session until it is admitted; from that one only a stored part still counts.
        alive = done.run.session is done.session and not done.session.stopped.is_set()
        if current and (stored or alive):
            self._uploads.handle(done.run, done.event)

    def _measure_rate(self, done: EffectDone) -> None:
        """Average the speed of one part; small parts do not show it."""
        if done.size >= _SMALLEST_SAMPLE and done.seconds > 0:
            rate, known = done.size / done.seconds, self._uploads.rate
            self._uploads.rate = rate if known is None else known + _SAMPLE_WEIGHT * (rate - known)

    def _written_again(self) -> list[Transfer]:
        """The state folder has vanished: the identity first, or a restart would be a new installation.

        And the root of trust, or a restart would obey unsigned commands.
        """
        if self._environment.signing is not None:
            self._environment.signing.save_again()
        self._installation.save_again()
        return self._transfers()

    def _transfers(self) -> list[Transfer]:
        return [run.transfer for run in self._uploads]

    # Commit, then effects.

    def _flush(self, now: float) -> bool:
        """Run what may run early, commit, and run what waited for it; False while the disk fails."""
        durability, uploads = self._durability, self._uploads
        if durability.must_wait(now):
            return False
        self._keep_counts(others=self._journal.pending > 0)
        self._perform(uploads.take_effects(durability.may_run_early))
        with self._manager.waiting_for_disk():
            result = durability.commit(now, demanded=bool(uploads.effects) or self._publisher.has_unsent)
        match result:
            case CommitResult.LINGERS:
                return True
            case CommitResult.DONE:
                self._perform(uploads.take_effects())
                durability.acknowledge_durable()
                self._closed.begin(uploads.take_afterwards())
                self._closed.work(now, connected=self._connected)
                with self._manager.waiting_for_disk():
                    self._journal.compact_if_due(self._transfers)
                return True
            case CommitResult.FAILED:
                # A new command is refused; a known upload waits until the disk takes its records.
                for run in uploads.discard_pending():
                    self._commands.refuse_unsaved(run)
                durability.acknowledge_durable()
                return False

    def _keep_counts(self, *, others: bool) -> None:
        """Append the bytes that were sent to the journal, where a part begins or `others` are written anyway."""
        record = self._limits.unwritten(others=others)
        if record is not None:
            self._journal.append(record)

    def _perform(self, effects: list[tuple[Run, DeferredEffect]]) -> None:
        for run, effect in effects:
            if isinstance(effect, PublishResponse):
                self._publisher.enqueue(effect.response, key=run.upload_id, traceparent=run.traceparent)
            else:
                self._runner.perform(run, effect)

    # Outside of the loop.

    def _publish(self, message: Outbound) -> bool:
        return self._connection.publish(
            message.channel, message.data, expiry=message.expiry, traceparent=message.traceparent
        )

    def _run_query(self, command: Command, query: Query, scope: str) -> bool:
        """Start a query of who may read the paths that `scope` stands for; False when as many wait as may."""
        if isinstance(query, SelectFiles):
            return self._selections.ask(command, query, scope)
        active = sum(not run.ended for run in self._uploads)
        answer = functools.partial(
            answer_query,
            command,
            query,
            roots=self._roots,
            active_uploads=active,
            system_info=self._environment.system_info,
        )

        if isinstance(query, HealthQuery):
            # It reads no user file, so it waits for no file system.
            self._publisher.enqueue(answer())
            return True
        return self._on_worker(command, lambda: self._inbox.put(QueryAnswered(answer())))

    def _read_selection(
        self, command: Command, request: SelectFiles, page: Callable[[], Selection | None], scope: str
    ) -> bool:
        """Read a page; what is not kept becomes `SelectionMissing`."""

        def read() -> None:
            response = answer_with(command, lambda: page() or Nothing())
            missing = response.error is None and isinstance(response.payload, Nothing)
            self._inbox.put(SelectionMissing(command, request, scope) if missing else QueryAnswered(response))

        return self._on_worker(command, read)

    def _on_worker(self, command: Command, call: Callable[[], None]) -> bool:
        """Run a query that ends in an event; False when as many wait as may. The same one runs once."""

        def unanswered() -> None:
            text = f"{UNRESPONSIVE}: a file system of the device does not answer"
            self._answer_query(failed_query(command, ErrorCode.INTERNAL, text))

        if command.message_id in self._queries:
            return True
        if len(self._queries) >= MAX_QUERIES:
            return False
        self._queries.add(command.message_id)
        if self._runner.takes_queries:
            self._runner.run_query(call, unanswered)
        else:
            unanswered()
        return True

    def _answer_query(self, response: Response) -> None:
        """Publish the answer to a query, once: a file system may answer after the query has failed."""
        if response.message_id in self._queries:
            self._queries.remove(response.message_id)
            self._publisher.enqueue(response)
