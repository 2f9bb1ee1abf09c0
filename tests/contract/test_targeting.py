"""From ids, patterns, groups and a selector to clients, on each SQL database."""

import pytest

from control_plane.domain.clients import Client
from control_plane.domain.errors import SelectorError
from control_plane.domain.groups import Group
from control_plane.services.clients.targeting import MAX_PATTERNS, Resolved, resolve, resolves, set_hash
from control_plane.services.errors import BadInput, UnknownClient
from control_plane.services.ports.database import Database, Records
from tests.support.databases import a_client, migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]


@pytest.fixture
async def fleet(sql_database: Database) -> Database:
    """Four clients, one of them never seen, and a group of each kind."""

    def work(records: Records) -> None:
        records.clients.save(
            [
                a_client("a", labels={"site": "berlin"}),
                a_client("shop-1", labels={"site": "paris"}, set_labels={"ring": "beta"}),
                a_client("shop-2", labels={"site": "berlin"}),
                Client(client_id="shop-3", set_labels={"site": "rome"}, expected=True),
            ]
        )
        records.groups.save(Group(name="beta", selector="ring=beta", created_at=1.0, updated_at=1.0))
        records.groups.save(Group(name="named", clients=("a", "gone", "*-3"), created_at=1.0, updated_at=1.0))

    await sql_database.write(work)
    return sql_database


async def resolved(database: Database, clients: list[str], selector: str | None = None) -> Resolved:
    return await database.read(lambda records: resolve(records, clients, selector))


@pytest.mark.parametrize(
    ("clients", "selector", "expected"),
    [
        ([], None, ()),
        ([], "", ("a", "shop-1", "shop-2", "shop-3")),
        (["shop-2", "a", "a"], None, ("a", "shop-2")),
        (["shop-*"], None, ("shop-1", "shop-2", "shop-3")),
        ([], "site=berlin", ("a", "shop-2")),
        (["shop-3"], "site=berlin", ("a", "shop-2", "shop-3")),
        (["group:beta"], None, ("shop-1",)),
        (["group:beta", "group:named"], "site=berlin", ("a", "shop-1", "shop-2", "shop-3")),
    ],
)
async def test_targets_resolve_to_the_union(
    fleet: Database, clients: list[str], selector: str | None, expected: tuple[str, ...]
) -> None:
    """`resolves` asks the same of one client."""
    assert (await resolved(fleet, clients, selector)).client_ids == expected
    for client_id in ("a", "shop-1", "shop-2", "shop-3", "unknown"):
        one = await fleet.read(lambda records, name=client_id: resolves(records, clients, selector, name))  # type: ignore[misc]
        assert one is (client_id in expected)


async def test_every_unknown_id_is_named(fleet: Database) -> None:
    with pytest.raises(UnknownClient, match="'x', 'y'") as raised:
        await resolved(fleet, ["y", "a", "x"])
    assert raised.value.client_ids == ("x", "y")


async def test_what_matches_nothing_is_a_warning(fleet: Database) -> None:
    found = await resolved(fleet, ["a", "till-*", "group:named"], "site=oslo")
    assert found.client_ids == ("a", "shop-3")
    assert found.warnings == (
        "pattern 'till-*' matches no client",
        "group 'named' names clients that are not known: gone",
        "selector 'site=oslo' matches no client",
    )


@pytest.mark.parametrize("entry", ["group:unknown", "a b", "", "cli-1", "x/*", "a*" * 40])
async def test_an_entry_that_is_neither_id_nor_pattern_nor_group_is_bad_input(fleet: Database, entry: str) -> None:
    with pytest.raises(BadInput):
        await resolved(fleet, [entry])


async def test_a_wrong_selector_and_too_many_patterns_are_refused(fleet: Database) -> None:
    with pytest.raises(SelectorError):
        await resolved(fleet, [], "site in")
    with pytest.raises(BadInput, match="patterns"):
        await resolved(fleet, [f"p{number}-*" for number in range(MAX_PATTERNS + 1)])


async def test_the_hash_of_a_set_does_not_depend_on_its_order() -> None:
    assert set_hash(["b", "a"]) == set_hash(("a", "b")) == "7e18f737311b2dc3"
    assert set_hash(["a"]) != set_hash(["a", "b"])
