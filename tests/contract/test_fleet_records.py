"""What every database promises about the selection of clients; groups, in SQL alone.

Rule: only the port is used. What a selector selects is what its predicate says of each client.
"""

import asyncio
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.access import ANONYMOUS
from control_plane.domain.clients import Client
from control_plane.domain.groups import Group
from control_plane.domain.selectors import EVERYTHING, Relation, Selector, Term, parse
from control_plane.services.clients.beats import Beats
from control_plane.services.clients.choosing import ClientChooser
from control_plane.services.clients.fleet import FleetService
from control_plane.services.clients.sets import ShownSets
from control_plane.services.errors import UnknownGroup
from control_plane.services.ports.database import Database, Page, Records
from tests.support.databases import a_client, database, migrated, sql_database
from tests.support.examples import examples
from tests.support.fakes import FakeClock
from tests.support.postgres import postgres

__all__ = ["database", "migrated", "postgres", "sql_database"]

shared: Final = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(80))

# Few names and values, so that terms hit; a label with a NUL is kept as another text in SQL.
names = st.sampled_from(["site", "model", "", "SITE", "Straße"])
values = st.sampled_from(["berlin", "Berlin", "paris", "", "a'b", "%"])
labels = st.dictionaries(names, values, max_size=3)
fleets = st.dictionaries(
    st.sampled_from(["a", "B", "b-1", "b.1", "b1", "b_1", "c"]), st.tuples(labels, labels), max_size=7
).map(lambda fleet: [a_client(name, labels=device, set_labels=operator) for name, (device, operator) in fleet.items()])
some_values = st.lists(values, min_size=1, max_size=3, unique=True).map(tuple)
terms = st.builds(Term, names, st.sampled_from([Relation.IN, Relation.NOT_IN]), some_values) | st.builds(
    Term, names, st.sampled_from([Relation.EXISTS, Relation.ABSENT])
)
selectors = st.none() | st.builds(Selector, st.just(""), st.lists(terms, max_size=4).map(tuple))
patterns = st.lists(st.sampled_from(["a", "b*", "*1", "b*1", "*", "B", "z", "b_*", "*.*"]), max_size=3)


async def replace_all(database: Database, fleet: list[Client]) -> None:
    def work(records: Records) -> None:
        for client_id in records.clients.matching((), EVERYTHING):
            records.clients.delete(client_id)
        records.clients.save(fleet)

    await database.write(work)


@shared
@given(fleet=fleets, pattern=patterns, selector=selectors)
async def test_sql_selects_what_the_predicate_matches(
    database: Database, fleet: list[Client], pattern: list[str], selector: Selector | None
) -> None:
    await replace_all(database, fleet)
    expected = sorted(
        client.client_id
        for client in fleet
        if any(fnmatchcase(client.client_id, one) for one in pattern)
        or (selector is not None and selector.matches(client.effective_labels))
    )
    assert await database.read(lambda records: records.clients.matching(pattern, selector)) == expected


async def test_labels_of_the_operator_win_and_come_off_again(database: Database) -> None:
    client = a_client("a", labels={"site": "berlin", "floor": "1"})

    async def bearers(text: str) -> list[str]:
        return await database.read(lambda records: records.clients.matching((), parse(text)))

    await database.write(lambda records: records.clients.save([client]))
    changed = a_client("a", labels=client.labels, set_labels={"site": "paris", "ring": "beta"})
    await database.write(lambda records: records.clients.save([changed]))
    assert await bearers("site=berlin") == []
    assert await bearers("site=paris,ring,floor=1") == ["a"]
    await database.write(lambda records: records.clients.save([client]))
    assert await bearers("site=berlin,!ring") == ["a"]


async def test_a_client_that_is_expected_is_selected_and_listed(database: Database) -> None:
    expected = Client(client_id="shop-7", set_labels={"site": "berlin"}, expected=True, note="opens in May")
    await database.write(lambda records: records.clients.save([expected, a_client("shop-8")]))
    assert await database.read(lambda records: records.clients.get("shop-7")) == expected
    assert await database.read(lambda records: records.clients.matching(["shop-*"], None)) == ["shop-7", "shop-8"]
    assert await database.read(lambda records: records.clients.matching((), parse("site=berlin"))) == ["shop-7"]
    page, cursor, count = await database.read(lambda records: records.clients.list(Page(1)))
    assert ([one.client_id for one in page], count) == (["shop-7"], 2)
    rest, cursor, _ = await database.read(lambda records, at=cursor: records.clients.list(Page(1, at)))  # type: ignore[misc]
    assert ([one.client_id for one in rest], cursor) == (["shop-8"], None)


async def test_no_presence_overwrites_what_an_operator_writes_meanwhile(sql_database: Database) -> None:
    """On PostgreSQL several transactions write at the same time."""
    await sql_database.write(lambda records: records.clients.save([a_client("a", epoch=0)]))

    def beat(records: Records) -> None:
        client = records.clients.among(["a"])["a"]
        epoch = client.epoch + 1
        records.clients.save([replace(client, epoch=epoch, labels={"epoch": str(epoch)})])

    def label(number: int) -> Callable[[Records], None]:
        def work(records: Records) -> None:
            client = records.clients.get("a")
            assert client is not None
            records.clients.save([replace(client, set_labels={**client.set_labels, f"l{number}": ""})])

        return work

    writes = [work for number in range(10) for work in (beat, label(number))]
    await asyncio.gather(*(sql_database.write(work) for work in writes))
    client = await sql_database.read(lambda records: records.clients.get("a"))
    assert client is not None
    assert (client.epoch, sorted(client.set_labels)) == (10, [f"l{number}" for number in range(10)])
    everything = parse("epoch=10," + ",".join(client.set_labels))
    assert await sql_database.read(lambda records: records.clients.matching((), everything)) == ["a"]


async def test_more_ids_than_one_statement_takes_are_found(database: Database) -> None:
    many = [a_client(f"c-{number:04}") for number in range(1_200)]
    await database.write(lambda records: records.clients.save(many))
    wanted = [client.client_id for client in many[::-1]]
    found = await database.read(lambda records: records.clients.matching([*wanted, "unknown"], None))
    assert found == wanted[::-1]


async def test_a_group_comes_back_as_it_was_saved(sql_database: Database) -> None:
    beta = Group(
        name="beta", clients=("a", "b-*"), selector="ring=beta", note="first\0", created_at=1.0, updated_at=2.0
    )
    alpha = Group(name="alpha", created_at=3.0, updated_at=3.0)

    def work(records: Records) -> None:
        records.groups.save(alpha)
        records.groups.save(beta)
        records.groups.save(beta)

    await sql_database.write(work)
    stored = Group(
        name="beta", clients=beta.clients, selector="ring=beta", note="first\ufffd", created_at=1.0, updated_at=2.0
    )
    assert await sql_database.read(lambda records: records.groups.list()) == [alpha, stored]
    assert await sql_database.read(lambda records: records.groups.get("beta")) == stored
    assert await sql_database.read(lambda records: records.groups.get("gamma")) is None
    assert await sql_database.write(lambda records: records.groups.delete("beta")) is True
    assert await sql_database.write(lambda records: records.groups.delete("beta")) is False
    assert await sql_database.read(lambda records: records.groups.list()) == [alpha]


async def test_a_text_that_is_no_name_names_no_group(sql_database: Database) -> None:
    """PostgreSQL cannot even look for one with a NUL."""
    service = FleetService(database=sql_database, clock=FakeClock(), chooser=ClientChooser(Beats(0.0), ShownSets()))
    for name in ("a\0", "", "a b", "x" * 65):
        with pytest.raises(UnknownGroup):
            await service.group(ANONYMOUS, name)
        with pytest.raises(UnknownGroup):
            await service.delete_group(ANONYMOUS, name)
