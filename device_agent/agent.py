"""The loop: what arrives becomes an event, an event changes an upload, and what that asks for is done.

Rule: one thread owns all state. Nothing is said, acknowledged or begun before the journal holds what it relies on, and
one fsync serves everything that arrived together, or within moments of which nobody waits for it.
"""

import logging
from collections.abc import Iterable
from typing import Final, assert_never

from device_agent.bootstrap import Doors, doors_of
from device_agent.commands import Commands, Inquiry
from device_agent.effects import PUT
from device_agent.errors import JournalError
from device_agent.inbox import Answered, BirthArrived, CommandArrived, Connected, Disconnected, JobDone, Mail, StopAsked
from device_agent.mqtt.connection import AckToken
from device_agent.mqtt.presence import Announcer
from device_agent.mqtt.publisher import Letter, Voice
from device_agent.mqtt.status import Telemetry
from device_agent.queries import answer_inquiry
from device_agent.settings import Settings
from device_agent.state.installation import Identity
from device_agent.state.journal import Journal
from device_agent.transfer.events import DigestParts, Effect, OpenSource, PartStored, PutPart, Say
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
        identity: Identity,
        doors: Doors | None = None,
    ) -> None:
        self._doors = doors = doors or doors_of(settings)
        self._journal = journal
        self._identity = identity
        self._roots = settings.roots
        self._mailbox, self._jobs, self._clock = doors.mailbox, doors.jobs, doors.clock
        self._jobs.sweep_copies([transfer.order for transfer in transfers.values()])
        self._uploads = Uploads(
            journal, transfers.values(), workers=settings.max_parallel_parts, now=doors.clock(), wall=doors.wall
        )
        self._announcer = Announcer(
            settings.client_id, identity, labels=settings.labels, default_file=settings.file_path
        )
        self._connection = doors.connect(self._announcer.will)
        self._voice = Voice(self._announcer, Telemetry(settings.client_id, doors.system_info), self._publish)
        self._commands = Commands(
            self._uploads,
            journal,
            install_id=identity.install_id,
            default_file=settings.file_path,
            check_url=doors.check_url,
            say=self._voice.say,
            inquire=self._inquire,
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
        self._mailbox.put(StopAsked())

    def run(self) -> None:
        """Work until `stop`."""
        self.start()
        patience = self.turn(())
        while not self._stopping:
            patience = self.turn(self._mailbox.take(patience))
        log.info("stopping")
        self._leave()

    def _leave(self) -> None:
        """Stop what is under way, keep what is stored by now, and say good-bye."""
        for run in self._uploads:
            run.life.end()
        self._jobs.stop()
        while arrived := self._mailbox.take(0.0):
            for mail in arrived:
                # Whatever else happened happens again on the next start.
                if isinstance(mail, JobDone) and isinstance(mail.event, PartStored):
                    self._job_done(mail)
        try:
            self._journal.commit()
        except JournalError as error:
            log.error("%s", error)  # noqa: TRY400 (a full disk, not a bug of ours)
        self._connection.stop(self._announcer.farewell())

    def start(self) -> None:
        """Begin to connect, and to work on what the journal held."""
        self._jobs.start()
        self._connection.start()

    def turn(self, arrived: Iterable[Mail]) -> float:
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
        if self._voice.hello_due(now):
            self._greet()
        if self._retry_at is None or self._flush(now):
            self._uploads.tick(now, self._doors.chance())
            self._uploads.schedule(now)
            self._flush(now)
        active = [run for run in self._uploads if not run.ended and not run.fresh]
        self._voice.speak(now, active, "the device's disk is full" if self._retry_at else None)

    def _sleep(self) -> float:
        now = self._clock()
        wake = self._uploads.next_wake() if self._retry_at is None else self._retry_at
        moments = [moment for moment in (wake, self._commit_at, self._voice.next_at(now)) if moment is not None]
        return min(max(0.0, min(moments, default=now + _LONGEST_SLEEP) - now), _LONGEST_SLEEP)

    # What arrives.

    def _read(self, mail: Mail) -> None:
        match mail:
            case CommandArrived(data=data, token=token):
                self._obey(data, token)
            case JobDone():
                self._job_done(mail)
            case Connected():
                log.info("connected: epoch=%d", self._identity.epoch)
                self._voice.connect(self._clock(), self._identity.install_id, self._transfers())
                self._say_all_again()
            case Disconnected():
                self._voice.disconnect()
            case BirthArrived():
                self._voice.plan_hello(self._clock())
            case Answered(response=response):
                self._voice.say(response)
            case StopAsked():
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
            self._acks.append((token, self._journal.unkept(waiting)))

    def _job_done(self, done: JobDone) -> None:
        self._jobs.ended(done)
        self._uploads.job_ended(done.life, sends=done.kind == PUT)
        stored = isinstance(done.event, PartStored)
        if stored:
            self._sample(done)
        if done.kind == PUT:
            self._uploads.stores.heard(done.url, done.event)
        current = self._uploads.get(done.run.upload_id) is done.run
        # A resumed upload has the old life until it is admitted; of that one only a stored part still means something.
        alive = done.run.life is done.life and not done.life.stopped.is_set()
        if current and (stored or alive):
            self._uploads.tell(done.run, done.event)

    def _sample(self, done: JobDone) -> None:
        """Learn how fast one part travels, from parts large enough to tell."""
        if done.size >= _SMALLEST_SAMPLE and done.seconds > 0:
            rate, known = done.size / done.seconds, self._uploads.rate
            self._uploads.rate = rate if known is None else known + _SAMPLE_WEIGHT * (rate - known)

    def _greet(self) -> None:
        self._voice.hello(self._identity.install_id, self._transfers())
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
        self._commands.no_space = False
        for run, effect in self._uploads.take_effects():
            self._perform(run, effect)
        while self._uploads.over:
            self._jobs.discard_copy(self._uploads.over.pop())
        self._acknowledge(frozenset())
        self._journal.compact_if_due(self._transfers)
        return True

    def _lingers(self, now: float) -> bool:
        """Whether nothing but an acknowledgement to the broker waits for the commit: then it may soon serve more.

        A stored part is kept at once, or a crash would have it sent again.
        """
        uploads = self._uploads
        relied_on = uploads.effects or uploads.over or uploads.parts_unkept or self._voice.has_words
        if relied_on or self._retry_at is not None or not self._journal.pending:
            return False
        self._commit_at = now + LINGER if self._commit_at is None else self._commit_at
        return now < self._commit_at

    def _disk_full(self, error: JournalError, now: float) -> None:
        """What is new is refused, and so told; what is known waits until the disk takes it."""
        log.error("%s", error)
        self._commit_at = None
        self._retry_at, self._commands.no_space = now + FULL_DISK_PAUSE, True
        for run in self._uploads.fresh():
            self._uploads.forget(run)
            self._commands.refuse_unkept(run)
        # Those that were refused rely on nothing any more, and would soon keep every other command out.
        self._acknowledge(self._journal.unkept())

    def _acknowledge(self, unkept: frozenset[str]) -> None:
        """Acknowledge every command but those that rely on what is not kept."""
        for token, about in self._acks:
            if not about & unkept:
                self._connection.ack(token)
        self._acks = [(token, about) for token, about in self._acks if about & unkept]

    def _perform(self, run: Run, effect: Effect) -> None:
        match effect:
            case Say(response=response):
                self._voice.say(response, key=run.upload_id)
            case OpenSource():
                # Derived for a new connection, it may be overtaken by the opening that was under way.
                if run.transfer.state is State.OPENING:
                    self._jobs.open(run, effect)
            case DigestParts():
                self._jobs.digest(run, effect)
            case PutPart():
                self._jobs.put(run, effect)
            case _:
                log.error("nobody performs %s", type(effect).__name__)

    # The world.

    def _publish(self, letter: Letter) -> bool:
        return self._connection.publish(letter.channel, letter.data, expiry=letter.expiry)

    def _inquire(self, command: Command, question: Inquiry) -> None:
        active = sum(not run.ended for run in self._uploads)

        def job() -> None:
            response: Response = answer_inquiry(
                command, question, roots=self._roots, active_uploads=active, system_info=self._doors.system_info
            )
            self._mailbox.put(Answered(response))

        self._jobs.inquire(job)
