"""The device of the pair: the real machine, a journal that a crash cuts, and effects that end in any order.

Rule: nothing is published or started before its records are in the journal; a crash may happen before that, or between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import Upload
from device_agent.errors import PutFailure
from device_agent.transfer.events import (
    Admitted,
    CancelRequested,
    CloseReceived,
    Digested,
    DigestParts,
    Effect,
    Event,
    Granted,
    Keep,
    Opened,
    OpenSource,
    PartFailed,
    PartStored,
    PublishResponse,
    PutPart,
    Rechecked,
    Repeated,
    Seen,
    StopParts,
    Tick,
    WorkerFree,
    WriteTombstone,
)
from device_agent.transfer.machine import apply, begin, derive, ready, restored, wake_at
from device_agent.transfer.model import State, Transfer
from device_agent.transfer.records import Order, TransferRecord
from device_agent.transfer.replay import replay
from device_agent.transfer.responses import outcome_response
from schemas.messages import Response, UploadReport, Wait
from schemas.values import Action, DigestName, ErrorCode, PresignedPart, ResponseStatus
from tests.support.pair_store import PairStore
from tests.support.uploads import md5_of
from tests.unit.device_agent.device import fingerprint

WORKERS = 3


@dataclass(frozen=True)
class Command:
    """A command of the owner: its upload at that moment, and the fields of this kind of command."""

    kind: Kind
    upload: Upload
    acknowledges: int = 0
    urls: tuple[PresignedPart, ...] = ()
    completed: tuple[tuple[int, int], ...] = ()
    lifetime: float = 900.0
    outcome: str = "unknown"
    wait: Wait | None = None


class PairDevice:
    """One device with one file, which never changes here."""

    def __init__(self, store: PairStore, send: Callable[[Response], None], chance: Random, *, size: int) -> None:
        self._store = store
        self._send = send
        self._chance = chance
        self._seen = Seen(fingerprint(size))
        self.faulty = True
        self.transfer: Transfer | None = None
        self.outcome: str | None = None
        self.jobs: list[Effect] = []
        self._journal: list[TransferRecord] = []
        self._stored: dict[tuple[int, int], str] = {}
        self._settled: set[tuple[int, int]] = set()

    @property
    def state(self) -> str:
        """The state of the transfer."""
        return "nothing" if self.transfer is None else self.transfer.state

    @property
    def at_rest(self) -> bool:
        """Whether only a tombstone is left."""
        return self.transfer is None

    # Commands.

    def receive(self, command: Command, now: float) -> None:
        """Carry out a command, like `device_agent.commands`."""
        attempt, known = command.upload.attempt, self.transfer
        if known is not None and attempt < known.order.attempt:
            return
        if known is not None and attempt == known.order.attempt:
            self._on(self._event(command, now))
        elif command.kind is Kind.SEND_CLOSE:
            self._close(command, now)
        elif self.outcome is not None:
            upload = command.upload
            self._send(outcome_response(upload.message_id, upload.upload_id, attempt, self.outcome))
        elif command.kind is Kind.SEND_DOWNLOAD:
            self._begin(command, now)
        elif known is not None and command.kind is Kind.SEND_CANCEL:
            self._on(CancelRequested(now=now))
        else:
            self._send(_answer_to_unknown(command))

    def _close(self, command: Command, now: float) -> None:
        if self.transfer is not None:
            self._on(CloseReceived(now=now, outcome=command.outcome))
        elif self.outcome is None:
            self.outcome = command.outcome

    def _begin(self, command: Command, now: float) -> None:
        upload = command.upload
        order = Order(
            upload_id=upload.upload_id,
            message_id=upload.message_id,
            file_path=upload.file_path or "",
            attempt=upload.attempt,
            owner=upload.owner,
            digest=upload.digest,
            chunk_size=upload.chunk_size,
        )
        self.jobs.clear()
        self.transfer, effects = begin(order, acknowledges=command.acknowledges, now=now)
        self._perform(effects)

    def _event(self, command: Command, now: float) -> Event:
        match command.kind:
            case Kind.SEND_DOWNLOAD:
                return Repeated(now=now, acknowledges=command.acknowledges)
            case Kind.SEND_CANCEL:
                return CancelRequested(now=now)
            case Kind.SEND_CLOSE:
                return CloseReceived(now=now, outcome=command.outcome)
            case _:
                return Granted(
                    now=now,
                    acknowledges=command.acknowledges,
                    completed=command.completed,
                    parts=command.urls,
                    lifetime=command.lifetime,
                    wait=command.wait,
                )

    # Work.

    def work(self, now: float) -> bool:
        """Do one pending effect; False when there is none."""
        transfer = self.transfer
        if transfer is None:
            return False
        if transfer.state is State.QUEUED:
            self._on(Admitted(now=now))
            return True
        begins = len(transfer.in_flight) < WORKERS and ready(transfer, now)
        if begins and (not self.jobs or self._chance.random() < 0.5):
            self._on(WorkerFree(now=now))
            return True
        if self.jobs:
            self._end(self.jobs.pop(self._chance.randrange(len(self.jobs))), now)
            return True
        return False

    def tick(self, now: float) -> None:
        """Send the machine a tick if one is due."""
        wake = None if self.transfer is None else wake_at(self.transfer)
        if wake is not None and now >= wake:
            self._on(Tick(now=now, jitter=self._chance.random()))

    def crash(self, now: float) -> None:
        """Lose everything that is not in the journal, start again, and publish unanswered responses again."""
        self.jobs.clear()
        transfer: Transfer | None = None
        for record in self._journal:
            transfer = replay(transfer, record)
        self.transfer = None if transfer is None or self.outcome else restored(transfer, now)
        if self.transfer is not None:
            self._perform(derive(self.transfer))

    def _end(self, job: Effect, now: float) -> None:
        match job:
            case OpenSource():
                assert self._seen.fingerprint is not None
                self._on(Opened(now=now, fingerprint=self._seen.fingerprint))
            case DigestParts(parts=parts, digest=name, recheck=recheck):
                digests = {part.number: None if name is DigestName.NONE else md5_of(part.number) for part in parts}
                self._on((Rechecked if recheck else Digested)(now=now, digests=digests))
            case PutPart(url=url, part=part):
                self._put(url, part.number, now)
            case _:
                message = f"no performer for {job}"
                raise AssertionError(message)

    def _put(self, url: PresignedPart, number: int, now: float) -> None:
        answer = self._store.put(url.url.removeprefix("https://s3/"), number)
        if isinstance(answer, PutFailure):
            jitter = self._chance.random()
            self._on(PartFailed(now=now, number=number, kind=answer, text="no", seen=self._seen, jitter=jitter))
        else:
            self._on(PartStored(now=now, number=number, etag=answer, seen=self._seen))

    def _on(self, event: Event) -> None:
        assert self.transfer is not None
        self.transfer, effects = apply(self.transfer, event)
        if self.faulty and self._chance.random() < 0.01:
            # The power fails before the journal has it.
            self.crash(event.now)
            return
        self._perform(effects)

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        self._keep(effects)
        for effect in effects:
            match effect:
                case PublishResponse(response=response):
                    self._publish(response)
                case StopParts():
                    self.jobs.clear()
                case WriteTombstone(outcome=outcome):
                    self.outcome, self.transfer = outcome, None
                    self._journal.clear()
                case PutPart(part=part):
                    assert self.transfer is not None
                    name = (self.transfer.order.attempt, part.number)
                    assert name not in self._stored, f"part {name} was stored and is sent again"
                    self.jobs.append(effect)
                case OpenSource() | DigestParts():
                    if effect not in self.jobs:
                        self.jobs.append(effect)
                case _:
                    pass

    def _keep(self, effects: tuple[Effect, ...]) -> None:
        """Append to the journal: a crash does not remove it."""
        self._journal += [effect.record for effect in effects if isinstance(effect, Keep)]
        if self.transfer is None:
            return
        attempt = self.transfer.order.attempt
        self._stored.update({(attempt, number): one.etag for number, one in self.transfer.kept.items()})
        self._settled |= {(attempt, number) for number in self.transfer.settled}

    def _publish(self, response: Response) -> None:
        report = response.payload
        assert isinstance(report, UploadReport)
        again = {(report.attempt, number) for number in report.etags} & self._settled
        assert not again, f"acknowledged etags {again} are reported again"
        self._send(response)


def _answer_to_unknown(command: Command) -> Response:
    upload = command.upload
    report = UploadReport(upload_id=upload.upload_id, attempt=upload.attempt)
    if command.kind is Kind.SEND_CANCEL:
        return Response("cancel", Action.DOWNLOAD_FILE, ResponseStatus.CANCELLED, report)
    gone = ErrorCode.UPLOAD_GONE
    return Response("grant", Action.DOWNLOAD_FILE, ResponseStatus.ERROR, report, error=gone)
