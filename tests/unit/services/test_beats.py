"""Beats in memory: a client stays connected for every reader, and its row is written now and then.

Rule: the kind of fault is a cost that time alone causes: with each device and day the disk takes more.
"""

import pytest

from control_plane.domain.clients import CONNECTED_FOR, Client, ClientState
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.uploads.model import State
from control_plane.services.clients import beats
from control_plane.services.clients.beats import WRITE_EVERY, Beats, worth_writing
from control_plane.services.clients.choosing import ClientFilter
from control_plane.services.ports.database import Page
from tests.support.fake_services import a_client
from tests.support.fakes import CLIENT, OPERATOR, Rig


async def row_of(rig: Rig) -> Client:
    found = await rig.database.read(lambda records: records.clients.get(CLIENT))
    assert found is not None
    return found


async def beat(rig: Rig, sequence: int, seconds: float = 30.0) -> None:
    rig.clock.time += seconds
    await rig.birth(sequence=sequence)


async def test_ten_minutes_of_beats_write_the_client_twice() -> None:
    async with Rig() as rig:
        await rig.birth()
        seen: set[float] = set()
        for number in range(1, 21):
            await beat(rig, number)
            seen.add((await row_of(rig)).seen_at)
            shown = await rig.engine.client_service.client(OPERATOR, CLIENT)
            assert (shown.seen_at, shown.connected(rig.clock.time)) == (rig.clock.time, True)
        assert sorted(seen) == [1_000.0, 1_000.0 + WRITE_EVERY, 1_000.0 + 2 * WRITE_EVERY]


async def test_a_trigger_between_two_writes_is_dispatched_and_is_not_shown_as_offline() -> None:
    async with Rig() as rig:
        await rig.birth()
        for number in range(1, 8):
            await beat(rig, number)
        assert not (await row_of(rig)).connected(rig.clock.time)
        view = await rig.trigger()
        assert rig.messenger.actions() == ["download_file"]
        assert (await rig.reason(view.upload.upload_id)).code == ReasonCode.AWAITING_RESPONSE
        found = await rig.engine.client_service.clients(OPERATOR, ClientFilter(), Page(10), rig.clock.time)
        assert [one.connected(rig.clock.time) for one in found.clients] == [True]
        connected = await rig.engine.client_service.clients(
            OPERATOR, ClientFilter(state=ClientState.CONNECTED), Page(10), rig.clock.time
        )
        offline = await rig.engine.client_service.clients(
            OPERATOR, ClientFilter(state=ClientState.OFFLINE), Page(10), rig.clock.time
        )
        assert (connected.count, offline.count) == (1, 0)


async def test_a_stored_duty_that_comes_due_between_two_writes_is_performed() -> None:
    async with Rig() as rig:
        upload = await rig.granted()
        rig.messenger.actions()
        for number in range(1, 11):
            await beat(rig, number)
            await rig.settle()
        assert rig.messenger.actions() == ["grant_parts"]
        assert (await rig.upload(upload.upload_id)).state is State.IN_PROGRESS


async def test_silence_and_a_will_end_the_connection_at_once() -> None:
    async with Rig() as rig:
        await rig.birth()
        await beat(rig, 1)
        rig.clock.time += CONNECTED_FOR
        assert not (await rig.engine.client_service.client(OPERATOR, CLIENT)).connected(rig.clock.time)
        await beat(rig, 2, 1.0)
        await rig.birth(sequence=2**53 - 1, status="offline")
        assert not (await rig.engine.client_service.client(OPERATOR, CLIENT)).online
        assert not (await row_of(rig)).online


async def test_a_late_beat_changes_nothing() -> None:
    """The row has an older sequence than the beat in memory."""
    async with Rig() as rig:
        await rig.birth()
        for number in (1, 2, 3):
            await beat(rig, number)
        at = rig.clock.time
        await beat(rig, 2)
        assert (await rig.engine.client_service.client(OPERATOR, CLIENT)).seen_at == at


async def test_what_a_beat_changes_is_written_at_once() -> None:
    async with Rig() as rig:
        await rig.birth()
        rig.clock.time += 30
        await rig.birth(sequence=1, labels={"site": "berlin"})
        assert (await row_of(rig)).labels == {"site": "berlin"}


async def test_a_control_plane_that_starts_counts_a_client_as_seen_until_it_can_have_sent_a_beat() -> None:
    """Also a replica: the rows that another one writes are as old."""
    async with Rig() as rig:
        await rig.birth()
        for number in range(1, 9):
            await beat(rig, number)
        started = rig.clock.time
        fresh, row = Beats(started), await row_of(rig)
        assert not row.connected(started)
        assert fresh.latest(row).connected(started)
        assert fresh.latest(row).connected(started + CONNECTED_FOR - 1)
        assert not fresh.latest(row).connected(started + CONNECTED_FOR)


def test_a_client_that_was_silent_before_the_start_is_not_connected() -> None:
    row = a_client(seen_at=1_000.0)
    later = 1_000.0 + WRITE_EVERY + CONNECTED_FOR
    assert not Beats(later).latest(row).connected(later)
    assert not Beats(1_001.0).latest(a_client(seen_at=1_000.0, online=False)).connected(1_002.0)


def test_a_beat_of_another_connection_or_installation_is_not_taken_for_the_rows() -> None:
    memory = Beats(0.0)
    memory.note(a_client(sequence=9, seen_at=2_000.0))
    for row in (a_client(epoch=43, sequence=0), a_client(install_id="other"), a_client(online=False, sequence=2**53)):
        assert memory.latest(row) == row


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "MAX_CLIENTS", 3)
    memory = Beats(0.0)
    for number in range(10):
        memory.note(a_client(f"client-{number}"))
    assert len(memory._beats) == 3


def test_a_row_is_worth_writing_when_it_is_old_or_differs() -> None:
    row = a_client(seen_at=0.0, sequence=0)
    assert worth_writing(None, row)
    assert not worth_writing(row, a_client(seen_at=WRITE_EVERY - 1, sequence=5))
    assert worth_writing(row, a_client(seen_at=WRITE_EVERY, sequence=5))
    assert worth_writing(row, a_client(seen_at=1.0, sequence=5, online=False))


@pytest.mark.parametrize("noted", [None, 0, 3, 9])
@pytest.mark.parametrize("install_id", ["install-1", "another"])
@pytest.mark.parametrize("age", [0.0, 50.0, 299.0, 400.0])
def test_many_rows_are_judged_as_one_is(noted: int | None, install_id: str, age: float) -> None:
    started_at = 1_000.0
    memory = Beats(started_at)
    row = a_client("a", sequence=3, seen_at=started_at - age)
    if noted is not None:
        memory.note(a_client("a", install_id=install_id, sequence=noted, seen_at=started_at + 40.0))
    found = memory.seen_at(row.client_id, row.install_id, row.epoch, row.sequence, row.seen_at)
    assert found == memory.latest(row).seen_at
