"""A direct upload: its request, its state file, and the engine that it runs on."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

from broker.atomic_file import replace_file
from control_plane.adapters.memory.database import FileDatabase
from control_plane.bootstrap import direct_messenger, policy_of
from control_plane.cli.errors import Failed, Misused, Unreachable
from control_plane.cli.mqtt import engine
from control_plane.cli.mqtt.device_keys import DeviceKeys
from control_plane.cli.mqtt.engine import Direct, background, connected, load_database
from control_plane.cli.mqtt.request import UploadRequest, read_request
from control_plane.cli.mqtt.run import start
from control_plane.cli.mqtt.state_file import held, state_path
from control_plane.cli.mqtt.verifying import DeviceGuard
from control_plane.cli.rest.progress import Display
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import Proof, State, Upload
from control_plane.presentation import upload_document
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.policy import Policy
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.uploads.views import UploadView
from control_plane.settings import Settings
from schemas.values import DigestName
from tests.support.fakes import Rig

UPLOAD_ID = "0123456789abcdef0123456789abcdef"
REQUEST = UploadRequest("restaurant-1", UPLOAD_ID, "/data/ü.bin")


def an_upload() -> Upload:
    return REQUEST.upload(Policy(owner="cli-7"), ObjectStoreCapabilities(), "/data/ü.bin", 1_761_999_896.0)


def test_every_commit_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    store = FileDatabase()
    store.path = tmp_path / "state.json"
    upload = an_upload()
    asyncio.run(store.write(lambda records: records.uploads.add(upload)))
    again = FileDatabase.load(store.path.read_bytes())
    assert asyncio.run(again.read(lambda records: records.uploads.get(upload.key))) == upload
    assert list(tmp_path.iterdir()) == [store.path]


def test_a_commit_that_cannot_be_written_is_undone(tmp_path: Path) -> None:
    store, upload = FileDatabase(), an_upload()
    store.path = tmp_path / "gone" / "state.json"
    with pytest.raises(DatabaseUnavailable, match="No such file"):
        asyncio.run(store.write(lambda records: records.uploads.add(upload)))
    assert asyncio.run(store.read(lambda records: records.uploads.get(upload.key))) is None


def test_the_state_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"{}")
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_bytes() == b"{}"


def test_two_commands_cannot_lock_one_state_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with held(path), pytest.raises(Failed, match="another command"), held(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_missing_state_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misused, match=r"gone\.json"):
        load_database(tmp_path / "gone.json")


def test_a_state_file_is_in_the_xdg_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_path("u1", None) == tmp_path / "backhaul" / "u1.json"
    assert state_path("u1", Path("here")) == Path("here")


def test_the_object_key_of_a_direct_upload_contains_its_id() -> None:
    assert an_upload().s3_key == f"uploads/restaurant-1/20251101-122456-{UPLOAD_ID[:8]}-ü.bin"


def test_an_upload_prints_with_the_names_of_rest() -> None:
    shown = upload_document(UploadView(an_upload(), Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline"), None))
    assert (shown["status"], shown["state"], shown["reason"]["text"]) == ("queued", "queued", "the client is offline")
    size = 11 * 1024 * 1024
    ended = replace(an_upload(), state=State.COMPLETED, file_size=size, part_size=5 * 1024 * 1024, proof=Proof.ETAG)
    whole = upload_document(UploadView(ended, None, None))
    assert (whole["status"], whole["progress"], whole["completed_parts"]) == ("completed", 100.0, 3)


@pytest.mark.parametrize(
    ("client", "options", "complaint"),
    [
        ("cli-7", {}, "client id"),
        ("a/b", {}, "client id"),
        ("restaurant-1", {"priority": "high"}, "int"),
        ("restaurant-1", {"speed": 1}, "no such option: speed"),
        ("restaurant-1", {"compression": "zip"}, "enum"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_published(
    client: str, options: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Misused, match=complaint):
        read_request(client, None, metadata={}, options=options, deadline=None)


async def test_a_fault_of_the_program_is_not_reported_as_an_unreachable_broker() -> None:
    async def faulty() -> None:
        message = "a fault of ours"
        raise RuntimeError(message)

    settings = Settings.load({})
    messenger = direct_messenger(settings, lambda *_: None, identifier="cli-7")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        async with background(faulty()) as loops:
            await connected(messenger.up(), settings, {}, loops)


@pytest.mark.parametrize(
    ("wanted", "enforced", "used"),
    [
        ("sha256", {DigestName.SHA256}, DigestName.SHA256),
        ("sha256", set(), DigestName.MD5),
        ("md5", set(), DigestName.MD5),
        ("auto", set(DigestName), DigestName.SHA256),
        ("auto", {DigestName.MD5}, DigestName.MD5),
    ],
)
async def test_the_digest_is_the_one_that_the_settings_name_and_the_store_enforces(
    wanted: str, enforced: set[DigestName], used: DigestName
) -> None:
    """As with a control plane."""
    policy = policy_of(Settings.load({"S3_DIGEST": wanted}), owner="cli-7")
    async with Rig(policy) as rig:
        rig.objects.capabilities = ObjectStoreCapabilities(part_digests=frozenset(enforced))
        await rig.engine.probe.probe()
        await rig.birth()
        guard = DeviceGuard(DeviceKeys(None, "fleet/v1"), REQUEST.client_id, has_key=False)
        direct = cast("Direct", SimpleNamespace(engine=rig.engine, guard=guard, policy=policy, check=lambda: None))
        key = await start(direct, REQUEST, cast("Display", None))
        assert (await rig.upload(key.upload_id)).digest is used


async def test_a_slow_probe_is_waited_for_and_a_failed_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind: a limit on a sum of requests, each of which was answered."""
    monkeypatch.setattr(engine, "CONNECT_TIMEOUT", 0.0)
    probe = SimpleNamespace(seen=None)
    direct = cast("Direct", SimpleNamespace(engine=SimpleNamespace(probe=probe), check=lambda: None))
    waiting = asyncio.create_task(engine.probed(direct, {}))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    probe.seen = ObjectStoreCapabilities()
    await waiting
    probe.seen = None
    with pytest.raises(Unreachable, match="the object store cannot be used: 503"):
        await engine.probed(direct, {"store.failed": "503"})
