"""Both sides of one upload, joined by a link that drops, repeats, delays and reorders: one seed, one history.

Rule: the two machines are the shipped ones; the rest is a model: a journal that a crash cuts, an object store that
counts, a scheduler that draws every choice from the seed. After the faults the link heals, and both sides must agree.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind, duties
from control_plane.domain.uploads.events import (
    CancelRequested,
    CleanupDone,
    CompletionFailed,
    CompletionProven,
    Dispatched,
    Event,
    GateOpened,
    Held,
    MultipartCreated,
    StepTimedOut,
)
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import OUTCOMES, TERMINAL, Proof, Upload
from control_plane.services.uploads.translate import event_of
from schemas.messages import MAX_WAIT, Response, UploadReport, Wait
from schemas.parts import MIB, to_ranges
from schemas.values import Action, DigestName, ErrorCode, PresignedPart, ResponseStatus
from tests.support.pair_device import Command, PairDevice
from tests.support.pair_store import PairStore
from tests.support.uploads import an_upload

SIZES: Final = (0, 1, 5 * MIB, 5 * MIB + 1, 23 * MIB, 38 * MIB, 90 * MIB)
STEPS: Final = 120
CALM_STEPS: Final = 4_000
STEP_TIMEOUT: Final = 300.0


class Broken(AssertionError):
    """A promise did not hold in this history."""


def require(fine: object, text: str) -> None:
    """`Broken` when a promise does not hold."""
    if not fine:
        raise Broken(text)


@dataclass
class Link:
    """Messages under way in one direction. A faulty link may lose, repeat and overtake; a healed one keeps order."""

    chance: Random
    faulty: bool = True
    waiting: list[Command | Response] = field(default_factory=list)

    def send(self, message: Command | Response) -> None:
        if self.faulty and self.chance.random() < 0.15:
            return
        copies = 2 if self.faulty and self.chance.random() < 0.15 else 1
        self.waiting += [message] * copies

    def receive(self) -> Command | Response:
        return self.waiting.pop(self.chance.randrange(len(self.waiting)) if self.faulty else 0)


class Pair:
    """One owner, one device, one store. `run` plays a whole history and checks it."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.now = 1_000.0
        self.faulty = True
        self.store = PairStore(self.chance)
        self.down, self.up = Link(self.chance), Link(self.chance)
        self.one_put = frozenset({DigestName.MD5} if self.chance.random() < 0.5 else ())
        digest = self.chance.choice([DigestName.MD5, DigestName.MD5, DigestName.NONE])
        self.upload = an_upload(deadline=1e9, digest=digest, created_at=self.now, updated_at=self.now)
        self.looked_at = self.now
        self.gate_opens_at = 0.0
        self.tells = self.chance.random() < 0.7
        """Whether the device has the capability `wait`."""
        self.device = PairDevice(self.store, self.up.send, self.chance, size=self.chance.choice(SIZES))

    def run(self) -> Upload:
        """Play the history; `Broken` names a broken promise. Returns the upload on its owner's side."""
        for _ in range(STEPS):
            self._step()
        self._heal()
        for _ in range(CALM_STEPS):
            if self._settled():
                break
            self._calm_step()
        require(self._settled(), f"not settled: {self.upload.state}, the device {self.device.state}")
        self._agree()
        return self.upload

    # The scheduler.

    def _step(self) -> None:
        choices: list[tuple[int, Callable[[], None]]] = [
            (20, self._deliver_down),
            (20, self._deliver_up),
            (24, self._work),
            (4, self._pass_time),
            (4, self._look),
            (2, lambda: self.device.tick(self.now)),
            (1, self._close_gate),
            (1, lambda: self.device.crash(self.now)),
        ]
        rare = self.chance.random()
        if rare < 0.0015:
            self._cancel()
        elif rare < 0.003:
            self.store.lose_uploads()
        self.chance.choices([act for _, act in choices], [weight for weight, _ in choices])[0]()

    def _calm_step(self) -> None:
        """Deliver everything under way; time passes only when nothing is under way."""
        if self.down.waiting:
            self._deliver_down()
        elif self.up.waiting:
            self._deliver_up()
        elif not self.device.work(self.now):
            self._pass_time()
            self.device.tick(self.now)
            self._look()

    def _work(self) -> None:
        self.device.work(self.now)

    def _pass_time(self) -> None:
        self.now += self.chance.choice([0.1, 1.0, 5.0, 30.0, STEP_TIMEOUT])

    def _heal(self) -> None:
        self.faulty = self.down.faulty = self.up.faulty = self.store.faulty = self.device.faulty = False

    def _close_gate(self) -> None:
        self.gate_opens_at = self.now + self.chance.choice([1.0, 60.0, STEP_TIMEOUT * 4])

    def _deliver_down(self) -> None:
        if self.down.waiting:
            command = self.down.receive()
            assert isinstance(command, Command)
            self.device.receive(command, self.now)

    def _deliver_up(self) -> None:
        if self.up.waiting:
            response = self.up.receive()
            assert isinstance(response, Response)
            report = response.payload
            assert isinstance(report, UploadReport)
            event = event_of(response, report, now=self.now, one_put=self.one_put)
            assert event is not None
            self._happens(event)

    # The owner.

    def _happens(self, event: Event) -> None:
        before = self.upload
        self.upload, effects = apply(before, event)
        if before.state in TERMINAL:
            require(self.upload.state is before.state, f"{before.state} became {self.upload.state}")
        for duty in effects:
            # A crash between commit and effect: `_look` finds the duty in the state again.
            if duty.due_at <= self.now and not (self.faulty and self.chance.random() < 0.1):
                self._perform(duty)

    def _look(self) -> None:
        """What the outbox does: perform all due duties, and time out a silent client."""
        silent = self.now - self.upload.touched_at >= STEP_TIMEOUT * 3
        if silent and not self.faulty and self.now - self.looked_at >= STEP_TIMEOUT * 3:
            self.looked_at = self.now
            self._happens(StepTimedOut(now=self.now))
        for duty in duties(self.upload):
            if duty.due_at <= self.now:
                self._perform(duty)

    def _cancel(self) -> None:
        if self.upload.state not in TERMINAL and self.upload.state != "completing":
            self._happens(CancelRequested(now=self.now))

    def _perform(self, duty: Duty) -> None:
        match duty.kind:
            case Kind.SEND_GRANT if self.now < self.gate_opens_at:
                self._hold()
            case Kind.SEND_DOWNLOAD | Kind.SEND_GRANT | Kind.SEND_CANCEL | Kind.SEND_CLOSE:
                self.down.send(self._command(duty.kind))
                if duty.kind is Kind.SEND_DOWNLOAD:
                    self._happens(Dispatched(now=self.now, attempt=self.upload.attempt))
                if duty.kind is Kind.SEND_GRANT and self.upload.held:
                    attempt, sequence = self.upload.attempt, self.upload.sequence
                    self._happens(GateOpened(now=self.now, attempt=attempt, sequence=sequence))
            case Kind.CREATE_MULTIPART:
                made = self.store.create(self.upload.object_token)
                if not (self.faulty and self.chance.random() < 0.2):
                    self._happens(MultipartCreated(now=self.now, attempt=duty.attempt, s3_upload_id=made))
            case Kind.COMPLETE:
                self._complete(duty)
            case Kind.ABORT_MULTIPART:
                self.store.uploads.pop(duty.target, None)
                self._happens(CleanupDone(now=self.now, target=duty.target))
            case Kind.DELETE_OBJECT:
                self.store.delete(duty.target, {stray.token for stray in self.upload.strays})
                self._happens(CleanupDone(now=self.now, target=duty.target))

    def _hold(self) -> None:
        """Grant nothing, and store and send why; an older agent gets an empty grant."""
        upload, wake_at = self.upload, min(self.gate_opens_at, self.now + STEP_TIMEOUT)
        reason = Reason(ReasonCode.JOB_PAUSED, "the gate is closed")
        held = Held(now=self.now, attempt=upload.attempt, sequence=upload.sequence, reason=reason, wake_at=wake_at)
        self._happens(held)
        if self.upload.held:
            wait = Wait(reason.text, min(MAX_WAIT, self.gate_opens_at - self.now)) if self.tells else None
            self.down.send(Command(Kind.SEND_GRANT, self.upload, self.upload.sequence, wait=wait))

    def _command(self, kind: Kind) -> Command:
        upload = self.upload
        urls: tuple[PresignedPart, ...] = ()
        lifetime = self.chance.choice([20.0, 300.0, 900.0])
        if kind is Kind.SEND_GRANT:
            place = upload.s3_upload_id or f"{upload.s3_key} {upload.object_token}"
            urls = tuple(PresignedPart(one.part_number, f"https://s3/{place}") for one in upload.to_grant)
            if urls and self.faulty:
                urls = urls[: self.chance.randint(1, len(urls))]
        completed = tuple(to_ranges(upload.stored_parts)) if kind is Kind.SEND_GRANT else ()
        outcome = OUTCOMES.get(upload.state, "unknown")
        return Command(kind, upload, upload.sequence, urls, completed, lifetime, outcome)

    def _complete(self, duty: Duty) -> None:
        upload = self.upload
        plan = upload.plan
        require(plan is not None, "completing a file of unknown size")
        assert plan is not None
        if not upload.one_put:
            assert upload.s3_upload_id is not None
            etags = {number: upload.parts[number].etag for number in plan.numbers if number in upload.parts}
            require(sorted(etags) == list(plan.numbers), f"complete names parts {sorted(etags)} of {plan.total}")
            held = self.store.parts(upload.s3_upload_id)
            require(held is None or held == etags, f"complete names {etags}, the store gave {held}")
            self.store.complete(upload.s3_key, upload.s3_upload_id)
        if self.faulty and self.chance.random() < 0.3:
            return
        if self.store.objects.get(upload.s3_key) == upload.object_token:
            self._happens(CompletionProven(now=self.now, attempt=duty.attempt, proof=Proof.ETAG))
        else:
            gone = {"error": ErrorCode.UPLOAD_GONE, "text": "no object", "again": True}
            self._happens(CompletionFailed(now=self.now, attempt=duty.attempt, **gone))  # type: ignore[arg-type]

    # The end.

    def _settled(self) -> bool:
        under_way = self.down.waiting or self.up.waiting or self.device.jobs
        due = [duty for duty in duties(self.upload) if duty.kind is not Kind.DELETE_OBJECT]
        return self.upload.state in TERMINAL and not under_way and not due and self.device.at_rest

    def _agree(self) -> None:
        require(self.store.created <= 1, f"{self.store.created} objects were created for one upload")
        if self.upload.state == "completed":
            require(self.store.objects.get(self.upload.s3_key) == self.upload.object_token, "completed without object")
        outcome = self.device.outcome
        require(
            outcome in {None, OUTCOMES[self.upload.state]}, f"the owner has {self.upload.state}, the device {outcome}"
        )


def answered(command: Command, status: ResponseStatus, code: ErrorCode | None = None) -> Response:
    """A response of the device without a sequence."""
    report = UploadReport(upload_id=command.upload.upload_id, attempt=command.upload.attempt)
    return Response(command.upload.message_id, Action.DOWNLOAD_FILE, status, report, error=code)
