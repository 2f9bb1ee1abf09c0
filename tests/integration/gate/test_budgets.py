"""Budgets: the rate is kept, no byte of it is left over while one waits, and each waiter has its turn."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.gate.gate import TURN, UNLIMITED, Permit, Wait
from control_plane.domain.gate.rates import IDLE_CREDIT
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import Upload
from control_plane.services.gate.keeper import drop_budget, put_budget
from control_plane.services.ports.database import PARKED, OutboxEntry, Records, Subject
from control_plane.services.ports.gate import Budget
from schemas.parts import MIB
from tests.support.examples import examples
from tests.support.gates import START, a_job, a_keeper, a_request, add_client
from tests.support.inline_database import InlineDatabase

KEY = "site=berlin"
BERLIN = Budget("site", "berlin", MIB, START)
PART = 5 * MIB


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[tuple[InlineDatabase, InlineDatabase]]:
    """Two connections to one database, with a budget of 1 MiB a second for all clients of a site."""
    url = f"sqlite:///{tmp_path / 'backhaul.db'}"
    both = InlineDatabase.open(url), InlineDatabase.open(url)
    await both[0].write(lambda records: put_budget(records, BERLIN, START))
    yield both
    for database in both:
        await database.close()


class Fleet:
    """Clients of one site that want parts for ever, and what an outbox does for them; a clock of its own."""

    def __init__(self, replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
        self.replicas = replicas
        self.uploads: dict[str, Upload] = {}
        self.granted: list[tuple[float, str, int]] = []
        self.absent: set[str] = set()

    async def join(self, number: int, now: float, *, priority: int | None = None) -> str:
        """One more client, whose upload waits for its first grant."""
        client_id = f"client-{number}"
        job = None if priority is None else a_job(f"job-{number}-{now}", priority=priority)
        upload = a_request(client_id, job_id=None if job is None else job.job_id)

        def work(records: Records) -> None:
            add_client(records, client_id, site="berlin")
            records.uploads.add(upload)
            if job is not None:
                records.jobs.add(job)
            records.outbox.put(OutboxEntry(Subject.of_upload(upload.key), Duty(Kind.SEND_GRANT, 1, now), now))

        await self.replicas[0].write(work)
        self.uploads[client_id] = upload
        return client_id

    async def step(self, now: float, which: int = 0) -> None:
        """Ask for all that are due. A client that gets a grant asks for the next one at once."""

        def work(records: Records) -> None:
            for entry in records.outbox.due(now, 1_000):
                client_id = entry.subject.client_id
                if client_id in self.absent:
                    records.outbox.put(OutboxEntry(entry.subject, entry.duty, PARKED))
                    continue
                upload = self.uploads[client_id]
                word = a_keeper().may_grant(records, upload, now)
                due_at = now
                if isinstance(word, Wait):
                    assert word.reason.code == ReasonCode.BUDGET_SPENT
                    due_at = word.wake_at or PARKED
                else:
                    self.granted.append((now, client_id, word.bytes or 0))
                    self.uploads[client_id] = replace(upload, sequence=upload.sequence + 1)
                records.outbox.put(OutboxEntry(entry.subject, replace_due(entry.duty, now), due_at))

        await self.replicas[which].write(work)

    async def run(self, begin: float, seconds: int) -> None:
        """As the outbox does: a look every second, on one replica or the other."""
        for second in range(seconds):
            await self.step(begin + second, second % 2)

    def bytes_of(self, client_id: str) -> int:
        """All that it was granted."""
        return sum(size for _, one, size in self.granted if one == client_id)


def replace_due(duty: Duty, at: float) -> Duty:
    return Duty(duty.kind, duty.attempt, at)


async def test_the_budget_is_kept_and_used_up_by_many(replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
    fleet = Fleet(replicas)
    for number in range(12):
        await fleet.join(number, START)
    await fleet.run(START, 600)
    total = sum(size for _, _, size in fleet.granted)
    assert 0.9 * 600 * MIB <= total <= 600 * MIB + 10 * MIB + IDLE_CREDIT * MIB
    shares = [fleet.bytes_of(client_id) for client_id in fleet.uploads]
    # In turns: no client is more than one grant ahead of another, but for the first round.
    assert max(shares) - min(shares) <= 2 * 10 * MIB


async def test_one_client_alone_has_the_whole_budget(replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
    fleet = Fleet(replicas)
    client_id = await fleet.join(1, START)
    await fleet.run(START, 200)
    assert 0.9 * 200 * MIB <= fleet.bytes_of(client_id) <= 215 * MIB


async def test_waiters_of_a_higher_priority_are_served_first(replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
    fleet = Fleet(replicas)
    low = await fleet.join(1, START, priority=0)
    await fleet.step(START)
    middle = await fleet.join(2, START + 1, priority=1)
    high = await fleet.join(3, START + 2, priority=9)
    await fleet.run(START + 2, 40)
    served = [client_id for _, client_id, _ in fleet.granted]
    assert served[:2] == [low, high]
    assert low not in served[1:]
    assert served.count(high) >= 3
    assert middle not in served[:2]


async def test_absent_waiters_delay_the_others_by_seconds_only(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    fleet = Fleet(replicas)
    for number in range(8):
        await fleet.join(number, START)
    await fleet.run(START, 30)
    fleet.absent = {f"client-{number}" for number in range(7)}
    before = len(fleet.granted)
    await fleet.run(START + 30, 300)
    late = sum(size for _, _, size in fleet.granted[before:])
    assert {client_id for _, client_id, _ in fleet.granted[before:]} == {"client-7"}
    assert late >= 0.8 * 300 * MIB


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
async def test_the_budget_is_exact_over_restarts_and_two_replicas(
    replicas: tuple[InlineDatabase, InlineDatabase], asks: list[tuple[int, int, bool]]
) -> None:
    fleet = Fleet(replicas)

    def reset(records: Records) -> None:
        drop_budget(records, "site", "berlin", START)
        records.gate.prune(float("inf"))
        put_budget(records, BERLIN, START)
        for number in range(6):
            add_client(records, f"client-{number}", site="berlin")

    await replicas[0].write(reset)
    now = START
    granted: list[tuple[float, int]] = []
    for number, gap, which in asks:
        now += gap
        upload = fleet.uploads.setdefault(f"client-{number}", a_request(f"client-{number}"))
        word = await asked(replicas[which], upload, now)
        if isinstance(word, Permit):
            granted.append((now, word.bytes or 0))
            fleet.uploads[f"client-{number}"] = replace(upload, sequence=upload.sequence + 1)
    for first, (at, _) in enumerate(granted):
        for last in range(first + 1, len(granted)):
            sent = sum(size for _, size in granted[first:last])
            assert sent <= (granted[last][0] - at + IDLE_CREDIT) * MIB + 1


async def asked(database: InlineDatabase, upload: Upload, now: float) -> Permit | Wait:
    return await database.write(lambda records: a_keeper().may_grant(records, upload, now))


async def test_a_grant_that_is_repeated_for_one_request_is_the_same_and_charges_nothing(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    upload = a_request(parts=4)
    await replicas[0].write(lambda records: add_client(records, "client-1", site="berlin"))
    first = await asked(replicas[0], upload, START)
    tat = await replicas[0].read(lambda records: records.gate.tat(f"budget:{KEY}"))
    again = await asked(replicas[1], upload, START + 1)
    assert isinstance(first, Permit)
    assert isinstance(again, Permit)
    assert (first.bytes, again.bytes) == (2 * PART, 2 * PART)
    assert await replicas[0].read(lambda records: records.gate.tat(f"budget:{KEY}")) == tat == START + 10
    assert isinstance(await asked(replicas[1], replace(upload, sequence=2), START + 2), Wait)


async def test_a_client_without_the_label_and_a_request_for_nothing_are_not_charged(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    def work(records: Records) -> None:
        add_client(records, "client-1", site="paris")
        add_client(records, "client-2", site="berlin")

    await replicas[0].write(work)
    assert await asked(replicas[0], a_request(), START) == Permit()
    assert await asked(replicas[0], a_request("client-2", wanted=()), START) == Permit(0)
    assert await replicas[0].read(lambda records: records.gate.tat(f"budget:{KEY}")) is None


async def test_the_rate_that_was_told_is_lifted_once_the_budget_is_gone(
    replicas: tuple[InlineDatabase, InlineDatabase],
) -> None:
    upload = a_request()
    keeper = a_keeper()
    await replicas[0].write(lambda records: add_client(records, "client-1", site="berlin"))
    first = await asked(replicas[0], upload, START)
    assert isinstance(first, Permit)
    assert first.rate == MIB
    await replicas[0].write(lambda records: drop_budget(records, "site", "berlin", START + 1))
    assert await replicas[1].write(
        lambda records: keeper.concerns(records, upload, records.clients.get(upload.client_id), START + 1)
    )
    later = replace(upload, sequence=2)
    # Twice: the first answer may be lost.
    assert await asked(replicas[1], later, START + 1) == Permit(rate=UNLIMITED)
    assert await asked(replicas[0], later, START + 1) == Permit(rate=UNLIMITED)
    assert await asked(replicas[1], replace(upload, sequence=3), START + 1) == Permit()
    assert not await replicas[1].write(
        lambda records: keeper.concerns(records, upload, records.clients.get(upload.client_id), START + 3)
    )


async def test_a_new_rate_changes_what_is_still_owed(replicas: tuple[InlineDatabase, InlineDatabase]) -> None:
    await replicas[0].write(lambda records: add_client(records, "client-1", site="berlin"))
    await asked(replicas[0], a_request(), START)
    await replicas[0].write(lambda records: put_budget(records, Budget("site", "berlin", 10 * MIB, START), START))
    assert await replicas[0].read(lambda records: records.gate.tat(f"budget:{KEY}")) == START + 1.0


async def entry_of(database: InlineDatabase, upload: Upload) -> float:
    return await database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))[0].due_at)


@pytest.mark.parametrize("how", ["end", "delete"])
async def test_the_end_of_a_waiter_and_of_a_budget_wake_the_next(
    replicas: tuple[InlineDatabase, InlineDatabase], how: str
) -> None:
    fleet = Fleet(replicas)
    for number in range(4):
        await fleet.join(number, START + 0.1 * number)
        await fleet.step(START + 0.1 * number)
    # The first one was served: it stands behind those that came while its grant was paid off.
    second, third = fleet.uploads["client-1"], fleet.uploads["client-2"]
    assert await entry_of(replicas[0], third) == START + 10 + TURN
    acts: dict[str, tuple[Callable[[Records], object], float]] = {
        "end": (lambda records: a_keeper().forget(records, replace(second, held=True)), START + 10),
        "delete": (lambda records: drop_budget(records, "site", "berlin", START + 3), START + 3),
    }
    act, at = acts[how]
    await replicas[0].write(act)
    assert await entry_of(replicas[0], third) == at
