"""The main job with real processes: a file of a device arrives in the store, byte for byte."""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.cli.site.stack import BUCKET
from schemas.codec import decode_response
from schemas.messages import Health
from schemas.topics import Topics
from tests.support.foreign_agent import ForeignAgent
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected
from tests.support.sites import MIB, Fleet, running_fleet, sha256_of

CHUNK = 5 * MIB


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the agent may read."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Fleet]:
    """A site with one agent, `restaurant-1`."""
    default = files / "test-file.bin"
    default.write_bytes(os.urandom(10 * MIB))
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.attach("restaurant-1", default, ALLOWED_ROOTS=str(files), LABELS="site=berlin,model=pi4")
        yield fleet


@pytest.mark.parametrize(
    ("name", "size", "parts"),
    [
        ("empty.bin", 0, 1),
        ("one-byte.bin", 1, 1),
        ("just-below-a-part.bin", CHUNK - 1, 1),
        ("exactly-one-part.bin", CHUNK, 1),
        ("just-above-a-part.bin", CHUNK + 1, 2),
        ("two whole parts.bin", 2 * CHUNK, 2),
        ("Kassenbuch März 2026 東京.log", 3 * MIB, 1),
        ("name with 'quotes' & signs + % #?.bin", 17, 1),
        ("report%20final.pdf", 17, 1),
    ],
)
def test_every_size_and_name_arrives_byte_for_byte(fleet: Fleet, files: Path, name: str, size: int, parts: int) -> None:
    """Proven, and equal."""
    path = files / name
    path.write_bytes(os.urandom(size))
    upload = fleet.ended(upload_id := fleet.trigger("restaurant-1", path))
    assert (upload["state"], upload["error"], upload["message"]) == ("completed", None, None)
    assert (upload["proof"], upload["progress"]) == ("etag", 100.0)
    assert (upload["total_parts"], upload["completed_parts"], upload["bytes_uploaded"]) == (parts, parts, size)
    # The bundled object store refuses a percent sign in a key.
    assert upload["s3_key"].endswith(name.replace("%", "_"))
    assert fleet.stored_sha256(upload_id) == sha256_of(path)


@pytest.mark.timeout(120)
def test_an_upload_under_a_spent_budget_waits_with_its_reason_and_goes_on_when_the_budget_is_deleted(
    fleet: Fleet, files: Path
) -> None:
    """At one KiB a second the second part would leave after 85 minutes."""
    path = files / "budget.bin"
    path.write_bytes(os.urandom(12 * MIB))
    url = f"{fleet.site.server}/budgets/model/pi4"
    httpx.put(url, json={"bytes_per_second": "1KiB"}).raise_for_status()
    try:
        upload_id = fleet.trigger("restaurant-1", path)

        def waits() -> bool:
            return "budget_spent" in str(fleet.get(f"/uploads/{upload_id}")["reason"])

        fleet.until(waits, "the upload waits for its budget")
        budget = httpx.get(url).raise_for_status().json()
        assert [one["upload_id"] for one in budget["waiters"]] == [upload_id]
        waiting = fleet.get(f"/uploads/{upload_id}")
        assert waiting["completed_parts"] <= 1
        assert waiting["reason"]["next_wake_at"] is not None
    finally:
        httpx.delete(url).raise_for_status()
    assert fleet.ended(upload_id)["state"] == "completed"
    assert fleet.stored_sha256(upload_id) == sha256_of(path)


@pytest.mark.slow
def test_more_than_a_hundred_parts_arrive(fleet: Fleet, files: Path) -> None:
    """Several windows, the last part shorter than the others; each part filled, and with bytes that no other has."""
    path = files / "large.bin"
    with path.open("wb") as file:
        for number in range(103):
            file.write(random.Random(number).randbytes(CHUNK))
        file.write(random.Random(103).randbytes(12_345))
    upload = fleet.ended(upload_id := fleet.trigger("restaurant-1", path))
    assert (upload["state"], upload["total_parts"], upload["completed_parts"]) == ("completed", 104, 104)
    assert fleet.stored_sha256(upload_id) == sha256_of(path)


def test_the_default_file_and_the_fields_of_every_answer(fleet: Fleet, files: Path) -> None:
    """No body at all: the agent's own file; every field that the first page of the README shows is there."""
    answer = fleet.post("/trigger-download/restaurant-1").json()
    assert answer["success"] is True
    assert answer["message"] == "Download triggered for client restaurant-1"
    assert answer["s3_key"].startswith("uploads/restaurant-1/")
    upload = fleet.ended(answer["upload_id"])
    assert (upload["file_path"], upload["bytes_uploaded"]) == (str(files / "test-file.bin"), 10 * MIB)
    assert upload["s3_key"] == answer["s3_key"]
    status = fleet.get("/status/restaurant-1")
    assert (status["client_id"], status["connected"], status["current_upload"]) == ("restaurant-1", True, None)
    (client,) = [
        one for one in fleet.get("/clients?selector=site=berlin")["clients"] if one["client_id"] == "restaurant-1"
    ]
    assert (client["connected"], client["labels"]) == (True, {"site": "berlin", "model": "pi4"})
    assert fleet.get("/health")["status"] == "ok"


@pytest.mark.parametrize(
    ("path", "state", "error"),
    [
        ("/etc/hostname", "rejected", "path_not_allowed"),
        ("{files}/../escape", "rejected", "path_not_allowed"),
        ("{files}/missing.bin", "failed", "file_not_found"),
        ("{files}/folder", "rejected", "not_a_file"),
    ],
)
def test_a_refusal_of_the_device_is_one_sentence(fleet: Fleet, files: Path, path: str, state: str, error: str) -> None:
    """And the next upload works."""
    (files / "folder").mkdir(exist_ok=True)
    upload = fleet.ended(fleet.trigger("restaurant-1", Path(path.format(files=files))))
    assert (upload["state"], upload["error"]) == (state, error)
    assert upload["message"]
    (files / "fine.bin").write_bytes(b"fine")
    assert fleet.ended(fleet.trigger("restaurant-1", files / "fine.bin"))["state"] == "completed"


def test_a_url_to_a_host_that_is_not_allowed_is_never_used(fleet: Fleet, files: Path) -> None:
    """Default-deny: an agent whose `UPLOAD_HOSTS` does not name the store."""
    path = files / "kept.bin"
    path.write_bytes(b"stays here")
    fleet.attach("restaurant-2", path, UPLOAD_HOSTS="elsewhere.example:443")
    upload = fleet.ended(fleet.trigger("restaurant-2"))
    assert (upload["state"], upload["error"]) == ("rejected", "host_not_allowed")


def test_metadata_comes_back_as_it_went(fleet: Fleet) -> None:
    """The one free map."""
    metadata = {"order": 7, "nested": {"küche": ["a", None, 1.5]}}
    upload = fleet.ended(fleet.trigger("restaurant-1", metadata=metadata))
    assert upload["metadata"] == metadata


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_an_upload_can_be_cancelled_and_retried(fleet: Fleet, files: Path) -> None:
    """The client stops and nothing stays at the store; the retry is a new upload, of the same file to the last byte."""
    path = files / "slow.bin"
    path.write_bytes(os.urandom(11 * MIB))
    upload_id = fleet.trigger("restaurant-1", path, options={"max_bytes_per_second": MIB})
    fleet.until(lambda: fleet.get(f"/uploads/{upload_id}")["state"] == "in_progress", "the upload to begin")
    fleet.until(lambda: bool(in_flight(fleet)), "a multipart upload")
    assert active_uploads(fleet, "restaurant-1") == 1
    assert fleet.post(f"/uploads/{upload_id}/cancel").status_code == httpx.codes.OK
    assert fleet.ended(upload_id)["state"] == "cancelled"
    assert fleet.post(f"/uploads/{upload_id}/cancel").status_code == httpx.codes.CONFLICT
    fleet.until(lambda: active_uploads(fleet, "restaurant-1") == 0, "the agent to stop")
    fleet.until(lambda: in_flight(fleet) == [], "the multipart upload to be aborted")
    retried = fleet.post(f"/uploads/{upload_id}/retry").json()["upload_id"]
    assert retried != upload_id
    upload = fleet.ended(retried)
    assert (upload["state"], upload["file_path"], upload["bytes_uploaded"]) == ("completed", str(path), 11 * MIB)
    assert fleet.stored_sha256(retried) == sha256_of(path)
    assert fleet.get(f"/uploads/{upload_id}")["state"] == "cancelled"


def active_uploads(fleet: Fleet, client_id: str) -> int:
    """The number of uploads in the agent's Status."""
    topics = Topics()
    with connected(fleet.site.broker.address.port, Connect("operator-1")) as wire:
        wire.subscribe(topics.response(client_id))
        wire.publish(topics.command(client_id), b'{"message_id":"how-are-you","action":"health_check"}')
        while True:
            response = decode_response(wire.receive().payload)
            if isinstance(response.payload, Health):
                return response.payload.active_uploads


def in_flight(fleet: Fleet) -> list[str]:
    """Keys of the multipart uploads that the store still has."""
    store = fleet.site.store
    keys = store.credentials
    settings = S3Settings(
        bucket=BUCKET, endpoint=store.endpoint, access_key=keys.access_key, secret_key=keys.secret_key
    )

    async def request() -> list[str]:
        bucket = S3ObjectStore(settings)
        try:
            return [one.s3_key for one in await bucket.list_multipart("uploads/")]
        finally:
            await bucket.close()

    return asyncio.run(request())


@pytest.mark.slow
def test_an_offline_client_is_queued_and_served_when_it_appears(fleet: Fleet, files: Path) -> None:
    """The reason shows it meanwhile."""
    path = files / "later.bin"
    path.write_bytes(os.urandom(MIB))
    fleet.attach("restaurant-3", path).stop()
    fleet.until(lambda: not fleet.connected("restaurant-3"), "the agent's goodbye")
    upload_id = fleet.trigger("restaurant-3")
    upload = fleet.get(f"/uploads/{upload_id}")
    assert (upload["state"], upload["reason"]["text"]) == ("queued", "the client is offline")
    assert upload["reason"]["next_wake_at"]
    fleet.attach("restaurant-3", path)
    assert fleet.ended(upload_id)["state"] == "completed"


def test_files_of_a_client_are_listed(fleet: Fleet, files: Path) -> None:
    """Below its roots only."""
    (files / "listed.txt").write_bytes(b"12345")
    listed = fleet.get(f"/clients/restaurant-1/files?pattern={files}/listed.*")
    assert [(one["path"], one["size"]) for one in listed["files"]] == [(str(files / "listed.txt"), 5)]


@pytest.mark.slow
def test_an_agent_in_any_language_can_be_written_from_the_protocol(fleet: Fleet, files: Path) -> None:
    """Bare paho and urllib, without the product's code."""
    path = files / "foreign.bin"
    path.write_bytes(os.urandom(2 * CHUNK + 7))
    address = fleet.site.broker.address
    agent = ForeignAgent("foreign-1", address.host, address.port, path)
    try:
        fleet.until(lambda: fleet.connected("foreign-1"), "the foreign agent")
        upload = fleet.ended(upload_id := fleet.trigger("foreign-1"))
        assert (upload["state"], upload["proof"]) == ("completed", "etag")
        assert fleet.stored_sha256(upload_id) == sha256_of(path)
        assert agent.closed.wait(60)
        assert agent.outcome == "completed"
    finally:
        agent.stop()
