"""The schema: migrations against models, upgrades, and an index for every query.

Rule: the migrations are run as the program runs them.
"""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, text

from control_plane.adapters import migrations
from control_plane.adapters.database import SqlDatabase, migrate
from control_plane.adapters.database.engines import parse_url
from control_plane.adapters.database.migration import upgrade
from control_plane.adapters.database.tables import METADATA
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import State
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Page, Records, Subject, UploadFilter
from tests.support.postgres import Postgres, postgres
from tests.support.stores import a_client, a_task, an_upload

__all__ = ["postgres"]

FIRST: Final = "0001"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'backhaul.db'}"
    cluster: Postgres = request.getfixturevalue("postgres")
    return cluster.url(cluster.create_database())


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """The same database, for looking at it from outside."""
    one = create_engine(parse_url(url))
    yield one
    one.dispose()


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        found: list[object] = compare_metadata(MigrationContext.configure(connection), METADATA)
        return found


def test_the_migrations_build_what_the_models_say(url: str, engine: Engine) -> None:
    migrate(url)
    assert differences(engine) == []
    migrate(url)
    assert differences(engine) == []


def test_the_first_revision_is_upgraded_with_its_rows(url: str, engine: Engine) -> None:
    upgrade(parse_url(url), 5, FIRST)
    with engine.begin() as connection:
        connection.execute(text("UPDATE checks SET count = 41"))
    migrate(url)
    assert differences(engine) == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count FROM checks")).scalar() == 41


def test_history_is_one_line_from_the_first_revision() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_bases() == [FIRST]
    assert len(scripts.get_heads()) == 1


def test_a_database_of_a_later_version_is_one_clear_error(url: str, engine: Engine) -> None:
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
    "upload": lambda records: records.uploads.get(an_upload().key),
    "uploads_by_id": lambda records: records.uploads.by_id("u"),
    "upload_by_s3_key": lambda records: records.uploads.by_s3_key("k"),
    "add_upload": lambda records: records.uploads.add(an_upload()),
    "open_uploads_of": lambda records: records.uploads.open_of("a"),
    "overdue": lambda records: records.uploads.overdue(1.0, 10),
    "prune_uploads": lambda records: records.uploads.prune(1.0, 10),
    "list": lambda records: records.uploads.list(UploadFilter(), Page()),
    "list behind": lambda records: records.uploads.list(UploadFilter(), Page(10, "WzEuMCwiYSIsImIiXQ")),
    "list of client": lambda records: records.uploads.list(UploadFilter(client_id="a"), Page()),
    "list of error": lambda records: records.uploads.list(UploadFilter(error="busy"), Page()),
    "list of time": lambda records: records.uploads.list(UploadFilter(created_after=1.0, created_before=2.0), Page()),
    "list of states": lambda records: records.uploads.list(
        UploadFilter(states=frozenset({State.FAILED, State.EXPIRED})), Page(10, "WzEuMCwiYSIsImIiXQ")
    ),
    "tasks_of": lambda records: records.outbox.of(Subject.of_upload(an_upload().key)),
    "put_task": lambda records: records.outbox.put(a_task(an_upload().key)),
    "drop_task": lambda records: records.outbox.drop(Subject.of_upload(an_upload().key), Kind.COMPLETE, ""),
    "due_tasks": lambda records: records.outbox.due(1.0, 10),
    "wake_tasks": lambda records: records.outbox.wake("a", 1.0),
    "next_due": lambda records: records.outbox.next_due(),
    "client": lambda records: records.clients.get("a"),
    "clients": lambda records: records.clients.among(["a", "b"]),
    "save_clients": lambda records: records.clients.save([a_client("a", labels={"x": "y"})]),
    "list_clients": lambda records: records.clients.list({}, Page(10, "WyJhIl0")),
    "list_clients by labels": lambda records: records.clients.list({"a": "b", "c": "d"}, Page(10, "WyJhIl0")),
    "delete_client": lambda records: records.clients.delete("a"),
    "idempotency": lambda records: records.idempotency.get("a", "b", "c"),
    "prune_idempotency": lambda records: records.idempotency.prune(1.0),
}
LISTS: Final = {"list", "list behind", "list of time", "list_clients"}
"""These walk an index from one end until the page is full; `total` counts the keys of all clients."""


@pytest.fixture
async def explained(tmp_path: Path) -> AsyncIterator[tuple[SqlDatabase, Callable[[], list[str]]]]:
    """A store on SQLite, and what its planner says of the statements that were run."""
    store = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}")
    seen: list[str] = []
    opened: list[sqlite3.Connection] = []

    def watch(connection: sqlite3.Connection, _: object) -> None:
        opened.append(connection)
        connection.set_trace_callback(seen.append)

    def plans() -> list[str]:
        statements = [one for one in seen if one.startswith(("SELECT", "UPDATE", "DELETE"))]
        opened[0].set_trace_callback(None)
        return [row[3] for one in statements for row in opened[0].execute(f"EXPLAIN QUERY PLAN {one}")]

    event.listen(store._writing, "connect", watch)
    yield store, plans
    await store.close()


@pytest.mark.parametrize("name", QUERIES)
async def test_every_query_finds_its_rows_by_an_index_in_their_order(
    explained: tuple[SqlDatabase, Callable[[], list[str]]], name: str
) -> None:
    store, plans = explained
    await store.write(QUERIES[name])
    walks = [plan for plan in plans() if plan.startswith("SCAN") and not plan.startswith("SCAN anon_")]
    assert all(name in LISTS and "INDEX" in plan for plan in walks), walks
    assert [plan for plan in plans() if "TEMP B-TREE" in plan] == []


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("open_uploads_of", "ix_uploads_live_of_client"),
        ("overdue", "ix_uploads_overdue"),
        ("prune_uploads", "ix_uploads_ended"),
        ("list of client", "ix_uploads_newest_of_client"),
        ("list of error", "ix_uploads_newest_with_error"),
        ("list of states", "ix_uploads_newest_in_state"),
        ("due_tasks", "ix_outbox_due_at"),
        ("list_clients by labels", "ix_client_labels_bearers"),
    ],
)
async def test_a_query_uses_the_index_that_was_made_for_it(
    explained: tuple[SqlDatabase, Callable[[], list[str]]], name: str, index: str
) -> None:
    store, plans = explained
    await store.write(QUERIES[name])
    assert any(re.search(rf"INDEX {index}\b", plan) for plan in plans()), plans()
