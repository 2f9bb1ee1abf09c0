"""A device's own caps and conditions in the gate: nothing is granted that it would only keep, and each wait ends."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.clients import Client
from control_plane.domain.gate.devices import LEDGER_LIFE
from control_plane.domain.gate.gate import Permit, Wait
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.ports.database import Database, Records, Subject
from schemas.parts import MIB
from schemas.values import BudgetUse, DeviceBudget
from tests.integration.gate.test_held_uploads import gated
from tests.support.databases import a_client, an_entry, an_upload, migrated, sql_database
from tests.support.gates import START, a_job, a_keeper, a_request, an_execution
from tests.support.inline_database import InlineDatabase
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

MIDNIGHT = START + 3_600.0


def a_budget(cap: int, used: int = 0, *, resets_at: float = MIDNIGHT, **more: Any) -> DeviceBudget:  # noqa: ANN401
    """Bytes of a day."""
    return DeviceBudget(day=BudgetUse(cap, used, datetime.fromtimestamp(resets_at, UTC)), **more)


def a_device(budget: DeviceBudget | None) -> Client:
    """`client-1`, with this report."""
    return a_client("client-1", labels={}, budget=budget, budget_at=START)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[InlineDatabase]:
    """An empty database."""
    opened = InlineDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")
    yield opened
    await opened.close()


async def asked(database: InlineDatabase, upload: Upload, now: float = START) -> Permit | Wait:
    """What the gate decides, by a replica that remembers nothing."""
    return await database.write(lambda records: a_keeper().may_grant(records, upload, now))


async def reports(database: InlineDatabase, budget: DeviceBudget | None) -> None:
    """The device's report."""
    await database.write(lambda records: records.clients.save([a_device(budget)]))


async def test_grants_of_all_uploads_of_a_device_stay_within_its_cap(database: InlineDatabase) -> None:
    """Of uploads without a job too, over replicas and restarts."""
    await reports(database, a_budget(22 * MIB))
    first, second = a_request(upload_id="u1"), a_request(upload_id="u2")
    assert await asked(database, first) == Permit(22 * MIB)
    assert await asked(database, second) == Permit(7 * MIB)
    third = await asked(database, a_request(upload_id="u3"))
    assert isinstance(third, Wait)
    assert (third.reason.code, third.wake_at) == (ReasonCode.DEVICE_BUDGET, START + LEDGER_LIFE)


async def test_grants_that_are_decided_at_the_same_moment_stay_within_the_cap(sql_database: Database) -> None:
    """Each transaction is one of another replica: the row of the ledger makes them run one after the other."""

    def ask(records: Records, number: int) -> int:
        answer = a_keeper().may_grant(records, a_request(upload_id=f"u{number}"), START)
        return answer.bytes or 0 if isinstance(answer, Permit) else 0

    await sql_database.write(lambda records: records.clients.save([a_device(a_budget(22 * MIB))]))
    granted = await asyncio.gather(*(sql_database.write(partial(ask, number=number)) for number in range(8)))
    assert sorted(size for size in granted if size) == [7 * MIB, 22 * MIB]


async def test_the_same_request_again_is_granted_the_same_bytes_and_charges_nothing(database: InlineDatabase) -> None:
    """The first answer may be lost; after a reconnect every grant is published again."""
    await reports(database, a_budget(22 * MIB))
    upload = a_request(upload_id="u1")
    assert await asked(database, upload) == Permit(22 * MIB)
    assert await asked(database, upload, START + 5) == Permit(15 * MIB)
    assert await asked(database, a_request(upload_id="u2"), START + 6) == Permit(7 * MIB)


async def test_a_client_that_is_forgotten_leaves_no_ledger(database: InlineDatabase) -> None:
    await reports(database, a_budget(22 * MIB))
    await asked(database, a_request())

    def forget(records: Records) -> int:
        records.clients.delete("client-1")
        records.clients.save([a_device(a_budget(22 * MIB))])
        return records.gate.ledger("client-1").outstanding

    assert await database.write(forget) == 0


async def test_only_uploads_of_devices_with_caps_or_conditions_pass_the_gate_for_it(database: InlineDatabase) -> None:
    for budget, gated_so in (
        (None, False),
        (DeviceBudget(), False),
        (a_budget(5), True),
        (DeviceBudget(holds=("device_disk",)), True),
    ):
        await reports(database, budget)

        def concerned(records: Records) -> bool:
            return a_keeper().concerns(records, a_request(), records.clients.get("client-1"), START)

        assert await database.read(concerned) is gated_so
    await reports(database, None)
    assert await asked(database, a_request()) == Permit()


async def test_no_execution_begins_on_a_device_that_may_send_nothing(database: InlineDatabase) -> None:
    spent = a_budget(MIB, MIB)
    wait = await database.write(
        lambda records: a_keeper().may_dispatch(records, a_job(), an_execution(), a_device(spent), START)
    )
    assert wait is not None
    assert (wait.reason.code, wait.wake_at, wait.whole_job) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT, False)
    later = await database.write(
        lambda records: a_keeper().may_dispatch(records, a_job(), an_execution(), a_device(spent), MIDNIGHT)
    )
    assert later is None


async def test_what_waits_for_a_device_and_nothing_else_is_woken_by_its_report(database: InlineDatabase) -> None:
    by_device = Reason(ReasonCode.DEVICE_LOAD, "the load is too high")
    by_label = Reason(ReasonCode.BUDGET_SPENT, "the budget is spent")

    def work(records: Records) -> tuple[list[float], list[float | None]]:
        records.clients.save([a_client("client-1"), a_client("client-2")])
        uploads = [
            an_upload("client-1", state=State.IN_PROGRESS, held=True, reason=by_device, client_busy=True),
            an_upload("client-1", state=State.IN_PROGRESS, held=True, reason=by_label, client_busy=True),
            an_upload("client-2", state=State.IN_PROGRESS, held=True, reason=by_device, client_busy=True),
        ]
        for upload in uploads:
            records.uploads.add(upload)
            records.outbox.put(an_entry(upload.key, Kind.SEND_GRANT, due_at=500.0))
        jobs = [a_job("a"), a_job("b")]
        reasons = {"a": by_device, "b": by_label}
        executions = [an_execution(job_id=job.job_id, due_at=500.0, reason=reasons[job.job_id]) for job in jobs]
        for job in jobs:
            records.jobs.add(job)
        records.jobs.executions.add(executions)
        assert records.outbox.release_device("client-1", 100.0) == 1
        assert records.jobs.executions.wake_held(["client-1", "client-2"], 100.0) == 1
        found = records.jobs.executions.some([one.key for one in executions])
        due = [records.outbox.of(Subject.of_upload(upload.key))[0].due_at for upload in uploads]
        return due, [found[one.key].due_at for one in executions]

    assert await database.write(work) == ([100.0, 500.0, 500.0], [100.0, 500.0])


async def test_an_upload_that_waits_for_the_day_goes_on_by_itself_after_the_reset(tmp_path: Path) -> None:
    async with gated(tmp_path) as rig:
        midnight = rig.clock.time + 7_200.0
        spent = a_budget(20 * MIB, 19 * MIB, resets_at=midnight)
        upload = await rig.asked(budget=spent)
        (told,) = rig.grants()
        assert told.urls == ()
        assert told.wait is not None
        reason = await rig.reason(upload.upload_id)
        assert reason.code == ReasonCode.DEVICE_BUDGET
        assert reason.text.startswith(f"the device may send {20 * MIB} bytes a day, which leave {MIB} until ")
        await rig.pass_time(7_140.0)
        assert all(not one.urls for one in rig.grants())
        await rig.pass_time(60.0)
        (grant,) = rig.grants()
        assert [part.part_number for part in grant.urls] == [1, 2, 3]


async def test_a_device_whose_battery_is_charged_again_gets_its_grant_with_its_report(tmp_path: Path) -> None:
    """An upload without a job, at once: nothing polls."""
    async with gated(tmp_path) as rig:
        upload = await rig.asked(None, budget=DeviceBudget(holds=("device_battery",)))
        assert [one.urls for one in rig.grants()] == [()]
        assert (await rig.reason(upload.upload_id)).code == ReasonCode.DEVICE_BATTERY
        rig.clock.time += 60
        await rig.birth(sequence=1, budget=DeviceBudget(holds=("device_battery", "device_load")))
        assert rig.grants() == []
        await rig.birth(sequence=2, budget=DeviceBudget())
        assert [len(one.urls) for one in rig.grants()] == [3]


async def test_a_grant_has_the_parts_that_fit_and_the_rest_waits(tmp_path: Path) -> None:
    async with gated(tmp_path) as rig:
        upload = await rig.asked(None, budget=a_budget(20 * MIB, 9 * MIB, resets_at=rig.clock.time + 7_200))
        (grant,) = rig.grants()
        assert [part.part_number for part in grant.urls] == [1, 2]
        assert (await rig.upload(upload.upload_id)).held is False
