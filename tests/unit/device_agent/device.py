"""A device and an owner for the transfer machine, made of lists: no IO, no clock, no thread.

Rule: the test starts every effect, so that it decides what is lost, late or repeated.
"""

from dataclasses import dataclass, field

from msgspec.structs import replace

from device_agent.errors import PutFailure
from device_agent.transfer.events import (
    Admitted,
    Count,
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
    Seen,
    StopParts,
    WorkerFree,
    WriteTombstone,
)
from device_agent.transfer.machine import apply, begin, ready, restored
from device_agent.transfer.model import State, Transfer
from device_agent.transfer.records import Afterwards, Order, TransferRecord
from device_agent.transfer.replay import replay
from schemas.messages import Response, UploadReport
from schemas.parts import MIB
from schemas.values import Fingerprint, PresignedPart

CHUNK = 5 * MIB


def fingerprint(size: int, version: int = 1, *, metadata: int = 0) -> Fingerprint:
    return Fingerprint(size=size, mtime_ns=version, ctime_ns=version + metadata, device=1, inode=2)


def order(**changes: object) -> Order:
    about = {"upload_id": "u1", "message_id": "m1", "file_path": "/data/a.bin", **changes}
    return Order(**about)  # type: ignore[arg-type]


def urls(numbers: object, **headers: str) -> tuple[PresignedPart, ...]:
    return tuple(PresignedPart(n, f"https://store/{n}?X-Amz-Signature=s", headers) for n in numbers)  # type: ignore[attr-defined]


def report(response: Response) -> UploadReport:
    assert isinstance(response.payload, UploadReport)
    return response.payload


@dataclass
class Device:
    """Runs one transfer; its responses, records and PUTs are in lists."""

    size: int = 10 * MIB
    order: Order = field(default_factory=order)
    now: float = 100.0
    acknowledges: int = 0
    pregranted: tuple[PresignedPart, ...] = ()
    lifetime: float | None = None
    version: int = 1
    metadata: int = 0
    """Grows with every change of metadata, such as chmod."""
    racy: bool = False
    salt: str = ""
    responses: list[Response] = field(default_factory=list)
    journal: list[TransferRecord] = field(default_factory=list)
    work: list[Effect] = field(default_factory=list)
    puts: list[int] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    tombstone: str | None = None
    after: Afterwards | None = None
    stopped: int = 0
    transfer: Transfer = field(init=False)

    def __post_init__(self) -> None:
        self.transfer, effects = begin(
            self.order,
            acknowledges=self.acknowledges,
            urls=self.pregranted,
            now=self.now,
            lifetime=self.lifetime,
        )
        self._take(effects)

    @property
    def last(self) -> Response:
        return self.responses[-1]

    @property
    def wanted(self) -> list[int]:
        return [part.part_number for part in report(self.last).wanted_parts]

    def is_in(self, state: State) -> bool:
        return self.transfer.state is state

    def on(self, event: Event) -> None:
        self.transfer, effects = apply(self.transfer, event)
        self._take(effects)

    def start(self) -> None:
        """Admit, open and digest: all steps before the first answer of the owner."""
        self.on(Admitted(now=self.now))
        self.perform()

    def perform(self) -> None:
        """Do all pending file work."""
        while self.work:
            self.perform_one()

    def perform_one(self) -> None:
        match self.work.pop(0):
            case OpenSource():
                found = self.seen().fingerprint
                assert found is not None
                self.on(Opened(now=self.now, fingerprint=found, racy=self.racy))
            case DigestParts(parts=parts, recheck=recheck):
                digests = {part.number: f"d{part.number}{self.salt}" for part in parts}
                kind = Rechecked if recheck else Digested
                self.on(kind(now=self.now, digests=digests))

    def grant(self, numbers: object, *, acknowledges: int | None = None, lifetime: float | None = 900.0) -> None:
        responses = self.transfer.sequence if acknowledges is None else acknowledges
        self.on(Granted(now=self.now, acknowledges=responses, parts=urls(numbers), lifetime=lifetime))
        self.perform()

    def begin_parts(self, workers: int = 4) -> list[int]:
        """Start the parts that are ready on idle workers; their numbers."""
        before = len(self.puts)
        while len(self.transfer.in_flight) < workers and ready(self.transfer, self.now):
            self.on(WorkerFree(now=self.now))
        return self.puts[before:]

    def store(self, number: int, etag: str | None = None) -> None:
        self.on(PartStored(now=self.now, number=number, etag=etag or f'"e{number}"', seen=self.seen()))

    def fail(self, number: int, kind: PutFailure, *, retry_after: float | None = None, jitter: float = 1.0) -> None:
        self.on(
            PartFailed(
                now=self.now,
                number=number,
                kind=kind,
                text=str(kind),
                seen=self.seen(),
                retry_after=retry_after,
                jitter=jitter,
            )
        )

    def seen(self) -> Seen:
        return Seen(fingerprint=fingerprint(self.size, self.version, metadata=self.metadata))

    def send_all(self, *, workers: int = 4) -> None:
        """Act as the owner too, until the device has nothing more to send."""
        for _ in range(10_000):
            self.perform()
            if self.transfer.awaiting_grant:
                self.grant(self.wanted)
            begun = self.begin_parts(workers)
            for number in begun:
                self.store(number)
            if not begun and not self.transfer.awaiting_grant:
                return

    def restart(self) -> None:
        """Lose everything but the journal."""
        transfer: Transfer | None = None
        for record in self.journal:
            transfer = replay(transfer, record)
        assert transfer is not None
        self.transfer = restored(transfer, self.now)
        self.work.clear()

    def _take(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Keep(record=record):
                    self.journal.append(record)
                case PublishResponse(response=response):
                    self.responses.append(response)
                case PutPart(part=part):
                    self.puts.append(part.number)
                case WriteTombstone(outcome=outcome, after=after):
                    self.tombstone, self.after = outcome, after
                case StopParts():
                    self.stopped += 1
                case Count(what=what):
                    self.counted.append(what)
                case OpenSource() | DigestParts():
                    self.work.append(effect)


def durable(transfer: Transfer) -> Transfer:
    """The fields of a transfer that survive a crash."""
    fresh = Transfer(transfer.order)
    return replace(
        fresh,
        sequence=transfer.sequence,
        acknowledged=transfer.acknowledged,
        source=transfer.source,
        ending=transfer.ending,
        settled=transfer.settled,
        kept=transfer.kept,
        digests=transfer.digests,
    )
