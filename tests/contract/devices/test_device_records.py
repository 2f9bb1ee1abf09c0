"""What every database promises about devices and revoked keys.

Rule: only the port is used.
"""

from dataclasses import replace
from typing import Final

import pytest

from control_plane.adapters.database.devices import records as device_records
from control_plane.adapters.database.devices.records import SqlDevices
from control_plane.domain.devices import Device, DeviceState
from control_plane.services.devices.ports import MOST_CHANGES
from control_plane.services.errors import BadInput, KeyTaken
from control_plane.services.ports.database import Database, Page, Records
from tests.support.databases import database, migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["database", "migrated", "postgres", "sql_database"]

FULL: Final = Device(
    client_id="restaurant-7",
    state=DeviceState.ACTIVE,
    created_at=1.5,
    created_by="ana",
    public_key=bytes(range(32)),
    claim_secret=b"\0" * 31 + b"\xff",
    other_key=b"\xfe" * 32,
    other_at=2.5,
    pinned_at=3.5,
    revoked_at=4.5,
    revoked_by="bea",
    has_account=True,
    note="behind the counter",
)
EMPTY: Final = Device("a", DeviceState.ENROLLED, 1.0, "ana")


async def save(database: Database, *devices: Device) -> None:
    def work(records: Records) -> None:
        for device in devices:
            records.devices.save(device)

    await database.write(work)


async def test_a_device_comes_back_as_it_was_saved(database: Database) -> None:
    await save(database, FULL, EMPTY)
    found = await database.read(lambda records: records.devices.among(["a", "b", "restaurant-7"]))
    assert found == {"a": EMPTY, "restaurant-7": FULL}
    assert await database.read(lambda records: records.devices.get("b")) is None
    changed = replace(FULL, state=DeviceState.REVOKED, claim_secret=None, has_account=False)
    await save(database, changed)
    assert await database.read(lambda records: records.devices.get("restaurant-7")) == changed


async def test_a_key_is_pinned_under_one_name(database: Database) -> None:
    await save(database, FULL, EMPTY)
    key = FULL.public_key
    assert key is not None
    assert await database.read(lambda records: records.devices.by_key(key)) == FULL
    assert await database.read(lambda records: records.devices.by_key(bytes(32))) is None
    with pytest.raises(KeyTaken):
        await save(database, replace(EMPTY, public_key=key))
    assert await database.read(lambda records: records.devices.get("a")) == EMPTY


async def test_devices_are_listed_by_id_in_pages(database: Database) -> None:
    names = ["B", "a", "b", "b-1", "é"]
    await save(database, *(replace(EMPTY, client_id=name) for name in reversed(names)))
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page = Page(2, cursor)
        found, cursor = await database.read(lambda records: records.devices.list(page))  # noqa: B023 - runs at once
        seen += [device.client_id for device in found]
    assert (seen, cursor) == (names, None)
    with pytest.raises(BadInput):
        await database.read(lambda records: records.devices.list(Page(2, "?")))


async def test_a_deleted_device_leaves_its_revoked_keys(database: Database) -> None:
    await save(database, FULL)
    await database.write(lambda records: records.devices.revoke_key(b"k" * 32, "restaurant-7", 1.0))
    await database.write(lambda records: records.devices.revoke_key(b"k" * 32, "another", 2.0))
    assert await database.write(lambda records: records.devices.delete("restaurant-7"))
    assert not await database.write(lambda records: records.devices.delete("restaurant-7"))
    assert await database.read(lambda records: records.devices.pinned()) in ([], ())
    assert await database.read(lambda records: records.devices.revoked_keys()) == {b"k" * 32}


async def test_a_name_of_which_a_key_was_revoked_is_known_until_it_is_released(database: Database) -> None:
    def work(records: Records) -> None:
        records.devices.revoke_key(b"k" * 32, "restaurant-7", 1.0)
        records.devices.revoke_key(b"l" * 32, "restaurant-7", 2.0)
        records.devices.revoke_key(b"m" * 32, "another", 2.0)

    await database.write(work)
    assert await database.read(lambda records: records.devices.signed_names()) == {"restaurant-7", "another"}
    before = await database.read(lambda records: records.devices.version())
    await database.write(lambda records: records.devices.release_name("restaurant-7"))
    assert await database.read(lambda records: records.devices.signed_names()) == {"another"}
    assert await database.read(lambda records: records.devices.revoked_keys()) == {b"k" * 32, b"l" * 32, b"m" * 32}
    after = await database.read(lambda records: records.devices.version())
    await database.write(lambda records: records.devices.release_name("restaurant-7"))
    assert before < after == await database.read(lambda records: records.devices.version())


async def test_every_change_raises_the_version_and_nothing_else_does(database: Database) -> None:
    async def version() -> int:
        return await database.read(lambda records: records.devices.version())

    seen = [await version()]
    await save(database, FULL)
    seen.append(await version())
    await database.write(lambda records: records.devices.revoke_key(b"k" * 32, "a", 1.0))
    seen.append(await version())
    await database.write(lambda records: records.devices.delete("restaurant-7"))
    seen.append(await version())
    assert seen == sorted(set(seen))
    await database.write(lambda records: records.devices.revoke_key(b"k" * 32, "a", 1.0))
    await database.write(lambda records: records.devices.delete("restaurant-7"))

    def failing(records: Records) -> None:
        records.devices.save(FULL)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(failing)
    assert await version() == seen[-1]


async def test_what_changed_since_a_number_is_known_by_name(database: Database) -> None:
    """Also what is gone; and nothing is known of a number of long ago, or of another database."""

    async def since(number: int) -> tuple[int, frozenset[str] | None]:
        return await database.read(lambda records: (records.devices.version(), records.devices.changed_since(number)))

    assert await since(0) == (0, frozenset())
    await save(database, FULL, EMPTY, replace(EMPTY, note="again"))
    assert await since(0) == (3, frozenset({"a", "restaurant-7"}))
    assert await since(1) == (3, frozenset({"a"}))
    await database.write(lambda records: records.devices.delete("a"))
    await database.write(lambda records: records.devices.revoke_key(b"k" * 32, "b", 1.0))
    await database.write(lambda records: records.devices.release_name("b"))
    assert [await since(number) for number in (3, 4, 5, 6)] == [
        (6, frozenset(names)) for names in ({"a", "b"}, {"b"}, {"b"}, set())
    ]
    assert await since(7) == (6, None)
    await save(database, *[EMPTY] * MOST_CHANGES)
    assert await since(6) == (6 + MOST_CHANGES, frozenset({"a"}))
    assert await since(5) == (6 + MOST_CHANGES, None)


async def test_the_refused_keys_of_a_name_are_found(database: Database) -> None:
    keys = {bytes([number]) * 32: name for number, name in enumerate(["a", "a", "b", "c"])}

    def work(records: Records) -> None:
        for key, name in keys.items():
            records.devices.revoke_key(key, name, 1.0)

    await database.write(work)
    found = await database.read(lambda records: records.devices.revoked_under(["a", "b", "x"]))
    assert found == {key: name for key, name in keys.items() if name != "c"}


async def test_a_change_by_an_earlier_version_is_of_no_known_name(
    sql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During an upgrade both run: then a replica reads everything."""
    await save(sql_database, FULL)
    with monkeypatch.context() as earlier:
        earlier.setattr(SqlDevices, "_changed", lambda self, _: self._transaction.run(device_records._RAISE, {}))
        await save(sql_database, EMPTY)
    await save(sql_database, FULL)
    found = await sql_database.read(lambda records: [records.devices.changed_since(number) for number in range(4)])
    assert found == [None, None, frozenset({"restaurant-7"}), frozenset()]
