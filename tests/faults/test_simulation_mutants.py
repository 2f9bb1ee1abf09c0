"""The simulator can fail: each of these small faults, planted in the product, breaks a promise in a few histories.

Rule: one fault is one plausible mistake of one line. `MUTANTS` names the promise that it breaks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from msgspec import structs

from control_plane.domain import clients as presence
from control_plane.domain.uploads import machine
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
from control_plane.services.policy import Policy
from control_plane.services.uploads import completion, writer
from control_plane.services.uploads.grants import Grant
from control_plane.services.uploads.outbox import Outbox
from device_agent.agent import Agent
from device_agent.commands import Commands
from device_agent.errors import JournalError
from device_agent.inbox import CommandArrived
from device_agent.state import journal
from device_agent.state.atomic_file import replace_file
from device_agent.state.journal import Journal
from device_agent.transfer import advance as windows
from device_agent.transfer import handlers, replay
from device_agent.transfer import machine as device_machine
from device_agent.transfer.advance import Step, advance
from device_agent.transfer.events import Rechecked
from device_agent.transfer.model import Transfer
from device_agent.transfer.records import Began, PartKept
from schemas.codec import decode_command
from schemas.messages import Command
from schemas.parts import MIB
from schemas.values import DigestName
from tests.simulation import files, history
from tests.simulation.disk import DiskOs
from tests.simulation.history import Failure, play
from tests.simulation.world import World

SEEDS = 500
CHECKED = 100
Plant = Callable[[pytest.MonkeyPatch], None]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


# Histories in which one kind of mistake shows soon.


def always(patch: pytest.MonkeyPatch, *faults: str) -> None:
    """Histories with these faults besides the drawn ones."""

    def build(seed: int, drawn: frozenset[str], *, traced: bool) -> World:
        return World(seed, drawn | set(faults), traced=traced)

    patch.setattr(history, "World", build)


def without_digests(patch: pytest.MonkeyPatch) -> None:
    """Histories whose files change, of uploads without digests. None is under `prefix`, which needs digests."""
    always(patch, "file", "crash")
    patch.setattr(history, "Policy", partial(Policy, digest=DigestName.NONE, require_proof=False))
    patch.setattr(history, "LOGS", frozenset())


def logs_updated_midway(patch: pytest.MonkeyPatch) -> None:
    """Histories of files that take several small requests under `prefix`, and whose two ends change meanwhile.

    Only then is the first part digested before a change, and the last one after it.
    """
    always(patch, "file", "crash")
    patch.setattr(history, "LOGS", frozenset(history.PATHS))
    patch.setattr(history, "SIZES", (41 * MIB,))
    patch.setattr(history, "LARGE", 41 * MIB)
    patch.setattr(files, "LOG_WAYS", ("appended", "updated"))
    patch.setattr(windows, "WINDOW_SIZE", 10 * MIB)


def attempts_that_fail_late(patch: pytest.MonkeyPatch) -> None:
    """Histories whose uploads need several attempts, of which abandoned ones still make objects."""
    always(patch, "doubt", "file", "lost")


def journals_that_fail(patch: pytest.MonkeyPatch) -> None:
    """Histories whose journals are rewritten every few records, and whose disks fail meanwhile."""
    always(patch, "flaky", "crash")
    patch.setattr(history, "COMPACT_ABOVE", 512)
    patch.setattr(journal, "_MAX_GROWTH", 512)


# The plants.


def etags_not_journalled(patch: pytest.MonkeyPatch) -> None:
    keep = Journal.append
    patch.setattr(Journal, "append", lambda self, one: None if isinstance(one, PartKept) else keep(self, one))


def parts_not_replayed(patch: pytest.MonkeyPatch) -> None:
    """After a crash the journal's records of parts are read and ignored."""
    patch.setattr(replay, "_replay_part", lambda one, _record: one)


def later_attempts_not_journalled(patch: pytest.MonkeyPatch) -> None:
    """Only the first attempt's command is written to the journal."""
    keep = Journal.append

    def keep_first_attempts(self: Journal, one: Any) -> None:  # noqa: ANN401
        if not (isinstance(one, Began) and one.order.attempt > 1):
            keep(self, one)

    patch.setattr(Journal, "append", keep_first_attempts)


def poison_raises(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Commands, "receive", lambda self, data, now: self._dispatch(decode_command(data), now))


def no_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiskOs, "fdatasync", lambda _self, _descriptor: None)


def compaction_keeps_its_descriptor(patch: pytest.MonkeyPatch) -> None:
    """The descriptor is kept until the end, so records after a failure go into the replaced file.

    It breaks nothing where each commit looks whether the name still leads to that file, so that look is left out too.
    """
    journals_that_fail(patch)
    patch.setattr(Journal, "_is_gone", lambda _self: False)

    def compact(self: Journal, transfers: Any) -> None:  # noqa: ANN401
        frames = [journal.MAGIC, *(journal._frame(record) for record in self._all(transfers))]
        try:
            replace_file(self.path, frames)
        except OSError as error:
            raise JournalError from error
        self._close_file()
        self._find_end()

    patch.setattr(Journal, "compact", compact)


def ack_before_commit(patch: pytest.MonkeyPatch) -> None:
    receive = Agent._receive

    def early_ack(self: Agent, arrived: CommandArrived) -> None:
        receive(self, arrived)
        self._connection.ack(arrived.token)

    patch.setattr(Agent, "_receive", early_ack)


def source_changes_ignored(patch: pytest.MonkeyPatch) -> None:
    """The file is not compared after each part.

    With digests the comparison before the success covers that, so it matters where the object store takes none.
    """
    without_digests(patch)
    patch.setattr(handlers, "source_fault", lambda _transfer, _seen, _number: None)


def reopened_file_not_compared(patch: pytest.MonkeyPatch) -> None:
    """After a restart the agent continues with any file that has the name. With digests the next plant covers that."""
    without_digests(patch)
    patch.setattr(handlers, "is_same_file", lambda _transfer, _found: True)


def differing_digests_ignored(patch: pytest.MonkeyPatch) -> None:
    """Stored parts are digested again, and the digests are not compared."""
    logs_updated_midway(patch)

    def as_before(transfer: Transfer, event: Rechecked) -> Step:
        known = {number: transfer.digests.get(number) for number in event.digests}
        return handlers.rechecked(transfer, structs.replace(event, digests=known))

    patch.setitem(cast("dict[Any, Any]", device_machine.HANDLERS), Rechecked, as_before)


def any_change_counts_as_growth(patch: pytest.MonkeyPatch) -> None:
    """Under `prefix` every change of the file counts as growth."""
    logs_updated_midway(patch)
    patch.setattr(handlers, "advance", lambda one, now: advance(structs.replace(one, doubtful=False), now))


def recent_times_trusted(patch: pytest.MonkeyPatch) -> None:
    """A file counts as unchanged while its times stay, also within one tick of its file system's clock."""
    logs_updated_midway(patch)
    patch.setattr(files, "COARSE", frozenset(history.PATHS))
    patch.setattr(files.Files, "is_racy", lambda _files, _path, _found: False)


def stale_will_accepted(patch: pytest.MonkeyPatch) -> None:
    judge = presence._of_this_install

    def accept_all(client: presence.Client, message: Any, now: float, age: float) -> Any:  # noqa: ANN401
        return judge(structs.replace(client, epoch=-1, sequence=-1), message, now, age)

    patch.setattr(presence, "_of_this_install", accept_all)


def complete_response_trusted(patch: pytest.MonkeyPatch) -> None:
    async def settle(self: completion.Completion, upload: Upload) -> completion.Settled:
        doubt = None if upload.one_put else await self._complete(upload)
        if isinstance(doubt, ObjectStoreDown):
            return self._failed(upload, "upload_gone", "no answer", again=True)
        info = await self.object_store.head(upload.s3_key)
        if info is None:
            return CompletionFailed(now=0.0, attempt=upload.attempt, error="upload_gone", text="", again=True)
        return self._proven(upload, info)

    patch.setattr(completion.Completion, "settle", settle)


def client_success_trusted(patch: pytest.MonkeyPatch) -> None:
    """The client reported every part as stored, so no HEAD is sent."""

    async def settle(self: completion.Completion, upload: Upload) -> completion.Settled:
        if not upload.one_put:
            await self._complete(upload)
        return CompletionProven(now=self.clock.now(), attempt=upload.attempt, proof=Proof.ETAG)

    patch.setattr(completion.Completion, "settle", settle)


def object_keys_reused(patch: pytest.MonkeyPatch) -> None:
    attempts_that_fail_late(patch)
    patch.setattr(machine, "_key_is_used", lambda _upload: False)


def litter_not_aborted(patch: pytest.MonkeyPatch) -> None:
    async def idle(_self: Maintenance) -> LitterReport:
        return LitterReport(0, ())

    patch.setattr(Maintenance, "sweep_litter", idle)


def strays_not_deleted(patch: pytest.MonkeyPatch) -> None:
    attempts_that_fail_late(patch)

    async def forget(self: Outbox, upload: Upload, s3_key: str) -> None:
        await self._writer.submit(upload.key, CleanupDone(now=0.0, target=s3_key))

    patch.setattr(Outbox, "_delete", forget)


def old_keys_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What is open under the key of an earlier attempt is looked for under the newest key only."""
    # A late PUT replaces a part's etag, so that the completion fails.
    always(patch, "doubt", "late")
    patch.setattr(Upload, "keys", property(lambda upload: (upload.s3_key,)))


def lost_commands_ignored(patch: pytest.MonkeyPatch) -> None:
    ignored = (MissingFromHello, StepTimedOut)
    patch.setattr(writer, "apply", lambda one, event: (one, ()) if isinstance(event, ignored) else apply(one, event))


def sequence_ignored(patch: pytest.MonkeyPatch) -> None:
    always(patch, "replay", "dup", "reorder")

    def again(upload: Upload, event: Any) -> Any:  # noqa: ANN401
        after, effects = apply(structs.replace(upload, sequence=0), event)
        return after, effects

    patch.setattr(writer, "apply", again)


def acknowledged_before_commit(patch: pytest.MonkeyPatch) -> None:
    build = CommandPublisher.build_grant

    def early(self: CommandPublisher, upload: Upload, grant: Grant, *, rate: int | None = None) -> Command:
        return build(self, structs.replace(upload, sequence=upload.sequence + 1), grant, rate=rate)

    patch.setattr(CommandPublisher, "build_grant", early)


def sent_command_counts_as_done(patch: pytest.MonkeyPatch) -> None:
    look = Outbox._due_at

    def never_again(self: Outbox, records: Any, upload: Upload, task: Any, now: float) -> float | None:  # noqa: ANN401
        again = look(self, records, upload, task, now)
        return None if again == now and task.tries and task.duty.kind is Kind.SEND_DOWNLOAD else again

    patch.setattr(Outbox, "_due_at", never_again)


MUTANTS: dict[Plant, tuple[str, ...]] = {
    etags_not_journalled: ("P9",),
    parts_not_replayed: ("P5",),
    later_attempts_not_journalled: ("P9",),
    poison_raises: ("P13",),
    no_fsync: ("P9",),
    compaction_keeps_its_descriptor: ("P9",),
    ack_before_commit: ("P9",),
    source_changes_ignored: ("P4",),
    reopened_file_not_compared: ("P4",),
    differing_digests_ignored: ("P4",),
    any_change_counts_as_growth: ("P4",),
    recent_times_trusted: ("P4",),
    stale_will_accepted: ("P8", "P6"),
    complete_response_trusted: ("P2",),
    client_success_trusted: ("P3",),
    object_keys_reused: ("P2",),
    litter_not_aborted: ("P6",),
    strays_not_deleted: ("P2",),
    old_keys_forgotten: ("P6",),
    lost_commands_ignored: ("P6",),
    sequence_ignored: ("P9",),
    acknowledged_before_commit: ("P9",),
    sent_command_counts_as_done: ("P6",),
}


def broken_by(seeds: range) -> BaseException | None:
    """The failure of the first of these histories that breaks a promise; None when none does."""
    for seed in seeds:
        try:
            play(seed)
        except Failure as failure:
            return failure.__cause__
    return None


@pytest.mark.parametrize("plant", [pytest.param(plant, id=plant.__name__) for plant in MUTANTS])
def test_a_planted_fault_breaks_its_promise(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert str(broken_by(range(SEEDS))).startswith(MUTANTS[plant])


@pytest.mark.parametrize(
    "choose",
    [without_digests, logs_updated_midway, attempts_that_fail_late, journals_that_fail],
    ids=lambda it: it.__name__,
)
def test_without_a_plant_such_histories_keep_every_promise(choose: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(monkeypatch)
    assert broken_by(range(CHECKED)) is None
