"""The fleet in numbers: each number counts exactly the rows of the list that it links to.

Rule: the real services, on SQLite; only the clock and the broker are fakes.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.overview import service as overview_service
from control_plane.services.overview.service import OLDEST
from control_plane.services.ports.database import Failure, OutboxEntry, Records
from tests.contract.test_rest_clients import Site, empty, site
from tests.support.databases import a_client, an_entry, an_upload

__all__ = ["empty", "site"]

NOW: Final = 900_000.0
TODAY: Final = NOW - NOW % 86_400
ENDED: Final = {
    State.COMPLETED: [NOW - 100, NOW - 3_700, TODAY - 10],
    State.FAILED: [NOW - 50, TODAY - 4_000],
    State.REJECTED: [NOW - 60],
    State.EXPIRED: [NOW - 70],
    State.CANCELLED: [TODAY + 1],
}


def failed(entry: OutboxEntry, code: str, at: float) -> OutboxEntry:
    return OutboxEntry(entry.subject, entry.duty, entry.due_at, 1, Failure(Reason(code, "it failed"), at))


async def filled(site: Site) -> None:
    """Clients in every state, and uploads that wait for each kind of cause, move, and ended at several times."""
    site.rig.clock.time = NOW
    fresh = {"seen_at": NOW - 5}
    clients = [
        *(a_client(f"on-{number}", **fresh) for number in range(4)),
        # Its row is old, but not older than the rows of connected clients may be.
        a_client("on-old-row", seen_at=NOW - 200),
        a_client("off", online=False, **fresh),
        a_client("gone", seen_at=NOW - 900),
        a_client("conflict", conflict_at=NOW - 5, **fresh),
        a_client("never", install_id="", online=False, expected=True),
    ]
    common = {"deadline": NOW + 500, "created_at": NOW - 4_000}
    moving = {"state": State.IN_PROGRESS, "one_put": True, **common}
    waits = [an_upload(name, **common) for name in ("off", "off", "gone", "conflict", "never", "stranger", "on-0")]
    stuck = an_upload("on-1", **common)
    cleaned = an_upload("on-2", **moving)
    reported = an_upload("on-3", reason=Reason(ReasonCode.OUTSIDE_WINDOW, "not now"), **moving)
    completing = an_upload("off", **{**moving, "state": State.COMPLETING})
    foreign = an_upload("off", owner="other", **common)
    ends = [
        an_upload(
            "on-0",
            state=state,
            completed_at=at if state is State.COMPLETED else None,
            updated_at=at,
            created_at=at - 10,
            file_size=1_000,
            part_size=1_000,
            error=None if state in {State.COMPLETED, State.CANCELLED} else f"{state}_code",
        )
        for state, instants in ENDED.items()
        for at in instants
    ]

    def work(records: Records) -> None:
        records.clients.save(clients)
        for upload in [*waits, stuck, cleaned, reported, completing, foreign, *ends]:
            records.uploads.add(upload)
        records.outbox.put(failed(an_entry(stuck.key), ReasonCode.BROKER_UNAVAILABLE, NOW - 9))
        records.outbox.put(failed(an_entry(stuck.key, Kind.DELETE_OBJECT, target="x"), ReasonCode.INTERNAL, NOW - 1))
        records.outbox.put(failed(an_entry(cleaned.key, Kind.ABORT_MULTIPART, target="y"), ReasonCode.INTERNAL, NOW))

    await site.rig.database.write(work)


async def all_uploads(site: Site, **query: str) -> list[dict[str, Any]]:
    """Every row of the list, over all its pages."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await site.get("/uploads", **query, **cursor)
        rows += page["uploads"]
        if page["cursor"] is None:
            return rows
        cursor = {"cursor": page["cursor"]}


async def test_each_number_of_clients_is_that_of_its_list(site: Site) -> None:
    await filled(site)
    found = (await site.get("/fleet"))["clients"]
    assert found == {state: (await site.get("/clients", state=state))["count"] for state in found}
    assert found["never_seen"] == 1
    assert sum(found.values()) == 9


async def test_each_reason_counts_the_uploads_that_wait_for_it(site: Site) -> None:
    await filled(site)
    found = await site.get("/fleet")
    counted = {one["code"]: one["count"] for one in found["waiting"]}
    assert counted == {code: len(await all_uploads(site, reason_code=code)) for code in counted}
    assert {"client_offline", "client_never_seen", "client_unknown", "client_conflict", "outside_window"} <= set(
        counted
    )
    assert {"broker_unavailable", "uploading", "completing", "dispatching"} <= set(counted)
    assert "internal" not in counted, "no upload waits for what removes its litter"
    assert list(counted.values()) == sorted(counted.values(), reverse=True)
    assert found["open"] == {state: len(await all_uploads(site, state=state)) for state in found["open"]}


async def test_each_number_of_ends_is_that_of_its_list(site: Site) -> None:
    await filled(site)
    found = await site.get("/fleet")
    since = found["since"]
    assert found["ended"] == {
        state: len(await all_uploads(site, state=state, ended_since=since)) for state in found["ended"]
    }
    completed = await all_uploads(site, state="completed", ended_since=since)
    assert found["bytes"] == sum(one["file_size"] for one in completed) == 2_000
    day = found["failures_since"]
    counts = {one["code"]: one["count"] for one in found["failures"]}
    assert counts == {code: len(await all_uploads(site, error=code, ended_since=day)) for code in counts}
    assert counts == {"failed_code": 2, "expired_code": 1, "rejected_code": 1}


async def test_the_day_begins_where_the_caller_wants_it(site: Site) -> None:
    """The reader's midnight is not the server's."""
    await filled(site)
    earlier = await site.get("/fleet", since="1970-01-10T20:00:00+00:00")
    assert (earlier["since"], earlier["ended"]["completed"]) == ("1970-01-10T20:00:00.000Z", 3)
    for refused in ("1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z", "yesterday"):
        assert (await site.http.get("/fleet", params={"since": refused})).status_code == 422


async def test_a_reader_whose_clock_is_ahead_sees_the_new_day(site: Site) -> None:
    """Past midnight on the reader's clock, and not yet here."""
    await filled(site)
    assert set((await site.get("/fleet", since="1970-01-11T10:30:00Z"))["ended"].values()) == {0}


async def test_the_history_has_every_hour_once(site: Site) -> None:
    await filled(site)
    hours = (await site.get("/fleet/history", hours=24))["hours"]
    assert len(hours) == 24
    assert [hour["begins_at"] for hour in hours[-2:]] == ["1970-01-11T09:00:00.000Z", "1970-01-11T10:00:00.000Z"]
    assert [hour["ended"]["completed"] for hour in hours[-3:]] == [1, 1, 0]
    assert sum(hour["ended"]["completed"] for hour in hours) == 3
    assert sum(hour["bytes"] for hour in hours) == 3_000
    assert sum(sum(hour["ended"].values()) for hour in hours) == sum(map(len, ENDED.values()))
    assert (await site.http.get("/fleet/history?hours=0")).status_code == 422


async def test_the_numbers_are_computed_once_a_second_for_all_who_look(site: Site) -> None:
    await filled(site)
    first = await site.get("/fleet")
    await site.rig.database.write(lambda records: records.clients.save([a_client("new", seen_at=NOW)]))
    assert await site.get("/fleet") == first
    site.rig.clock.time += 1
    assert (await site.get("/fleet"))["clients"]["connected"] == first["clients"]["connected"] + 1


async def test_callers_at_one_moment_wait_for_one_computation(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change makes every open page ask at once."""
    await filled(site)
    read, reads = site.rig.database.read, []

    async def counted(work: Callable[[Records], object]) -> object:
        reads.append(work)
        return await read(work)

    monkeypatch.setattr(site.rig.database, "read", counted)
    answers = await asyncio.gather(*(site.get("/fleet") for _ in range(20)))
    assert answers == [answers[0]] * 20
    assert len(reads) == 1


async def test_nobody_waits_for_numbers_of_a_large_fleet_who_can_have_the_ones_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are `OLDEST` seconds old at most, and computed a tenth of the time."""
    await filled(site)
    read, reads, may_end = site.rig.database.read, [], asyncio.Event()

    async def long(work: Callable[[Records], object]) -> object:
        reads.append(work)
        found = await read(work)
        site.rig.clock.time += 0.3
        await may_end.wait()
        return found

    async def joined(name: str) -> None:
        await site.rig.database.write(lambda records: records.clients.save([a_client(name, seen_at=NOW)]))

    monkeypatch.setattr(site.rig.database, "read", long)
    monkeypatch.setattr(overview_service, "LARGE", 9)
    may_end.set()
    first = await site.get("/fleet")
    await joined("second")
    site.rig.clock.time += 2.5
    assert (await site.get("/fleet"), len(reads)) == (first, 1)
    may_end.clear()
    site.rig.clock.time += 0.3
    assert [await site.get("/fleet") for _ in range(3)] == [first] * 3
    # A request may come and go without a turn of the loop.
    await asyncio.sleep(0)
    assert [await site.get("/fleet") for _ in range(3)] == [first] * 3
    assert len(reads) == 2
    may_end.set()
    async with asyncio.timeout(60):
        while (later := await site.get("/fleet")) == first:  # noqa: ASYNC110 - the reader is another thread
            await asyncio.sleep(0)
    assert later["clients"]["connected"] == first["clients"]["connected"] + 1
    await joined("third")
    site.rig.clock.time += OLDEST
    assert (await site.get("/fleet"))["clients"]["connected"] == first["clients"]["connected"] + 2
    assert len(reads) == 3


async def test_numbers_of_large_fleets_are_computed_one_after_the_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each computation keeps a processor busy, and one of the few threads that read."""
    await filled(site)
    read, reads, may_end = site.rig.database.read, [], asyncio.Event()

    async def long(work: Callable[[Records], object]) -> object:
        reads.append(work)
        await may_end.wait()
        return await read(work)

    async def both() -> list[object]:
        return [await site.get("/fleet"), await site.get("/fleet", since="1970-01-11T09:00:00Z")]

    monkeypatch.setattr(overview_service, "LARGE", 9)
    before = await both()
    site.rig.clock.time += 3
    monkeypatch.setattr(site.rig.database, "read", long)
    assert await both() == before
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(reads) == 1, "the second one waits for the first"
    may_end.set()
    async with asyncio.timeout(60):
        while len(reads) < 2:  # noqa: ASYNC110 - the reader is another thread
            await asyncio.sleep(0)


async def test_numbers_that_could_not_be_computed_are_computed_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(site)

    async def refused(_work: object) -> None:
        message = "the disk is full"
        raise DatabaseUnavailable(message)

    with monkeypatch.context() as away:
        away.setattr(site.rig.database, "read", refused)
        assert (await site.http.get("/fleet")).status_code == 503
    assert (await site.http.get("/fleet")).status_code == 200


async def test_an_empty_fleet_has_numbers_too(site: Site) -> None:
    found = await site.get("/fleet")
    assert found["clients"] == {"connected": 0, "offline": 0, "never_seen": 0}
    assert (found["waiting"], found["failures"], found["bytes"], found["counted"]) == ([], [], 0, True)
