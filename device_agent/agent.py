"""The loop: what arrives becomes an event, an event changes an upload, and what that asks for is done.

Rule: one thread owns all state. Nothing is said, acknowledged or begun before the journal holds what it relies on, and
one fsync serves everything that arrived together, or within moments of which nobody waits for it.
"""

import logging
from collections.abc import Iterable
from typing import Final, assert_never

from device_agent.bootstrap import Environment, doors_of
from device_agent.commands import Commands, Query
from device_agent.effects import PUT
from device_agent.errors import JournalError
from device_agent.inbox import (
    BirthArrived,
    CommandArrived,
    Connected,
    Disconnected,
    EffectDone,
    LoopEvent,
    QueryAnswered,
    StopRequested,
)
from device_agent.mqtt.connection import AckToken
from device_agent.mqtt.presence import PresenceBuilder
from device_agent.mqtt.publisher import Outbound, Publisher
from device_agent.mqtt.status import StatusReporter
from device_agent.queries import answer_query
from device_agent.settings import Settings
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.transfer.events import DigestParts, Effect, OpenSource, PartStored, PublishResponse, PutPart
from device_agent.transfer.machine import derive
from device_agent.transfer.model import State, Transfer
from device_agent.uploads import Run, Uploads
from schemas.messages import Command, Response

FULL_DISK_PAUSE: Final = 5.0
LINGER: Final = 0.05
"""Seconds for which a record may wait for the next ones, and their fsync, while nothing relies on it."""

_LONGEST_SLEEP: Final = 60.0
_SMALLEST_SAMPLE: Final = 256 * 1024
_SAMPLE_WEIGHT: Final = 0.3

log = logging.getLogger(__name__)


class Agent:
    """One agent. `run` returns after `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        transfers: dict[str, Transfer],
        installation: Installation,
        environment: Environment | None = None,
    ) -> None:
        self._environment = environment = environment or doors_of(settings)
        self._journal = journal
        self._installation = installation
        self._roots = settings.roots
        self._inbox, self._runner, self._clock = environment.inbox, environment.runner, environment.clock
        self._runner.sweep_copies([transfer.order for transfer in transfers.values()])
        self._uploads = Uploads(
            journal,
            transfers.values(),
            workers=settings.max_parallel_parts,
            now=environment.clock(),
            wall=environment.wall,
        )
        self._presence = PresenceBuilder(
            settings.client_id, installation, labels=settings.labels, default_file=settings.file_path
        )
        self._connection = environment.connect(self._presence.will)
        self._publisher = Publisher(
            self._presence, StatusReporter(settings.client_id, environment.system_info), self._publish
        )
        self._commands = Commands(
            self._uploads,
            journal,
            install_id=installation.install_id,
            default_file=settings.file_path,
            check_url=environment.check_url,
            publish=self._publisher.enqueue,
            run_query=self._run_query,
        )
        self._acks: list[tuple[AckToken, frozenset[str]]] = []
        """Commands to be acknowledged, and the uploads whose records that relies on."""
        self._stopping = False
        self._commit_at: float | None = None
        """When at last what lingers is committed."""
        self._retry_at: float | None = None
        """When the journal is tried again; None while the disk takes what we write."""

    @property
    def uploads(self) -> Uploads:
        """What the device works on."""
        return self._uploads

    def stop(self) -> None:
        """End gracefully: uploads stay resumable."""
        self._inbox.put(StopRequested())

    def run(self) -> None:
        """Work until `stop`."""
        self.start()
        patience = self.turn(())
        while not self._stopping:
            patience = self.turn(self._inbox.take(patience))
        log.info("stopping")
        self._leave()

    def _leave(self) -> None:
        """Stop what is under way, keep what is stored by now, and say good-bye."""
        for run in self._uploads:
            run.session.end()
        self._runner.stop()
        while arrived := self._inbox.take(0.0):
            for mail in arrived:
                # Whatever else happened happens again on the next start.
                if isinstance(mail, EffectDone) and isinstance(mail.event, PartStored):
                    self._effect_done(mail)
        try:
            self._journal.commit()
        except JournalError as error:
            log.error("%s", error)  # noqa: TRY400 (a full disk, not a bug of ours)
        self._connection.stop(self._presence.offline())

    def start(self) -> None:
        """Begin to connect, and to work on what the journal held."""
        self._runner.start()
        self._connection.start()

    def turn(self, arrived: Iterable[LoopEvent]) -> float:
        """Read what arrived and do whatever is due; for how many seconds nothing else is."""
        for mail in arrived:
            self._read(mail)
        if self._stopping:
            return 0.0
        self._work()
        return self._sleep()

    def _work(self) -> None:
        """Do whatever is due."""
        now = self._clock()
        if self._publisher.hello_due(now):
            self._greet()
        if self._retry_at is None or self._flush(now):
            self._uploads.tick(now, self._environment.chance())
            self._uploads.schedule(now)
            self._flush(now)
        active = [run for run in self._uploads if not run.ended and not run.fresh]
        self._publisher.flush(now, active, "the device's disk is full" if self._retry_at else None)

    def _sleep(self) -> float:
        now = self._clock()
        wake = self._uploads.next_wake() if self._retry_at is None else self._retry_at
        moments = [moment for moment in (wake, self._commit_at, self._publisher.next_at(now)) if moment is not None]
        return min(max(0.0, min(moments, default=now + _LONGEST_SLEEP) - now), _LONGEST_SLEEP)

    # What arrives.

    def _read(self, mail: LoopEvent) -> None:
        match mail:
            case CommandArrived(data=data, token=token):
                self._obey(data, token)
            case EffectDone():
                self._effect_done(mail)
            case Connected():
                log.info("connected: epoch=%d", self._installation.epoch)
                self._publisher.connect(self._clock(), self._installation.install_id, self._transfers())
                self._say_all_again()
            case Disconnected():
                self._publisher.disconnect()
            case BirthArrived():
                self._publisher.plan_hello(self._clock())
            case QueryAnswered(response=response):
                self._publisher.enqueue(response)
            case StopRequested():
                self._stopping = True
            case _:
                assert_never(mail)

    def _obey(self, data: bytes, token: AckToken) -> None:
        waiting = self._journal.pending
        try:
            self._commands.receive(data, self._clock())
        except Exception:
            # A message that meets a bug of ours must not come back for ever.
            self._uploads.counters["poison"] += 1
            log.exception("a command could not be carried out")
        if self._retry_at is not None and self._journal.pending == waiting:
            # Nothing of it has to be kept; unacknowledged ones would soon keep every other command out.
            self._connection.ack(token)
        else:
            self._acks.append((token, self._journal.uncommitted(waiting)))

    def _effect_done(self, done: EffectDone) -> None:
        self._runner.ended(done)
        self._uploads.effect_done(done.session, sends=done.kind == PUT)
        stored = isinstance(done.event, PartStored)
        if stored:
            self._sample(done)
        if done.kind == PUT:
            self._uploads.host_backoff.record_result(done.url, done.event)
        current = self._uploads.get(done.run.upload_id) is done.run
        # A resumed upload has the old life until it is admitted; of that one only a stored part still means something.
        alive = done.run.session is done.session and not done.session.stopped.is_set()
        if current and (stored or alive):
            self._uploads.handle(done.run, done.event)

    def _sample(self, done: EffectDone) -> None:
        """Learn how fast one part travels, from parts large enough to tell."""
        if done.size >= _SMALLEST_SAMPLE and done.seconds > 0:
            rate, known = done.size / done.seconds, self._uploads.rate
            self._uploads.rate = rate if known is None else known + _SAMPLE_WEIGHT * (rate - known)

    def _greet(self) -> None:
        self._publisher.hello(self._installation.install_id, self._transfers())
        self._say_all_again()

    def _say_all_again(self) -> None:
        """Whatever nobody has acknowledged, and whatever else the states call for."""
        for run in self._uploads:
            self._uploads.effects += [(run, effect) for effect in derive(run.transfer)]

    def _transfers(self) -> list[Transfer]:
        return [run.transfer for run in self._uploads]

    # What is made durable, and then done.

    def _flush(self, now: float) -> bool:
        """Commit, then do what waited for it; False while the disk is full."""
        if self._retry_at is not None and now < self._retry_at:
            return False
        # Files are read meanwhile, and sent once they are granted: nothing has to be durable for that.
        for run, effect in self._uploads.take_early():
            self._perform(run, effect)
        if self._lingers(now):
            return True
        try:
            self._journal.commit()
        except JournalError as error:
            self._disk_full(error, now)
            return False
        self._commit_at = self._retry_at = None
        self._commands.disk_full = False
        for run, effect in self._uploads.take_effects():
            self._perform(run, effect)
        while self._uploads.finished_orders:
            self._runner.discard_copy(self._uploads.finished_orders.pop())
        self._acknowledge(frozenset())
        self._journal.compact_if_due(self._transfers)
        return True

    def _lingers(self, now: float) -> bool:
        """Whether nothing but an acknowledgement to the broker waits for the commit: then it may soon serve more.

        A stored part is kept at once, or a crash would have it sent again.
        """
        uploads = self._uploads
        relied_on = uploads.effects or uploads.finished_orders or uploads.parts_unsaved or self._publisher.has_unsent
        if relied_on or self._retry_at is not None or not self._journal.pending:
            return False
        self._commit_at = now + LINGER if self._commit_at is None else self._commit_at
        return now < self._commit_at

    def _disk_full(self, error: JournalError, now: float) -> None:
        """What is new is refused, and so told; what is known waits until the disk takes it."""
        log.error("%s", error)
        self._commit_at = None
        self._retry_at, self._commands.disk_full = now + FULL_DISK_PAUSE, True
        for run in self._uploads.fresh():
            self._uploads.discard(run)
            self._commands.refuse_unsaved(run)
        # Those that were refused rely on nothing any more, and would soon keep every other command out.
        self._acknowledge(self._journal.uncommitted())

    def _acknowledge(self, uncommitted: frozenset[str]) -> None:
        """Acknowledge every command but those that rely on what is not kept."""
        for token, about in self._acks:
            if not about & uncommitted:
                self._connection.ack(token)
        self._acks = [(token, about) for token, about in self._acks if about & uncommitted]

    def _perform(self, run: Run, effect: Effect) -> None:
        match effect:
            case PublishResponse(response=response):
                self._publisher.enqueue(response, key=run.upload_id)
            case OpenSource():
                # Derived for a new connection, it may be overtaken by the opening that was under way.
                if run.transfer.state is State.OPENING:
                    self._runner.open(run, effect)
            case DigestParts():
                self._runner.digest(run, effect)
            case PutPart():
                self._runner.put(run, effect)
            case _:
                log.error("nobody performs %s", type(effect).__name__)

    # The world.

    def _publish(self, message: Outbound) -> bool:
        return self._connection.publish(message.channel, message.data, expiry=message.expiry)

    def _run_query(self, command: Command, query: Query) -> None:
        active = sum(not run.ended for run in self._uploads)

        def call() -> None:
            response: Response = answer_query(
                command, query, roots=self._roots, active_uploads=active, system_info=self._environment.system_info
            )
            self._inbox.put(QueryAnswered(response))

        self._runner.run_query(call)
