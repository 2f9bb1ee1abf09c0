"""What every database promises to the views of clients and uploads: open uploads, presences, changes, listings.

Rule: only the port is used.
"""

from control_plane.domain.changes import Change, ClientConnected, ClientDisconnected, UploadCreated, UploadStateChanged
from control_plane.domain.uploads.model import State
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.fleet import KEPT_LISTINGS, KeptListing
from schemas.messages import FileEntry, FileList
from tests.support.databases import a_client, an_upload, database, migrated, sql_database
from tests.support.postgres import postgres

__all__ = ["database", "migrated", "postgres", "sql_database"]


async def test_the_open_uploads_of_each_client_are_counted_and_the_last_changed_is_named(database: Database) -> None:
    uploads = [
        an_upload("a", upload_id="a1", state=State.QUEUED, updated_at=2_000.0),
        an_upload("a", upload_id="a2", state=State.IN_PROGRESS, updated_at=3_000.0),
        an_upload("a", upload_id="a3", state=State.COMPLETED, updated_at=4_000.0, client_busy=True),
        an_upload("b", upload_id="b1", state=State.CANCELLED),
        an_upload("c", upload_id="c1", state=State.QUEUED),
    ]

    def work(records: Records) -> None:
        for upload in uploads:
            records.uploads.add(upload)

    await database.write(work)
    found = await database.read(lambda records: records.uploads.open_among(["a", "b", "x"]))
    assert {client_id: (one.count, one.latest.upload_id) for client_id, one in found.items()} == {"a": (2, "a2")}
    assert await database.read(lambda records: records.uploads.open_among([])) == {}


async def test_presences_show_when_clients_were_seen_however_many_they_are(database: Database) -> None:
    many = [a_client(f"c-{number:04}", seen_at=float(number), online=number % 2 == 0) for number in range(1_100)]
    await database.write(lambda records: records.clients.save(many))
    for count in (2, 1_050):
        wanted = [client.client_id for client in many[:count]]
        found = await database.read(lambda records, ids=wanted: records.clients.presences([*ids, "unknown"]))  # type: ignore[misc]
        assert {one.client_id: (one.online, one.seen_at, one.epoch) for one in found.values()} == {
            one.client_id: (one.online, one.seen_at, one.epoch) for one in many[:count]
        }


async def test_the_changes_of_one_subject_are_read_newest_first(database: Database) -> None:
    about = {"client_id": "a", "upload_id": "u"}
    changes: list[Change] = [
        ClientConnected(at=1.0, client_id="a"),
        UploadCreated(at=2.0, **about),
        UploadCreated(at=3.0, client_id="b", upload_id="u"),
        UploadStateChanged(at=4.0, attempt=1, was=State.QUEUED, state=State.DISPATCHED, error=None, **about),
        ClientDisconnected(at=5.0, client_id="a"),
    ]
    await database.write(lambda records: records.changes.append(changes))

    async def found(subject: str, limit: int = 10) -> list[float]:
        rows = await database.read(lambda records: records.changes.about("a", subject, limit))
        return [one.change.at for one in rows]

    assert await found("u") == [4.0, 2.0]
    assert await found("u", 1) == [4.0]
    assert await found("a") == [5.0, 1.0]
    assert await found("x") == []


async def test_the_last_listings_of_a_client_are_kept(sql_database: Database) -> None:
    files = FileList((FileEntry("/data/Straße.csv", 7, -1), FileEntry("/data/logs", 0, 2, folder=True)), "next")
    await sql_database.write(lambda records: records.clients.save([a_client("a"), a_client("b")]))

    def work(records: Records) -> None:
        for number in range(KEPT_LISTINGS + 3):
            records.listings.put(KeptListing("a", f"r{number:03}", 1_000.0 + number, files))
        records.listings.put(KeptListing("b", "r000", 1.0, FileList()))
        records.listings.put(KeptListing("b", "r000", 2.0, files))

    await sql_database.write(work)

    def kept(records: Records) -> list[str]:
        names = (f"r{number:03}" for number in range(KEPT_LISTINGS + 3))
        return [name for name in names if records.listings.get("a", name) is not None]

    assert await sql_database.read(kept) == [f"r{number:03}" for number in range(3, KEPT_LISTINGS + 3)]
    assert await sql_database.read(lambda records: records.listings.get("b", "r000")) == KeptListing(
        "b", "r000", 2.0, files
    )
    assert await sql_database.write(lambda records: records.listings.prune(1_005.0, 10)) == 3
    assert await sql_database.read(lambda records: records.listings.get("b", "r000")) is None
    await sql_database.write(lambda records: records.clients.delete("a"))
    assert await sql_database.read(kept) == []
