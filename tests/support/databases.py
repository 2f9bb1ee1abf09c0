"""Fixtures with each kind of database, and examples of the rows.

Rule: a test with the fixture `database` runs once on each kind. Examples fill every field, with values that a device,
an operator or an object store may send.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.adapters.database import SqlDatabase, migrate
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.changes import Change, UploadStateChanged
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import Origin, PartRecord, Proof, State, Stray, Upload, UploadKey
from control_plane.services.ports.database import PARKED, Database, Failure, IdempotencyRecord, OutboxEntry, Subject
from schemas.messages import AgentInfo
from schemas.values import BudgetUse, DeviceBudget, DigestName, ErrorCode, Fingerprint, UploadOptions, WantedPart
from tests.support.postgres import Postgres

_fresh: Final = itertools.count(1)

KINDS: Final = ("memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
SQL_KINDS: Final = KINDS[1:]


async def _opened(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Database]:
    if request.param == "memory":
        database: Database = MemoryDatabase()
    elif request.param == "sqlite":
        database = SqlDatabase.open(f"sqlite:///{directory / 'backhaul.db'}", patience=5)
    else:
        cluster: Postgres = request.getfixturevalue("postgres")
        database = SqlDatabase.open(
            cluster.url(cluster.create_database(request.getfixturevalue("migrated"))), patience=5
        )
    yield database
    await database.close()


@pytest.fixture(scope="session")
def migrated(postgres: Postgres) -> str:
    """The name of a migrated database to copy: faster than migrating one for each test."""
    name = postgres.create_database()
    migrate(postgres.url(name))
    return name


@pytest.fixture(params=KINDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Each kind of database in turn, empty."""
    async for one in _opened(request, tmp_path):
        yield one


@pytest.fixture(params=SQL_KINDS)
async def sql_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """Each database in turn, empty."""
    async for one in _opened(request, tmp_path):
        yield one


# --- one example of each ----------------------------------------------------------------------------------------------


def an_upload(client_id: str = "restaurant-1", **changes: object) -> Upload:
    """A queued upload with a unique id and object key."""
    number = next(_fresh)
    upload = Upload(
        client_id=client_id,
        upload_id=f"upload-{number}",
        owner="control-plane",
        origin=Origin.REST,
        s3_key=f"uploads/{client_id}/{number}",
        token=f"token-{number}",
        created_at=1_000.0,
        updated_at=1_000.0,
        deadline=2_000.0,
    )
    return replace(upload, **changes)


def an_entry(key: UploadKey, kind: Kind = Kind.SEND_DOWNLOAD, *, due_at: float = 0.0, target: str = "") -> OutboxEntry:
    """An outbox entry of an upload."""
    return OutboxEntry(Subject.of_upload(key), Duty(kind, 1, 0.0, target), due_at)


def a_client(client_id: str, **changes: object) -> Client:
    """A client that is online."""
    client = Client(client_id=client_id, install_id="i-1", epoch=1, sequence=0, online=True, seen_at=1_000.0)
    return replace(client, **changes)


# --- strategies -------------------------------------------------------------------------------------------------------

instants = st.floats(min_value=0, max_value=1e12, allow_nan=False)
counts = st.integers(min_value=0, max_value=2**53 - 1)
# U+0000 is the only character that not every database can store; surrogates never leave the decoder.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
maybe_texts = st.none() | texts
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
reasons = st.builds(Reason, st.sampled_from([*ReasonCode, ErrorCode.BUSY, "a_code_of_a_later_version"]), texts)
parts = st.dictionaries(
    st.integers(min_value=1, max_value=10_000), st.builds(PartRecord, maybe_texts, maybe_texts), max_size=8
)
wanted = st.builds(WantedPart, st.integers(1, 10_000), st.integers(0, 2**63 - 1), maybe_texts)
big = st.integers(min_value=0, max_value=2**64 - 1)
times_ns = st.integers(-(2**63), 2**63 - 1)


@st.composite
def uploads(draw: st.DrawFn, key: UploadKey | None = None) -> Upload:
    """An upload with any value in every field and unique keys."""
    fresh = an_upload()
    return draw(
        st.builds(
            Upload,
            client_id=st.just(key.client_id if key else fresh.client_id),
            upload_id=st.just(key.upload_id if key else fresh.upload_id),
            owner=texts,
            origin=st.sampled_from(Origin),
            s3_key=st.just(fresh.s3_key),
            token=texts,
            created_at=instants,
            updated_at=instants,
            deadline=instants,
            file_path=maybe_texts,
            digest=st.sampled_from(DigestName),
            chunk_size=counts,
            options=st.builds(
                UploadOptions,
                priority=st.integers(-100, 100),
                max_bytes_per_second=st.none() | st.integers(1, 2**40),
                on_change=st.sampled_from(["fail", "prefix"]),
                compression=st.sampled_from(["none", "gzip"]),
                give_up_after=st.integers(1, 31_536_000),
            ),
            metadata=st.dictionaries(st.text(max_size=5), jsons, max_size=3),
            state=st.sampled_from(State),
            version=st.just(0),
            attempt=st.integers(1, 1_000_000),
            sequence=counts,
            s3_upload_id=maybe_texts,
            one_put=st.booleans(),
            file_size=st.none() | st.integers(0, 2**63 - 1),
            part_size=st.none() | counts,
            fingerprint=st.none() | st.builds(Fingerprint, counts, times_ns, times_ns, big, big),
            parts=parts,
            wanted=st.lists(wanted, max_size=4).map(tuple),
            resume_at=instants,
            touched_at=instants,
            strikes=st.integers(0, 3),
            setbacks=st.integers(0, 9),
            bytes_sent=counts,
            client_busy=st.booleans(),
            reason=st.none() | reasons,
            error=maybe_texts,
            message=maybe_texts,
            proof=st.none() | st.sampled_from(Proof),
            completed_at=st.none() | instants,
            litter=st.lists(texts, max_size=3).map(tuple),
            strays=st.lists(st.builds(Stray, texts, texts, instants), max_size=3).map(tuple),
        )
    )


uses = st.none() | st.builds(
    BudgetUse, counts, counts, st.none() | st.floats(0, 1e11).map(lambda at: datetime.fromtimestamp(at, UTC))
)
device_budgets = st.builds(DeviceBudget, uses, uses, uses, uses, st.booleans(), st.lists(texts, max_size=3).map(tuple))

clients = st.builds(
    Client,
    client_id=st.builds(lambda: f"client-{next(_fresh)}"),
    install_id=texts,
    epoch=counts,
    sequence=counts,
    online=st.booleans(),
    seen_at=instants,
    connected_at=st.none() | instants,
    registered_at=instants,
    retired=st.lists(texts, max_size=3).map(tuple),
    conflict_at=st.none() | instants,
    agent=st.builds(AgentInfo, texts, st.lists(st.integers(0, 9), max_size=2).map(tuple), texts, texts, texts),
    labels=st.dictionaries(texts, texts, max_size=4),
    capabilities=st.lists(texts, max_size=3).map(tuple),
    default_file=maybe_texts,
    timezone=maybe_texts,
    roots=st.lists(texts, max_size=3).map(tuple),
    types=st.lists(texts, max_size=3).map(tuple),
    set_labels=st.dictionaries(texts, texts, max_size=4),
    expected=st.booleans(),
    note=texts,
    budget=st.none() | device_budgets,
    budget_at=st.none() | instants,
)


failures = st.none() | st.builds(Failure, reasons, instants)


def entries(key: UploadKey) -> st.SearchStrategy[OutboxEntry]:
    """Outbox entries of one upload."""
    duty = st.builds(Duty, st.sampled_from(Kind), st.integers(1, 3), instants, texts)
    return st.builds(
        OutboxEntry, st.just(Subject.of_upload(key)), duty, instants | st.just(PARKED), st.integers(0, 100), failures
    )


_FACTS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "at": instants,
    "nominal_at": instants,
    "attempt": st.integers(1, 3),
    "version": st.integers(1, 9),
    "was": maybe_texts,
    "error": maybe_texts,
    "outcome": maybe_texts,
    "reason": maybe_texts,
    "job_id": maybe_texts,
}
_OF_UPLOADS: Final = {"was": st.sampled_from(State), "state": st.sampled_from(State)}
_OF_JOBS: Final = {"job_id": texts}


def _facts(kind: type[Change]) -> dict[str, st.SearchStrategy[Any]]:
    more = _OF_UPLOADS if kind is UploadStateChanged else _OF_JOBS if kind.subject == "job_id" else {}
    return {one.name: {**_FACTS, **more}.get(one.name, texts) for one in fields(kind)}


changes: st.SearchStrategy[Change] = st.one_of(*(st.builds(kind, **_facts(kind)) for kind in get_args(Change)))

idempotency_records = st.builds(
    IdempotencyRecord,
    caller=texts,
    client_id=texts,
    idempotency_key=st.builds(lambda: f"key-{next(_fresh)}"),
    body=texts,
    upload_id=texts,
    created_at=instants,
)
