"""Rates, budgets and shares: what is written is read again, and waiters stand in one order."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from control_plane.domain.gate.devices import Ledger, Paid
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State, UploadKey
from control_plane.services.ports.database import PARKED, Database, Records, Subject
from control_plane.services.ports.gate import Budget, Share
from schemas.values import BudgetUse, DeviceBudget
from tests.support.databases import a_client, an_entry, an_upload, migrated, sql_database
from tests.support.examples import examples
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

KEY = "site=berlin"


def a_share(number: int, **changes: object) -> Share:
    fields: dict[str, object] = {"priority": 0, "placed_at": 10.0, "since": 20.0, **changes}
    return Share(KEY, f"client-{number}", f"u{number}", **fields)  # type: ignore[arg-type]


async def test_a_rate_keeps_its_instant_until_it_is_pruned(sql_database: Database) -> None:
    def work(records: Records) -> list[float | None]:
        seen = [records.gate.tat("job:a")]
        records.gate.set_tat("job:a", 5.5)
        records.gate.set_tat("job:a", 7.5)
        records.gate.set_tat("job:b", 9.5)
        seen.append(records.gate.tat("job:a"))
        assert records.gate.prune(9.0) == 1
        return [*seen, records.gate.tat("job:a"), records.gate.tat("job:b")]

    assert await sql_database.write(work) == [None, 7.5, None, 9.5]


async def test_the_budgets_of_a_client_are_those_of_its_labels(sql_database: Database) -> None:
    berlin, paris, pi4 = (
        Budget("site", "berlin", 5, 1.0),
        Budget("site", "paris", 6, 1.0),
        Budget("model", "pi4", 7, 1.0),
    )

    def work(records: Records) -> list[list[Budget]]:
        for budget in (berlin, paris, pi4):
            records.gate.put_budget(budget)
        labels = {"site": "berlin", "model": "pi4", "floor": "3", "nul": "\0"}
        return [records.gate.budgets_of(labels), records.gate.budgets(), records.gate.budgets_of({})]

    assert await sql_database.write(work) == [[pi4, berlin], [pi4, berlin, paris], []]


async def test_a_budget_is_replaced_and_deleted_and_leaves_its_shares(sql_database: Database) -> None:
    def work(records: Records) -> tuple[list[Budget], bool, bool, dict[str, Share]]:
        records.gate.put_budget(Budget("site", "berlin", 5, 1.0))
        records.gate.put_budget(Budget("site", "berlin", 9, 2.0))
        records.gate.put_share(a_share(1))
        known = records.gate.budgets()
        dropped = records.gate.drop_budget("site", "berlin")
        again = records.gate.drop_budget("site", "berlin")
        return known, dropped, again, records.gate.shares_of(UploadKey("client-1", "u1"))

    assert await sql_database.write(work) == (
        [Budget("site", "berlin", 9, 2.0)],
        True,
        False,
        {KEY: a_share(1)},
    )


async def test_waiters_stand_by_priority_then_by_their_last_grant(sql_database: Database) -> None:
    shares = [
        a_share(1, placed_at=30.0),
        a_share(2, placed_at=10.0),
        a_share(3, priority=5, placed_at=90.0),
        a_share(4, placed_at=5.0, since=None),
        a_share(5, placed_at=6.0, absent=True),
    ]

    def work(records: Records) -> tuple[list[Share], list[int], int]:
        for share in shares:
            records.gate.put_share(share)
        ahead = [records.gate.ahead_of(share) for share in shares]
        records.gate.pass_over(shares[0])
        return records.gate.first(KEY, 10), ahead, records.gate.waiters(KEY, 2)[1]

    # Those that come before the first one are absent now.
    assert await sql_database.write(work) == ([shares[0]], [2, 1, 0, 1, 1], 4)


async def test_the_users_of_a_budget_are_those_with_a_recent_grant(sql_database: Database) -> None:
    def work(records: Records) -> list[Share]:
        for number, (placed_at, size) in enumerate([(10.0, 5), (20.0, 5), (30.0, 0)]):
            records.gate.put_share(a_share(number, placed_at=placed_at, bytes=size))
        records.gate.drop_shares(UploadKey("client-2", "u2"))
        return records.gate.users(KEY, 15.0, 5)

    assert [share.client_id for share in await sql_database.write(work)] == ["client-1"]


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3)), min_size=1, max_size=8))
async def test_so_many_are_ahead_as_stand_before_it(sql_database: Database, places: list[tuple[int, int]]) -> None:
    shares = [a_share(n, priority=priority, placed_at=float(at)) for n, (priority, at) in enumerate(places)]

    def work(records: Records) -> tuple[list[Share], list[int]]:
        for number in range(8):
            records.gate.drop_shares(UploadKey(f"client-{number}", f"u{number}"))
        assert not records.gate.has_shares()
        for share in shares:
            records.gate.put_share(share)
        assert records.gate.has_shares()
        return records.gate.first(KEY, 100), [records.gate.ahead_of(share) for share in shares]

    stand, ahead = await sql_database.write(work)
    assert [stand.index(share) for share in shares] == ahead


async def test_the_shares_of_uploads_that_are_over_are_pruned(sql_database: Database) -> None:
    def work(records: Records) -> list[bool]:
        still, over = an_upload(state=State.IN_PROGRESS), an_upload(state=State.FAILED, completed_at=5.0)
        for upload in (still, over):
            records.uploads.add(upload)
            records.gate.put_share(replace(a_share(1), client_id=upload.client_id, upload_id=upload.upload_id))
        records.gate.put_share(a_share(9))
        assert records.gate.prune(0.0) == 2
        return [share.upload_id == still.upload_id for share in records.gate.first(KEY, 9)]

    assert await sql_database.write(work) == [True]


async def test_the_held_grants_of_one_job_are_released(sql_database: Database) -> None:
    def work(records: Records) -> tuple[int, list[float]]:
        uploads = [
            an_upload(state=State.IN_PROGRESS, job_id="a", held=True),
            an_upload(state=State.IN_PROGRESS, job_id="a", held=True),
            an_upload(state=State.IN_PROGRESS, job_id="a"),
            an_upload(state=State.IN_PROGRESS, job_id="b", held=True),
        ]
        for upload, due_at in zip(uploads, (500.0, PARKED, 500.0, 500.0), strict=True):
            records.uploads.add(upload)
            records.outbox.put(an_entry(upload.key, Kind.SEND_GRANT, due_at=due_at))
        released = records.outbox.release("a", 100.0)
        return released, [records.outbox.of(Subject.of_upload(upload.key))[0].due_at for upload in uploads]

    assert await sql_database.write(work) == (1, [100.0, PARKED, 500.0, 500.0])


async def test_the_hold_of_an_upload_is_stored(sql_database: Database) -> None:
    def work(records: Records) -> list[bool | None]:
        upload = an_upload()
        records.uploads.add(upload)
        saved = records.uploads.save(upload, changed(upload, held=True))
        known = records.uploads.get(upload.key)
        return [saved.held, None if known is None else known.held]

    assert await sql_database.write(work) == [True, True]


async def test_the_ledger_and_the_report_of_a_device_come_back_as_they_were(sql_database: Database) -> None:
    ledger = Ledger(5, 7, 9.5, (Paid("u1", 1, 2, 5),))
    budget = DeviceBudget(day=BudgetUse(10, 3), holds=("device_load",))

    def work(records: Records) -> list[object]:
        records.clients.save([a_client("client-1", budget=budget, budget_at=1.0), a_client("client-2")])
        records.gate.put_ledger("client-1", ledger)
        found = records.clients.get("client-1")
        return [
            records.gate.ledger("client-1"),
            records.gate.ledger("client-2"),
            records.clients.budgets(["client-1", "client-2", "client-3"]),
            None if found is None else (found.budget, found.budget_at),
        ]

    assert await sql_database.write(work) == [ledger, Ledger(), {"client-1": budget}, (budget, 1.0)]
