"""The schema: migrations against models, upgrades, and an index for every query.

Rule: the migrations are run as the program runs them.
"""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, MetaData, create_engine, event, insert, select, text

from control_plane.adapters import migrations
from control_plane.adapters.database import SqlDatabase, migrate, migration
from control_plane.adapters.database.engines import parse_url
from control_plane.adapters.database.migration import upgrade
from control_plane.adapters.database.rows import upload_values
from control_plane.adapters.database.tables import METADATA
from control_plane.domain.audit.model import Act, AuditEntry
from control_plane.domain.changes import UploadCreated
from control_plane.domain.clients import Client
from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.schedules.model import CellState, RunKey, RunKind
from control_plane.domain.selectors import parse
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State
from control_plane.domain.webhooks import DeliveryState
from control_plane.services.audit.ports import AuditFilter
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Page, Records, Subject, UploadFilter
from control_plane.services.ports.fleet import KeptListing
from control_plane.services.ports.overview import Replica
from control_plane.services.ports.schedules import CellFilter, CellPosition, RunFilter
from control_plane.services.ports.sessions import StoredToken
from schemas.messages import FileList
from tests.support.databases import a_client, an_entry, an_upload
from tests.support.postgres import Postgres, postgres

__all__ = ["postgres"]

FIRST: Final = "0001"
NEW_IN_UPLOADS: Final = {
    "reason_code": None,
    "setbacks": 0,
    "job_id": None,
    "job_file": None,
    "listed": None,
    "traceparent": None,
    "after": "keep",
    "after_receipt": None,
    "held": False,
    "receipt": None,
}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'backhaul.db'}"
    cluster: Postgres = request.getfixturevalue("postgres")
    return cluster.url(cluster.create_database())


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The same database, through a connection of the test."""
    one = create_engine(parse_url(url))
    yield one
    one.dispose()


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), METADATA)
        return found


def test_the_migrations_build_the_schema_of_the_models(url: str, engine: Engine) -> None:
    migrate(url)
    assert differences(engine) == []
    migrate(url)
    assert differences(engine) == []


# --- from the first revision, and back --------------------------------------------------------------------------------


def values_of_each_type(columns: Sequence[Column[Any]], number: int) -> dict[str, object]:
    """A value for each column, which shows the column and the row it came from."""
    values: dict[str, object] = {}
    for column in columns:
        kind = column.type.python_type
        values[column.name] = f"{column.name}-{number}" if kind is str else kind(number)
    return values


def fill(connection: Connection, rows: int) -> None:
    """Put rows in every table, parents before children."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if table.name not in {"alembic_version", "checks"}:
            for number in range(1, rows + 1):
                connection.execute(insert(table), values_of_each_type(list(table.columns), number))


def contents(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    metadata = MetaData()
    metadata.reflect(connection)
    return {
        table.name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key))]
        for table in metadata.sorted_tables
        if table.name != "alembic_version"
    }


def test_an_upgrade_from_0001_keeps_every_row(url: str, engine: Engine) -> None:
    upgrade(parse_url(url), 5, FIRST)
    with engine.begin() as connection:
        fill(connection, 3)
        before = contents(connection)
    migrate(url)
    assert differences(engine) == []
    with engine.connect() as connection:
        after = contents(connection)
    renamed = {"upload_id": "subject_id", "subject": "target"}
    assert after.pop("outbox") == [
        {renamed.get(name, name): value for name, value in row.items()}
        | {"subject_type": "upload", "last_error_code": None, "last_error_text": None, "last_error_at": None}
        for row in before.pop("tasks")
    ]
    assert after.pop("uploads") == [row | NEW_IN_UPLOADS for row in before.pop("uploads")]
    assert after.pop("changes") == []
    assert after.pop("groups") == []
    fleet: dict[str, object] = {
        "timezone": None,
        "roots": "[]",
        "types": "[]",
        "set_labels": "{}",
        "expected": False,
        "note": "",
    }
    fleet |= {"budget": None, "budget_at": None, "session": None, "keys_version": None, "unverified": 0}
    assert after.pop("clients") == [row | fleet for row in before.pop("clients")]
    assert {name: rows for name, rows in after.items() if rows or name in before} == before


def test_a_downgrade_to_0001_restores_every_row(url: str, engine: Engine) -> None:
    upgrade(parse_url(url), 5, FIRST)
    with engine.begin() as connection:
        fill(connection, 3)
        before = contents(connection)
    migrate(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE outbox SET last_error_code = 'internal'"))
        command.downgrade(migration.configuration(connection), FIRST)
    with engine.connect() as connection:
        assert contents(connection) == before
    migrate(url)
    assert differences(engine) == []


async def test_a_downgrade_to_0003_keeps_what_devices_reported(url: str, engine: Engine) -> None:
    """The schema before has no clients that were never seen, and no labels of operators."""
    database = SqlDatabase.open(url)
    labelled = a_client("a", labels={"site": "oslo", "x": "y"}, set_labels={"site": "berlin", "ring": "beta"})
    expected = Client(client_id="b", set_labels={"site": "berlin"}, expected=True)
    await database.write(lambda records: records.clients.save([labelled, expected]))
    await database.close()
    with engine.begin() as connection:
        command.downgrade(migration.configuration(connection), "0003")
        left = contents(connection)
    assert [row["client_id"] for row in left["clients"]] == ["a"]
    labels = [(row["client_id"], row["name"], row["value"]) for row in left["client_labels"]]
    assert labels == [("a", "site", "oslo"), ("a", "x", "y")]


async def test_an_upload_of_0001_has_a_reason_that_its_client_reported(url: str, engine: Engine) -> None:
    upgrade(parse_url(url), 5, FIRST)
    upload = an_upload(reason=Reason(ReasonCode.CLIENT_REPORTED, "no network"), strikes=2)
    entry = an_entry(upload.key, Kind.ABORT_MULTIPART, due_at=7.0, target="s3-1")
    with engine.begin() as connection:
        metadata = MetaData()
        metadata.reflect(connection)
        uploads, tasks = metadata.tables["uploads"], metadata.tables["tasks"]
        row = {name: value for name, value in upload_values(upload, 0).items() if name in uploads.columns}
        connection.execute(insert(uploads), row)
        key = {"client_id": upload.client_id, "upload_id": upload.upload_id, "kind": "abort_multipart"}
        connection.execute(
            insert(tasks), {**key, "subject": "s3-1", "attempt": 1, "not_before": 0.0, "due_at": 7.0, "tries": 0}
        )
    database = SqlDatabase.open(url)
    assert await database.read(lambda records: records.uploads.get(upload.key)) == upload
    assert await database.read(lambda records: records.outbox.of(Subject.of_upload(upload.key))) == [entry]
    await database.close()


def test_the_revisions_are_one_line_from_the_first() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_bases() == [FIRST]
    assert len(scripts.get_heads()) == 1


def test_a_database_of_a_later_version_is_bad_input(url: str, engine: Engine) -> None:
    migrate(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadInput, match="later version"):
        SqlDatabase.open(url)


def test_a_migration_that_fails_leaves_nothing_behind(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE idempotency (mine INTEGER)"))
    with pytest.raises(Exception, match="idempotency"):
        migrate(url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE idempotency"))
    migrate(url)
    assert differences(engine) == []


async def test_processes_that_start_together_migrate_once(url: str, engine: Engine) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(6)))
    assert differences(engine) == []


# --- every query has its index ----------------------------------------------------------------------------------------

QUERIES: Final[dict[str, Callable[[Records], object]]] = {
    "uploads.get": lambda records: records.uploads.get(an_upload().key),
    "uploads.by_id": lambda records: records.uploads.by_id("u"),
    "uploads.by_s3_key": lambda records: records.uploads.by_s3_key("k"),
    "uploads.retried_of": lambda records: records.uploads.retried_of("a"),
    "uploads.add": lambda records: records.uploads.add(an_upload()),
    "uploads.open_of": lambda records: records.uploads.open_of("a"),
    "uploads.overdue": lambda records: records.uploads.overdue(1.0, 10),
    "uploads.deadline_ahead": lambda records: records.uploads.deadline_ahead(1.0, 10),
    "uploads.prune": lambda records: records.uploads.prune(1.0, 10),
    "uploads.list": lambda records: records.uploads.list(UploadFilter(), Page()),
    "uploads.list after a cursor": lambda records: records.uploads.list(UploadFilter(), Page(10, "WzEuMCwiYSIsImIiXQ")),
    "uploads.list of a client": lambda records: records.uploads.list(UploadFilter(client_id="a"), Page()),
    "uploads.list of an error": lambda records: records.uploads.list(UploadFilter(error="busy"), Page()),
    "uploads.list of a time": lambda records: records.uploads.list(
        UploadFilter(created_since=1.0, created_before=2.0), Page()
    ),
    "uploads.list of states": lambda records: records.uploads.list(
        UploadFilter(states=frozenset({State.FAILED, State.EXPIRED})), Page(10, "WzEuMCwiYSIsImIiXQ")
    ),
    "uploads.list of a job": lambda records: records.uploads.list(UploadFilter(job_id="j"), Page()),
    "uploads.list of an end": lambda records: records.uploads.list(
        UploadFilter(states=frozenset({State.FAILED}), ended_since=1.0), Page()
    ),
    "uploads.open_among": lambda records: records.uploads.open_among(["a", "b"]),
    "outbox.of": lambda records: records.outbox.of(Subject.of_upload(an_upload().key)),
    "outbox.put": lambda records: records.outbox.put(an_entry(an_upload().key)),
    "outbox.drop": lambda records: records.outbox.drop(Subject.of_upload(an_upload().key), Kind.COMPLETE, ""),
    "outbox.due": lambda records: records.outbox.due(1.0, 10),
    "outbox.wake": lambda records: records.outbox.wake("a", 1.0),
    "outbox.wake_failed": lambda records: records.outbox.wake_failed(["busy"], 1.0),
    "outbox.pull_in": lambda records: records.outbox.pull_in(Kind.COMPLETE, 9.0, 1.0),
    "outbox.next_due": lambda records: records.outbox.next_due(),
    "clients.get": lambda records: records.clients.get("a"),
    "clients.among": lambda records: records.clients.among(["a", "b"]),
    "clients.presences": lambda records: records.clients.presences(["a", "b"]),
    "clients.save": lambda records: records.clients.save([a_client("a", labels={"x": "y"})]),
    "clients.list": lambda records: records.clients.list(Page(10, "WyJhIl0")),
    "clients.matching ids": lambda records: records.clients.matching(["a", "b"], None),
    "clients.matching patterns": lambda records: records.clients.matching(["shop-*", "*-7"], None),
    "clients.matching labels": lambda records: records.clients.matching((), parse("a=b,c in (d,e),f,!g,h!=i")),
    "clients.matching excluded labels": lambda records: records.clients.matching((), parse("!g,h notin (i)")),
    "listings.get": lambda records: records.listings.get("a", "r"),
    "listings.put": lambda records: records.listings.put(KeptListing("a", "r", 1.0, FileList())),
    "listings.prune": lambda records: records.listings.prune(1.0, 10),
    "groups.get": lambda records: records.groups.get("beta"),
    "groups.delete": lambda records: records.groups.delete("beta"),
    "clients.delete": lambda records: records.clients.delete("a"),
    "idempotency.get": lambda records: records.idempotency.get("a", "b", "c"),
    "changes.append": lambda records: records.changes.append([UploadCreated(at=1.0, client_id="a", upload_id="u")]),
    "changes.after": lambda records: records.changes.after(1, 10),
    "changes.about": lambda records: records.changes.about("a", "u", 10),
    "changes.span": lambda records: records.changes.span(),
    "changes.prune": lambda records: records.changes.prune(1.0, 10),
    "audit.add": lambda records: records.audit.add(
        AuditEntry(at=1.0, act=Act.JOB_PAUSE, subject="ann", clients=("a", "b"))
    ),
    "audit.list": lambda records: records.audit.list(AuditFilter(since=0.0, until=9.0), Page(10)),
    "audit.list of a client": lambda records: records.audit.list(AuditFilter(client_id="a"), Page(10)),
    "audit.list of a subject": lambda records: records.audit.list(AuditFilter(subject="ann"), Page(10)),
    "audit.list of a target": lambda records: records.audit.list(AuditFilter(target="job:j"), Page(10)),
    "audit.after": lambda records: records.audit.after("w", 1, 10),
    "audit.checkpoint": lambda records: records.audit.checkpoint("w"),
    "audit.checkpoints": lambda records: records.audit.checkpoints("w", 1, 10),
    "audit.unsent": lambda records: records.audit.unsent(10),
    "webhooks.get": lambda records: records.webhooks.get("w"),
    "webhooks.lock": lambda records: records.webhooks.lock("w"),
    "webhooks.delete": lambda records: records.webhooks.delete("w"),
    "webhooks.delivery": lambda records: records.webhooks.delivery("w", 1),
    "webhooks.waiting": lambda records: records.webhooks.waiting("w", 10),
    "webhooks.waiting_subjects": lambda records: records.webhooks.waiting_subjects("w", ["a", "b"]),
    "webhooks.due": lambda records: records.webhooks.due("w", 1.0, 10),
    "webhooks.oldest_waiting": lambda records: records.webhooks.oldest_waiting("w", "a"),
    "webhooks.hasten": lambda records: records.webhooks.hasten("w", 9.0, 1.0),
    "webhooks.deliveries": lambda records: records.webhooks.deliveries("w", None, Page(10, "WzVd")),
    "webhooks.deliveries in a state": lambda records: records.webhooks.deliveries("w", DeliveryState.DEAD, Page()),
    "webhooks.prune": lambda records: records.webhooks.prune(DeliveryState.DEAD, 1.0, 10),
    "overview.presences": lambda records: records.overview.presences(),
    "overview.open_uploads": lambda records: records.overview.open_uploads("control-plane", 10),
    "overview.count_open": lambda records: records.overview.count_open(),
    "overview.ended": lambda records: records.overview.ended(1.0, 2.0),
    "overview.errors": lambda records: records.overview.errors(1.0, 3),
    "overview.put_replica": lambda records: records.overview.put_replica(Replica("a", "h", "1", 1.0, 2.0)),
    "overview.replicas": lambda records: records.overview.replicas(1.0),
    "overview.remove_replica": lambda records: records.overview.remove_replica("a"),
    "overview.prune_replicas": lambda records: records.overview.prune_replicas(1.0),
    "sessions.get": lambda records: records.sessions.get("d"),
    "sessions.take": lambda records: records.sessions.take("d"),
    "sessions.prune": lambda records: records.sessions.prune(1.0),
    "tokens.get": lambda records: records.tokens.get("t"),
    "tokens.saw": lambda records: records.tokens.saw(StoredToken("t", "ana", None, None, 9.0)),
    "tokens.revoke": lambda records: records.tokens.revoke(StoredToken("t", "ana", None, None, 9.0, revoked_at=1.0)),
    "tokens.revoked": lambda records: records.tokens.revoked(1.0),
    "tokens.list": lambda records: records.tokens.list(1.0, Page(10, "WzIuMCwiYSJd")),
    "tokens.prune": lambda records: records.tokens.prune(1.0),
    "devices.get": lambda records: records.devices.get("a"),
    "devices.among": lambda records: records.devices.among(["a", "b"]),
    "devices.list": lambda records: records.devices.list(Page(10, "WyJhIl0")),
    "devices.save": lambda records: records.devices.save(
        Device("a", DeviceState.ACTIVE, 1.0, "ana", public_key=bytes(32))
    ),
    "devices.delete": lambda records: records.devices.delete("a"),
    "devices.by_key": lambda records: records.devices.by_key(bytes(32)),
    "devices.revoke_key": lambda records: records.devices.revoke_key(bytes(32), "a", 1.0),
    "devices.version": lambda records: records.devices.version(),
    "devices.changed_since": lambda records: records.devices.changed_since(1),
    "idempotency.prune": lambda records: records.idempotency.prune(1.0),
    "schedules.get": lambda records: records.schedules.get("a"),
    "schedules.due": lambda records: records.schedules.due(1.0, 10),
    "schedules.list": lambda records: records.schedules.list(Page(10, "WyJhIl0")),
    "schedules.with_ended_jobs": lambda records: records.schedules.with_ended_jobs(10),
    "schedules.run": lambda records: records.schedules.run(RunKey("a", RunKind.TICK, 1.0)),
    "schedules.running": lambda records: records.schedules.running("a"),
    "schedules.next_queued": lambda records: records.schedules.next_queued("a"),
    "schedules.queued_for": lambda records: records.schedules.queued_for("a", "overlap"),
    "schedules.count_queued": lambda records: records.schedules.count_queued("a"),
    "schedules.runs": lambda records: records.schedules.runs(RunFilter("a", since=1.0, until=2.0), Page()),
    "schedules.prune": lambda records: records.schedules.prune(1.0, 10),
    "schedules.delete": lambda records: records.schedules.delete("a"),
    "coverage.add": lambda records: records.coverage.add("a", 1.0, "j", now=1.0, watch_until=2.0),
    "coverage.ended": lambda records: records.coverage.ended(CellPosition(1.0), 10),
    "coverage.healable": lambda records: records.coverage.healable("a", 1.0, 10),
    "coverage.with_missing": lambda records: records.coverage.with_missing(1.0),
    "coverage.counts": lambda records: records.coverage.counts("a", 1.0, 2.0),
    "coverage.list": lambda records: records.coverage.list(CellFilter("a", 1.0, 2.0), Page(10, "WyJhIl0")),
    "coverage.list of a state": lambda records: records.coverage.list(
        CellFilter("a", 1.0, 2.0, CellState.MISSING), Page()
    ),
    "coverage.prune": lambda records: records.coverage.prune(1.0, 10, now=1.0),
}
CALCULATED: Final = ("SCAN anon_", "SCAN (subquery-", "SCAN CONSTANT ROW")
"""Over the result of another query, and over none."""

LISTS: Final = {
    *("uploads.list", "uploads.list after a cursor", "uploads.list of a time", "clients.list"),
    "clients.matching excluded labels",
    *("schedules.with_ended_jobs", "coverage.with_missing", "audit.unsent"),
}
"""These scan an index from one end: a list until the page is full, and the ids of all clients to count or select."""

SORTS: Final = {"uploads.open_among", "overview.ended", "overview.errors"}
"""Of the open uploads of one page of clients the one that changed last: an index on that costs each change. The sums of
what ended in a time are read from an index that begins with the time, and grouped by five states or by error codes."""

SUMS: Final = {"overview.presences", "overview.open_uploads", "overview.replicas", "overview.prune_replicas"}
"""Every client, and every duty that failed, at most once a second in one process; and the handful of replicas."""


@pytest.fixture
async def explained(tmp_path: Path) -> AsyncIterator[tuple[SqlDatabase, Callable[[], list[str]]]]:
    """A database on SQLite, and the query plans of the statements that ran."""
    database = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")
    seen: list[str] = []
    opened: list[sqlite3.Connection] = []

    def watch(connection: sqlite3.Connection, _: object) -> None:
        opened.append(connection)
        connection.set_trace_callback(seen.append)

    def plans() -> list[str]:
        statements = [one for one in seen if one.startswith(("SELECT", "UPDATE", "DELETE"))]
        opened[0].set_trace_callback(None)
        return [row[3] for one in statements for row in opened[0].execute(f"EXPLAIN QUERY PLAN {one}")]

    event.listen(database._writing, "connect", watch)
    yield database, plans
    await database.close()


@pytest.mark.parametrize("name", QUERIES)
async def test_every_query_uses_an_index_and_sorts_nothing(
    explained: tuple[SqlDatabase, Callable[[], list[str]]], name: str
) -> None:
    database, plans = explained
    await database.write(QUERIES[name])
    walks = [plan for plan in plans() if plan.startswith("SCAN") and not plan.startswith(CALCULATED)]
    assert name in SUMS or all(name in LISTS and "INDEX" in plan for plan in walks), walks
    assert name in SORTS or [plan for plan in plans() if "TEMP B-TREE" in plan] == []


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("uploads.open_of", "ix_uploads_live_of_client"),
        ("uploads.overdue", "ix_uploads_overdue"),
        ("uploads.deadline_ahead", "ix_uploads_overdue"),
        ("uploads.prune", "ix_uploads_ended"),
        ("uploads.list of a client", "ix_uploads_newest_of_client"),
        ("uploads.list of an error", "ix_uploads_newest_with_error"),
        ("uploads.list of states", "ix_uploads_newest_in_state"),
        ("outbox.due", "ix_outbox_due_at"),
        ("outbox.wake_failed", "ix_outbox_due_at"),
        ("outbox.pull_in", "ix_outbox_due_at"),
        ("changes.prune", "ix_changes_at"),
        ("audit.list", "ix_audit_at"),
        ("audit.list of a client", "ix_audit_clients_client"),
        ("audit.list of a subject", "ix_audit_subject"),
        ("audit.list of a target", "ix_audit_target"),
        ("audit.unsent", "ix_audit_checkpoints_unsent"),
        ("webhooks.waiting", "ix_webhook_deliveries_due"),
        ("webhooks.waiting_subjects", "ix_webhook_deliveries_of_subject"),
        ("webhooks.due", "ix_webhook_deliveries_due"),
        ("webhooks.oldest_waiting", "ix_webhook_deliveries_of_subject"),
        ("webhooks.hasten", "ix_webhook_deliveries_due"),
        ("webhooks.deliveries in a state", "ix_webhook_deliveries_in_state"),
        ("webhooks.prune", "ix_webhook_deliveries_ended"),
        ("clients.matching labels", "ix_client_labels_bearers"),
    ],
)
async def test_a_query_uses_its_index(
    explained: tuple[SqlDatabase, Callable[[], list[str]]], name: str, index: str
) -> None:
    database, plans = explained
    await database.write(QUERIES[name])
    assert any(re.search(rf"INDEX {index}\b", plan) for plan in plans()), plans()
