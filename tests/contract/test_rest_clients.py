"""What the views of clients and uploads read and do over REST: the real services, on SQLite.

Rule: only the clock and the broker are fakes; what a client would send is delivered as its message.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from control_plane.adapters.database import migrate
from control_plane.domain.uploads.model import State
from control_plane.services.clients.targeting import set_hash
from control_plane.services.ports.database import Records
from control_plane.services.ports.fleet import KEPT_LISTINGS, KeptListing
from schemas.codec import encode
from schemas.messages import FileEntry, FileList, ListFiles, Response
from schemas.topics import Channel
from schemas.values import BudgetUse, DeviceBudget
from tests.support.databases import a_client, an_upload
from tests.support.fake_services import FakeServices, fleet_api, http_to
from tests.support.fakes import CLIENT, Rig
from tests.support.inline_database import InlineDatabase

HOUR: Final = 3_600.0
FOLDER: Final = "/clients/restaurant-1/files?pattern=/data/*&folders=true"


class Site:
    """REST over a running engine."""

    def __init__(self, http: httpx.AsyncClient, rig: Rig) -> None:
        self.http = http
        self.rig = rig

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        answer = await self.http.get(path, params=query or None)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def ids(self, **query: str | int) -> list[str]:
        return [row["upload_id"] for row in (await self.get("/uploads", **query))["uploads"]]

    async def list_files(self, *files: FileEntry) -> dict[str, Any]:
        """List the folder while the client answers with these entries."""
        asked = asyncio.create_task(self.http.get(FOLDER))
        await self.rig.settle()
        queries = [one for _, one in self.rig.messenger.sent if isinstance(one.payload, ListFiles)]
        self.rig.messenger.sent.clear()
        answer = Response(queries[-1].message_id, "list_files", "success", FileList(files))
        await self.rig.deliver(Channel.RESPONSE, encode(answer))
        found: dict[str, Any] = (await asked).json()
        return found

    async def offline(self, *, sequence: int = 9) -> None:
        await self.rig.birth(status="offline", sequence=sequence)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database to copy: faster than migrating one for each test."""
    path = tmp_path_factory.mktemp("empty") / "backhaul.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def site(tmp_path: Path, empty: Path) -> AsyncIterator[Site]:
    copy = shutil.copy(empty, tmp_path / "backhaul.db")
    database = InlineDatabase.open(f"sqlite:///{copy}")
    async with (
        Rig(database=database, fleet=True) as rig,
        http_to(fleet_api(FakeServices(), rig.engine)) as http,
    ):
        yield Site(http, rig)
    await database.close()


# --- files of a client that is away -----------------------------------------------------------------------------------


async def test_the_last_listing_is_shown_with_its_instant_while_the_client_is_offline(site: Site) -> None:
    await site.rig.birth()
    entries = (FileEntry("/data/a.csv", 7, 1), FileEntry("/data/logs", 0, 2, folder=True))
    live = await site.list_files(*entries)
    assert (live["live"], live["reason"]) == (True, None)
    await site.offline()
    site.rig.clock.time += 600
    kept = await site.get(FOLDER)
    assert (kept["live"], kept["as_of"], kept["files"]) == (False, live["as_of"], live["files"])
    assert kept["reason"]["code"] == "client_offline"
    assert site.rig.messenger.sent == [], "a client that is not connected is not asked"
    await site.rig.birth(epoch=2)
    assert (await site.list_files(entries[0]))["live"]


async def test_a_client_that_is_offline_and_listed_nothing_is_silent_at_once(site: Site) -> None:
    await site.rig.birth()
    await site.offline()
    answer = await site.http.get(FOLDER)
    assert (answer.status_code, answer.json()["type"]) == (504, "/help/reasons/client-silent")
    assert "offline" in answer.json()["detail"]


async def test_a_listing_of_another_folder_or_page_is_not_shown(site: Site) -> None:
    await site.rig.birth()
    await site.list_files(FileEntry("/data/a.csv", 7, 1))
    await site.offline()
    for other in ("pattern=/data/x/*&folders=true", "pattern=/data/*", "pattern=/data/*&folders=true&cursor=/data/a"):
        assert (await site.http.get(f"/clients/{CLIENT}/files?{other}")).status_code == 504


async def test_at_most_a_hundred_listings_of_a_client_are_kept_and_go_with_it(site: Site) -> None:
    await site.rig.birth()
    database = site.rig.database

    def listings(records: Records) -> None:
        for number in range(KEPT_LISTINGS + 7):
            records.listings.put(KeptListing(CLIENT, f"r{number}", 1_000.0 + number, FileList()))
        records.listings.put(KeptListing("stranger", "r", 1.0, FileList()))

    await database.write(listings)

    def kept(records: Records) -> list[int]:
        return [number for number in range(KEPT_LISTINGS + 7) if records.listings.get(CLIENT, f"r{number}")]

    assert await database.read(kept) == list(range(7, KEPT_LISTINGS + 7))
    assert await database.read(lambda records: records.listings.get("stranger", "r")) is None
    assert await database.write(lambda records: records.listings.prune(1_010.0, 2)) == 2
    assert await database.read(kept) == list(range(9, KEPT_LISTINGS + 7))
    await site.http.delete(f"/clients/{CLIENT}")
    assert await database.read(kept) == []


# --- what happened ----------------------------------------------------------------------------------------------------


def states(history: dict[str, Any]) -> list[str | None]:
    return [span["state"] for span in history["spans"]]


async def test_the_presence_of_a_client_is_shown_as_spans_without_gaps(site: Site) -> None:
    await site.rig.birth()
    site.rig.clock.time += HOUR
    await site.offline()
    site.rig.clock.time += HOUR
    await site.rig.birth(epoch=2)
    site.rig.clock.time += 60
    history = await site.get(f"/clients/{CLIENT}/history", hours=6)
    assert states(history) == ["never_seen", "connected", "offline", "connected"]
    spans = history["spans"]
    assert [one["end"] for one in spans[:-1]] == [one["begin"] for one in spans[1:]]
    assert not history["cut"]


async def test_a_connection_that_broke_in_silence_ends_where_the_client_was_last_seen(site: Site) -> None:
    await site.rig.birth()
    seen_at = site.rig.clock.time
    site.rig.clock.time += 60
    await site.rig.birth(sequence=1)
    site.rig.clock.time += HOUR
    history = await site.get(f"/clients/{CLIENT}/history", hours=3)
    assert states(history) == ["never_seen", "connected", "offline"]
    assert history["spans"][1]["end"] > history["spans"][1]["begin"]
    assert seen_at < site.rig.clock.time


async def test_the_timeline_of_an_upload_has_its_changes_in_order(site: Site) -> None:
    await site.rig.birth()
    upload_id = (await site.rig.trigger()).upload.upload_id
    await site.http.post(f"/uploads/{upload_id}/cancel")
    timeline = await site.get(f"/uploads/{upload_id}/timeline")
    assert [one["state"] for one in timeline["changes"]] == [None, "dispatched", "cancelled"]
    assert timeline["changes"][0]["type"] == "upload.created"
    assert timeline["complete"]
    assert (await site.http.get("/uploads/unknown/timeline")).status_code == 404


# --- lists ------------------------------------------------------------------------------------------------------------


async def add(site: Site, *uploads: Any) -> None:  # noqa: ANN401 - uploads, or clients
    def work(records: Records) -> None:
        for upload in uploads:
            records.uploads.add(upload)

    await site.rig.database.write(work)


async def test_uploads_are_listed_by_job_reason_creation_and_end(site: Site) -> None:
    await site.rig.birth()
    await add(
        site,
        an_upload(CLIENT, upload_id="of-job", job_id="nightly", state=State.IN_PROGRESS, created_at=2_000.0),
        an_upload("away", upload_id="waits", created_at=3_000.0),
        an_upload(CLIENT, upload_id="ended", state=State.FAILED, error="busy", created_at=1_000.0, updated_at=5_000.0),
    )
    await site.rig.database.write(
        lambda records: records.clients.save([a_client("away", online=False, seen_at=1_000.0)])
    )
    assert await site.ids(job_id="nightly") == ["of-job"]
    assert await site.ids(reason_code="client_offline") == ["waits"]
    assert await site.ids(reason_code="uploading") == ["of-job"]
    assert await site.ids(reason_code="uploading", client_id="away") == []
    assert await site.ids(since="1970-01-01T00:33:20Z") == ["waits", "of-job"]
    assert await site.ids(ended_since="1970-01-01T01:23:20Z", status="failed") == ["ended"]
    assert await site.ids(ended_since="1970-01-01T01:23:21Z") == []


async def test_pages_of_one_reason_together_are_all_that_wait_for_it(site: Site) -> None:
    await site.rig.birth()
    uploads = [
        an_upload("away" if number % 5 == 0 else CLIENT, upload_id=f"u{number:03}", created_at=1_000.0 + number)
        for number in range(60)
    ]
    await add(site, *uploads)
    await site.rig.database.write(lambda records: records.clients.save([a_client("away", online=False)]))
    found: list[str] = []
    cursor: str | None = None
    while True:
        query: dict[str, str | int] = {"reason_code": "client_offline", "limit": 4}
        if cursor:
            query["cursor"] = cursor
        page = await site.get("/uploads", **query)
        assert len(page["uploads"]) <= 4
        found += [one["upload_id"] for one in page["uploads"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert found == [f"u{number:03}" for number in range(55, -1, -5)]


async def test_a_row_of_a_client_shows_what_it_does(site: Site) -> None:
    await site.rig.birth()
    await site.rig.birth("restaurant-2")
    await add(
        site,
        an_upload(CLIENT, upload_id="older", file_path="/data/a", state=State.IN_PROGRESS),
        an_upload(CLIENT, upload_id="newer", file_path="/data/b", state=State.QUEUED, updated_at=1_500.0),
        an_upload(CLIENT, upload_id="over", state=State.COMPLETED, updated_at=1_900.0, client_busy=True),
    )
    first, second = (await site.get("/clients"))["clients"]
    assert (first["open_uploads"], first["current_upload"]["upload_id"]) == (2, "newer")
    assert (second["open_uploads"], second["current_upload"]) == (0, None)


async def test_clients_are_found_by_id_pattern_and_selector_and_state_together(site: Site) -> None:
    names = ("bar-1", "shop-1", "shop-2")
    rows = [a_client(one, labels={"site": "berlin"}) for one in names]
    rows.append(a_client("shop-3", labels={"site": "berlin"}, online=False, seen_at=1.0))
    rows.append(a_client("shop-4", online=False, seen_at=1.0))
    await site.rig.database.write(lambda records: records.clients.save(rows))

    async def found(**query: str) -> list[str]:
        page = await site.get("/clients", **query)
        ids = [row["client_id"] for row in page["clients"]]
        assert (page["count"], page["set"]) == (len(ids), set_hash(ids))
        return ids

    assert await found(id="shop-*") == ["shop-1", "shop-2", "shop-3", "shop-4"]
    assert await found(id="shop-1") == ["shop-1"]
    assert await found(id="shop-*", selector="site=berlin") == ["shop-1", "shop-2", "shop-3"]
    assert await found(id="shop-*", selector="site=berlin", state="offline") == ["shop-3"]
    assert (await site.http.get("/clients?id=a/b")).status_code == 422


# --- acts on many -----------------------------------------------------------------------------------------------------


async def some_clients(site: Site, names: Sequence[str]) -> None:
    for name in names:
        await site.rig.birth(name, labels={"site": "berlin"})


async def test_labels_of_a_filter_are_changed_only_if_the_set_is_the_one_that_was_shown(site: Site) -> None:
    await some_clients(site, ["shop-1", "shop-2"])
    shown = await site.get("/clients", selector="site=berlin")
    where = {"selector": "site=berlin", "count": shown["count"], "set": shown["set"]}
    body = {"where": where, "labels": {"ring": "beta"}}
    assert (await site.http.patch("/clients/labels", json=body)).json() == {"clients": 2, "changed": 2}
    assert (await site.http.patch("/clients/labels", json=body)).json() == {"clients": 2, "changed": 0}
    await some_clients(site, ["shop-3"])
    refused = await site.http.patch("/clients/labels", json=body)
    assert refused.status_code == 409
    assert (refused.json()["expected"], refused.json()["found"], refused.json()["added"]) == (2, 3, ["shop-3"])
    assert (await site.get("/clients/shop-3"))["set_labels"] == {}
    named = {"where": {"clients": ["shop-3"]}, "labels": {"ring": "late"}}
    assert (await site.http.patch("/clients/labels", json=named)).json() == {"clients": 1, "changed": 1}


async def test_the_open_uploads_of_a_filter_are_cancelled(site: Site) -> None:
    await some_clients(site, ["shop-1", "shop-2"])
    await add(
        site,
        an_upload("shop-1", upload_id="a"),
        an_upload("shop-1", upload_id="b", state=State.COMPLETED),
        an_upload("shop-2", upload_id="c", owner="cli"),
        an_upload(CLIENT, upload_id="d"),
    )
    shown = await site.get("/clients", id="shop-*")
    body = {"where": {"id": "shop-*", "count": shown["count"], "set": shown["set"]}}
    answer = await site.http.post("/uploads/cancel", json=body)
    assert answer.json() == {"clients": 2, "cancelled": 1, "refused": 0, "more": False}
    assert (await site.get("/uploads/a"))["state"] == "cancelled"
    assert (await site.get("/uploads/d"))["state"] == "queued"
    body["where"]["count"] += 1
    assert (await site.http.post("/uploads/cancel", json=body)).status_code == 409


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"selector": "a=b"},
        {"selector": "a=b", "count": 1},
        {"clients": []},
        {"clients": ["shop-1"], "selector": "a=b", "count": 1, "set": "5f3da80c4dfc339e"},
        {"id": "shop-*", "count": 1, "set": "short"},
    ],
)
async def test_a_bulk_act_without_a_set_or_names_is_refused(site: Site, where: dict[str, Any]) -> None:
    answer = await site.http.post("/uploads/cancel", json={"where": where})
    assert (answer.status_code, answer.json()["type"]) == (422, "/help/reasons/bad-input")


async def test_a_bulk_act_that_names_an_unknown_client_is_refused(site: Site) -> None:
    await some_clients(site, ["shop-1"])
    answer = await site.http.post("/uploads/cancel", json={"where": {"clients": ["shop-1", "shop-9"]}})
    assert (answer.status_code, answer.json()["client_ids"]) == (404, ["shop-9"])


# --- the budget of a device -------------------------------------------------------------------------------------------


async def test_the_budget_of_a_device_is_shown_as_it_reported_it_last(site: Site) -> None:
    """None for an agent that reports none; a period that has ended is shown as unused."""
    await site.rig.birth()
    assert (await site.get(f"/clients/{CLIENT}"))["budget"] is None
    resets_at = datetime.fromtimestamp(site.rig.clock.time + 60, UTC)
    budget = DeviceBudget(day=BudgetUse(100, 70, resets_at), metered_month=BudgetUse(50, 0), holds=("device_load",))
    await site.rig.birth(sequence=1, budget=budget)
    # Late, and of an earlier connection.
    await site.rig.birth(epoch=0, sequence=5, budget=DeviceBudget())
    shown = (await site.get(f"/clients/{CLIENT}"))["budget"]
    assert (shown["metered"], shown["holds"]) == (False, ["device_load"])
    assert [(one["period"], one["used"], one["cap"], one["applies"]) for one in shown["caps"]] == [
        ("day", 70, 100, True),
        ("metered_month", 0, 50, False),
    ]
    assert shown["caps"][0]["resets_at"] is not None
    (listed,) = (await site.get("/clients"))["clients"]
    assert listed["budget"] == shown
    site.rig.clock.time += 60
    (day, _) = (await site.get(f"/clients/{CLIENT}"))["budget"]["caps"]
    assert (day["used"], day["resets_at"]) == (0, None)
