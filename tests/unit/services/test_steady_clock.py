"""The clock of the services, and what a wrong clock of the machine must not do.

Rule: the wall clock and the monotonic clock are moved one by one, and no test waits.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import pytest
from msgspec.structs import replace

from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import State
from control_plane.services.errors import ClocksDiffer, ObjectStoreDown
from control_plane.services.policy import DAY
from control_plane.services.ports.database import PARKED, OutboxEntry, Records, Subject
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.steady_clock import LASTS, SteadyClock
from control_plane.services.uploads.outbox import LONGEST_RETRY
from schemas.values import DigestName
from tests.support.fakes import CLIENT, OPERATOR, FakeClock, FakeObjects, Rig
from tests.support.uploads import an_upload

HOUR: Final = 3_600.0
ROOM: Final = 90_000


def put(records: Records, entry: OutboxEntry) -> None:
    """Store one entry."""
    records.outbox.put(entry)


class TwoClocks:
    """A wall clock and a monotonic clock."""

    def __init__(self) -> None:
        self.wall = 1_000_000.0
        self.span = 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.span

    def pass_time(self, seconds: float) -> None:
        """Both clocks run."""
        self.wall += seconds
        self.span += seconds


class Watched:
    """A steady clock, and what it logs."""

    def __init__(self) -> None:
        self.machine = TwoClocks()
        self.logged: list[str] = []
        self.clock = SteadyClock(self.machine, self._log)

    def _log(self, event: str, _facts: Mapping[str, Any]) -> None:
        self.logged.append(event)


@pytest.mark.parametrize("step", [-3 * HOUR, 8 * DAY, 6.0])
def test_a_step_of_the_clock_is_not_followed_before_it_has_lasted(step: float) -> None:
    """The kind: instants of a wall clock compared without a bound. Spans are those of the monotonic clock."""
    watched = Watched()
    before = watched.clock.now()
    watched.machine.wall += step
    assert watched.clock.now() == before
    assert f"{step:+.0f} s" in (watched.clock.warning or "")
    watched.machine.pass_time(LASTS - 1)
    assert watched.clock.now() == before + LASTS - 1
    watched.machine.pass_time(1)
    assert watched.clock.now() == watched.machine.wall
    assert (watched.clock.warning, watched.logged) == (None, ["clock.stepped", "clock.followed"])


def test_a_step_that_is_taken_back_leaves_no_trace() -> None:
    """Six seconds of a wrong date expire nothing."""
    watched = Watched()
    watched.machine.wall += 8 * DAY
    watched.clock.now()
    watched.machine.pass_time(6)
    watched.machine.wall -= 8 * DAY
    assert watched.clock.now() == watched.machine.wall
    assert (watched.clock.warning, watched.clock.steps) == (None, 2)
    assert watched.logged == ["clock.stepped", "clock.back"]


def test_a_clock_that_is_adjusted_is_followed_at_once() -> None:
    watched = Watched()
    for _ in range(10):
        watched.machine.wall += 4.0
        assert watched.clock.now() == watched.machine.wall
    assert watched.logged == []


def test_a_step_to_a_time_that_is_known_to_be_wrong_is_never_followed() -> None:
    watched = Watched()
    watched.clock.judged_by(lambda: True)
    watched.machine.wall += 8 * DAY
    watched.clock.now()
    watched.machine.pass_time(10 * LASTS)
    assert watched.clock.now() == watched.machine.wall - 8 * DAY


def test_another_step_begins_the_wait_again() -> None:
    watched = Watched()
    watched.machine.wall += HOUR
    watched.clock.now()
    watched.machine.pass_time(LASTS - 1)
    watched.machine.wall += HOUR
    watched.clock.now()
    watched.machine.pass_time(LASTS - 1)
    assert watched.clock.now() == watched.machine.wall - 2 * HOUR
    assert watched.clock.steps == 2


class SteppedClock(FakeClock):
    """The test's clock, with a wall clock that is off by `off` seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.off = 0.0

    def now(self) -> float:
        return self.time + self.off


def stepped_rig() -> tuple[Rig, SteppedClock]:
    """An engine whose machine's clock can be set."""
    clock = SteppedClock()
    return Rig(clock=clock), clock


async def test_a_clock_set_back_delays_no_command_and_keeps_no_dead_client_connected() -> None:
    rig, clock = stepped_rig()
    async with rig:
        await rig.birth()
        await rig.trigger()
        assert rig.messenger.actions() == ["download_file"]
        clock.off = -3 * HOUR
        await rig.settle(80)
        await rig.birth(sequence=1)
        for sequence in (2, 3, 4):
            await rig.settle(80)
            await rig.birth(sequence=sequence)
        assert rig.messenger.actions() == ["download_file"], "the step timer ran on"
        await rig.settle(91)
        client = await rig.engine.client_service.client(OPERATOR, CLIENT)
        assert not client.connected(rig.engine.clock.now())


async def test_nothing_is_signed_after_a_step_before_another_probe() -> None:
    """The date of a signature is the machine's."""
    rig, clock = stepped_rig()
    async with rig:
        upload = await rig.granted()
        clock.off = 400.0
        rig.engine.clock.now()
        with pytest.raises(ObjectStoreDown, match="clock was set"):
            rig.engine.signer.grant(upload, ROOM)
        rig.engine.probe.watch_clock()
        assert rig.engine.probe._asked.is_set()
        await rig.engine.probe.probe()
        assert rig.engine.signer.grant(upload, ROOM).urls


async def test_nothing_expires_while_the_clock_is_known_to_be_wrong() -> None:
    """A program that starts with a wrong clock has no other to compare it with, until it sees the object store's."""
    async with Rig() as rig:
        maintenance, probe = rig.engine.maintenance, rig.engine.probe
        assert maintenance.time_is_sure()
        skewed = ObjectStoreCapabilities(part_digests=frozenset({DigestName.MD5}), clock_skew=-8 * DAY)
        good, rig.objects.capabilities = rig.objects.capabilities, skewed
        with pytest.raises(ObjectStoreDown, match="set this machine's clock"):
            await probe.probe()
        assert not maintenance.time_is_sure()
        with pytest.raises(ObjectStoreDown, match="set this machine's clock"):
            rig.engine.signer.grant(an_upload(s3_upload_id="s3-1"), ROOM)
        assert probe.require() == good, "what is stored is completed all the same"
        rig.objects.capabilities = good
        await probe.probe()
        assert maintenance.time_is_sure()


async def test_a_clock_that_the_object_store_refuses_is_known_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind: S3 refuses what is signed 15 minutes off its clock, so no probe is good while the clock is wrong."""
    rig, clock = stepped_rig()
    async with rig:
        probe, before = rig.engine.probe, rig.engine.clock.now()

        async def refuse(_: FakeObjects) -> ObjectStoreCapabilities:
            raise ClocksDiffer(-8 * DAY)

        monkeypatch.setattr(FakeObjects, "probe", refuse)
        clock.off = 8 * DAY
        rig.engine.clock.now()
        with pytest.raises(ClocksDiffer):
            await probe.probe()
        clock.time += LASTS + 1
        assert rig.engine.clock.now() == before + LASTS + 1
        assert not rig.engine.maintenance.time_is_sure()


async def test_without_any_answer_of_the_object_store_deadlines_hold_after_some_minutes() -> None:
    async with Rig() as rig:
        rig.engine.probe._seen = None
        assert not rig.engine.maintenance.time_is_sure()
        rig.clock.time += 301
        assert rig.engine.maintenance.time_is_sure()


async def test_entries_further_ahead_than_any_wait_are_pulled_in() -> None:
    """A process with a wrong clock wrote them, and is gone."""
    async with Rig() as rig:
        now, upload = rig.clock.time, an_upload(client_id=CLIENT, deadline=1e9, state=State.QUEUED)
        subject = Subject.of_upload(upload.key)
        dues = {
            Kind.SEND_DOWNLOAD: now + 3 * HOUR,
            Kind.COMPLETE: now + LONGEST_RETRY,
            Kind.ABORT_MULTIPART: now + HOUR,
            Kind.DELETE_OBJECT: now + 3 * HOUR,
            Kind.SEND_GRANT: PARKED,
        }
        for kind, due_at in dues.items():
            entry = OutboxEntry(subject, Duty(kind, 1, 0.0), due_at)
            await rig.database.write(partial(put, entry=entry))
        assert await rig.engine.maintenance.pull_in() == 2
        found = {one.duty.kind: one.due_at for one in await rig.database.read(lambda r: r.outbox.of(subject))}
        assert found == {**dues, Kind.SEND_DOWNLOAD: now, Kind.DELETE_OBJECT: now + 360}


async def test_a_deadline_that_a_wrong_clock_wrote_counts_from_now() -> None:
    """Else the upload would stay open for as long as that clock was ahead."""
    async with Rig() as rig:
        wrong = rig.clock.time + 3_650 * DAY
        upload = an_upload(client_id=CLIENT, created_at=wrong, deadline=wrong + 7 * DAY)
        await rig.database.write(lambda records: records.uploads.add(upload))
        await rig.engine.maintenance.pull_in()
        assert (await rig.upload(upload.upload_id)).deadline == rig.clock.time + 7 * DAY
        rig.clock.time += 7 * DAY
        assert await rig.engine.maintenance.expire() == 1


async def test_a_client_whose_last_presence_lies_far_ahead_is_not_connected() -> None:
    async with Rig() as rig:
        await rig.birth()
        client = await rig.engine.client_service.client(OPERATOR, CLIENT)
        assert client.connected(client.seen_at - 60)
        assert not client.connected(client.seen_at - 3 * HOUR)


async def test_a_presence_that_a_wrong_clock_wrote_is_replaced_by_the_next_beat() -> None:
    """Also in the database: another process, or the next one, reads only the row."""
    async with Rig() as rig:
        await rig.birth()
        row = await rig.database.read(lambda records: records.clients.get(CLIENT))
        assert row is not None
        ahead = replace(row, seen_at=rig.clock.time + 3 * HOUR)
        await rig.database.write(lambda records: records.clients.save([ahead]))
        rig.engine.beats.note(ahead)
        await rig.birth(sequence=ahead.sequence + 1)
        seen = await rig.database.read(lambda records: records.clients.get(CLIENT))
        assert seen is not None
        assert seen.connected(rig.clock.time)


async def test_readiness_reports_a_step_and_stays_ready() -> None:
    rig, clock = stepped_rig()
    async with rig:
        clock.off = -3 * HOUR
        found = await rig.engine.readiness.readiness(OPERATOR)
        assert (found.ready, "-10800 s" in found.checks["clock"]) == (True, True)
        clock.off = 0.0
        assert (await rig.engine.readiness.readiness(OPERATOR)).checks["clock"] == "ok"
