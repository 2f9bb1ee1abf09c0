"""The simulator can fail: each of these small faults, planted in what is ours, breaks a promise in few histories.

Rule: one fault is one line that somebody might write. The promise that it breaks stands beside it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from control_plane.domain import clients as presence
from control_plane.domain.uploads import machine as moves
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.events import (
    CleanupDone,
    CompletionFailed,
    CompletionProven,
    MissingFromHello,
    StepTimedOut,
)
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import Proof, Upload
from control_plane.services.commands import CommandPublisher
from control_plane.services.errors import ObjectStoreDown
from control_plane.services.maintenance import LitterReport, Maintenance
from control_plane.services.uploads import completion
from control_plane.services.uploads import writer as uploads
from control_plane.services.uploads.grants import Grant
from control_plane.services.uploads.outbox import Outbox
from device_agent import journal, transfer_parts, transfer_source, transfer_state
from device_agent import uploads as agent_uploads
from device_agent.agent import Agent
from device_agent.commands import Commands
from device_agent.disk import replace_file
from device_agent.errors import JournalError
from device_agent.journal import Journal
from device_agent.records import Began, PartKept
from device_agent.transfer_steps import advance
from schemas.codec import decode_command
from schemas.messages import Command
from tests.simulation.disk import DiskOs
from tests.simulation.history import Failure, play

SEEDS = 2_000
Plant = Callable[[pytest.MonkeyPatch], None]

pytestmark = pytest.mark.timeout(120)


def no_journal_for_etags(patch: pytest.MonkeyPatch) -> None:
    keep = Journal.append
    patch.setattr(Journal, "append", lambda self, one: None if isinstance(one, PartKept) else keep(self, one))


def parts_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a crash leaves of the parts is read and not understood."""
    patch.setattr(transfer_state, "_replay_part", lambda one, _record: one)


def later_attempts_not_kept(patch: pytest.MonkeyPatch) -> None:
    """The journal knows the upload, so its command is taken for one that it holds."""
    keep = Journal.append

    def careless(self: Journal, one: Any) -> None:  # noqa: ANN401
        if not (isinstance(one, Began) and one.order.attempt > 1):
            keep(self, one)

    patch.setattr(Journal, "append", careless)


def poison_taken_for_a_bug(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Commands, "receive", lambda self, data, now: self._obey(decode_command(data), now))


def no_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiskOs, "fdatasync", lambda _self, _descriptor: None)


def compaction_trusted(patch: pytest.MonkeyPatch) -> None:
    """The descriptor is kept until all went well, so what follows a failure goes into the file that was replaced."""

    def compact(self: Journal, transfers: Any) -> None:  # noqa: ANN401
        frames = [journal.MAGIC, *(journal._frame(record) for record in self._all(transfers))]
        try:
            replace_file(self.path, frames)
        except OSError as error:
            raise JournalError from error
        self._let_go()
        self._find()

    patch.setattr(Journal, "compact", compact)


def ack_before_persist(patch: pytest.MonkeyPatch) -> None:
    obey = Agent._obey

    def hasty(self: Agent, data: bytes, token: Any) -> None:  # noqa: ANN401
        obey(self, data, token)
        self._connection.ack(token)

    patch.setattr(Agent, "_obey", hasty)


def source_trusted(patch: pytest.MonkeyPatch) -> None:
    for module in (transfer_parts, transfer_source):
        patch.setattr(module, "source_fault", lambda _transfer, _seen: None)
    patch.setattr(transfer_source, "_is_same_file", lambda _transfer, _found: True)
    patch.setattr(agent_uploads, "restored", lambda one, _now: replace(one, digests={}))


def growth_believed(patch: pytest.MonkeyPatch) -> None:
    """Under `prefix` whatever moved is taken to have grown."""
    patch.setattr(transfer_parts, "advance", lambda one, now: advance(replace(one, moved=False), now))


def stale_will_accepted(patch: pytest.MonkeyPatch) -> None:
    judge = presence._of_this_install

    def credulous(client: presence.Client, said: Any, now: float) -> Any:  # noqa: ANN401
        return judge(replace(client, epoch=-1, sequence=-1), said, now)

    patch.setattr(presence, "_of_this_install", credulous)


def complete_believed(patch: pytest.MonkeyPatch) -> None:
    async def settle(self: completion.Completion, upload: Upload) -> completion.Settled:
        doubt = None if upload.one_put else await self._complete(upload)
        if isinstance(doubt, ObjectStoreDown):
            return self._failed(upload, "upload_gone", "no answer", again=True)
        info = await self.object_store.head(upload.s3_key)
        if info is None:
            return CompletionFailed(now=0.0, attempt=upload.attempt, error="upload_gone", text="", again=True)
        return self._proven(upload, info)

    patch.setattr(completion.Completion, "settle", settle)


def client_believed(patch: pytest.MonkeyPatch) -> None:
    """Every part was told to be stored, so the object must be there."""

    async def settle(self: completion.Completion, upload: Upload) -> completion.Settled:
        if not upload.one_put:
            await self._complete(upload)
        return CompletionProven(now=self.clock.now(), attempt=upload.attempt, proof=Proof.ETAG)

    patch.setattr(completion.Completion, "settle", settle)


def keys_used_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(moves, "_key_is_used", lambda _upload: False)


def litter_never_swept(patch: pytest.MonkeyPatch) -> None:
    async def idle(_self: Maintenance) -> LitterReport:
        return LitterReport(0, ())

    patch.setattr(Maintenance, "sweep_litter", idle)


def strays_forgotten(patch: pytest.MonkeyPatch) -> None:
    async def forget(self: Outbox, upload: Upload, s3_key: str) -> None:
        await self._writer.submit(upload.key, CleanupDone(now=0.0, target=s3_key))

    patch.setattr(Outbox, "_delete", forget)


def nobody_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    deaf = (MissingFromHello, StepTimedOut)
    patch.setattr(uploads, "apply", lambda one, event: (one, ()) if isinstance(event, deaf) else apply(one, event))


def sequence_ignored(patch: pytest.MonkeyPatch) -> None:
    def again(upload: Upload, event: Any) -> Any:  # noqa: ANN401
        after, effects = apply(replace(upload, sequence=0), event)
        return after, effects

    patch.setattr(uploads, "apply", again)


def acknowledged_too_early(patch: pytest.MonkeyPatch) -> None:
    build = CommandPublisher.build_grant

    def early(self: CommandPublisher, upload: Upload, grant: Grant) -> Command:
        return build(self, replace(upload, sequence=upload.sequence + 1), grant)

    patch.setattr(CommandPublisher, "build_grant", early)


def said_is_done(patch: pytest.MonkeyPatch) -> None:
    look = Outbox._due_at

    def trusting(self: Outbox, records: Any, upload: Upload, task: Any, now: float) -> float | None:  # noqa: ANN401
        again = look(self, records, upload, task, now)
        return None if again == now and task.tries and task.duty.kind is Kind.SEND_DOWNLOAD else again

    patch.setattr(Outbox, "_due_at", trusting)


MUTANTS: dict[Plant, tuple[str, ...]] = {
    no_journal_for_etags: ("P9",),
    parts_forgotten: ("P5",),
    later_attempts_not_kept: ("P9",),
    poison_taken_for_a_bug: ("P13",),
    no_fsync: ("P9",),
    compaction_trusted: ("P9",),
    ack_before_persist: ("P9",),
    source_trusted: ("P4",),
    growth_believed: ("P4",),
    stale_will_accepted: ("P8", "P6"),
    complete_believed: ("P2",),
    client_believed: ("P3",),
    keys_used_again: ("P2",),
    litter_never_swept: ("P6",),
    strays_forgotten: ("P2",),
    nobody_is_forgotten: ("P6",),
    sequence_ignored: ("P9",),
    acknowledged_too_early: ("P9",),
    said_is_done: ("P6",),
}
RARE: dict[Plant, int] = {source_trusted: 0, growth_believed: 8000, sequence_ignored: 0}
"""The first seed to play of each: they need several faults at the right moment, which few histories have."""


def broken_by(seeds: range) -> BaseException | None:
    """What the first of these histories that noticed has to say."""
    for seed in seeds:
        try:
            play(seed)
        except Failure as failure:
            return failure.__cause__
    return None


def a_case(plant: Plant) -> Any:  # noqa: ANN401 - pytest keeps the type of its parameters to itself
    marks = (pytest.mark.slow, pytest.mark.timeout(300)) if plant in RARE else ()
    return pytest.param(plant, marks=marks, id=plant.__name__)


@pytest.mark.parametrize("plant", [a_case(plant) for plant in MUTANTS])
def test_a_planted_fault_breaks_its_promise(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    first = RARE.get(plant, 0)
    assert str(broken_by(range(first, first + SEEDS))).startswith(MUTANTS[plant])
