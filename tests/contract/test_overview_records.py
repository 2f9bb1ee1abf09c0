"""The sums of the fleet and the rows of sessions are the same on each database.

Rule: as `tests/contract/test_fleet_records.py`.
"""

from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State
from control_plane.services.ports.database import Database, Failure, OutboxEntry, Records
from control_plane.services.ports.overview import Ended, Presences
from control_plane.services.ports.sessions import SessionKind, StoredSession
from tests.support.databases import a_client, an_entry, an_upload, migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]


async def test_the_sums_of_a_fleet(sql_database: Database) -> None:
    waiting = an_upload("a")
    entry = an_entry(waiting.key, Kind.SEND_GRANT)
    ended = [
        an_upload("a", state=State.COMPLETED, updated_at=at, completed_at=at, file_size=5, part_size=5)
        for at in (10.0, 20.0, 30.0)
    ]
    failed = [an_upload("a", state=State.FAILED, updated_at=20.0, error=code) for code in ("x", "y", "y")]

    def write(records: Records) -> None:
        records.clients.save(
            [a_client("a"), a_client("off", online=False), a_client("new", install_id="", online=False)]
        )
        for upload in (waiting, an_upload("stranger"), an_upload("a", owner="other"), *ended, *failed):
            records.uploads.add(upload)
        failure = Failure(Reason("broker_unavailable", "it is away"), 9.0)
        records.outbox.put(OutboxEntry(entry.subject, entry.duty, 0.0, 1, failure))

    await sql_database.write(write)

    def read(records: Records) -> None:
        overview = records.overview
        assert overview.presences() == Presences(3, 1, [("a", "i-1", 1, 0, 1_000.0)])
        found = {one.key.client_id: one for one in overview.open_uploads("control-plane", 10)}
        assert found["a"].failed == (Kind.SEND_GRANT, "broker_unavailable")
        assert (found["a"].client is not None, found["stranger"].client) == (True, None)
        assert len(overview.open_uploads("control-plane", 1)) == 1
        assert overview.count_open()[State.QUEUED] == 3
        assert overview.ended(20.0, 30.0) == {State.COMPLETED: Ended(1, 5), State.FAILED: Ended(3, 0)}
        assert overview.errors(0.0, 3) == [("y", 2), ("x", 1)]
        assert overview.errors(25.0, 3) == []

    await sql_database.read(read)


async def test_a_session_is_taken_once_and_pruned_when_it_has_ended(sql_database: Database) -> None:
    code = StoredSession("d", SessionKind.CODE, "ana", 10.0, 100.0)
    late = StoredSession("e", SessionKind.BROWSER, "ben", 20.0, 20.0)

    def work(records: Records) -> None:
        sessions = records.sessions
        sessions.add(code)
        sessions.add(late)
        assert sessions.get("d") == code
        assert (sessions.take("d"), sessions.take("d"), sessions.get("d")) == (code, None, None)
        assert (sessions.prune(19.0), sessions.prune(20.0), sessions.get("e")) == (0, 1, None)

    await sql_database.write(work)
