"""Straight over MQTT with no control plane: a broker, a store, an agent, and the command line."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.child_process import ChildProcess, clean_environment
from broker.server import Broker, free_port, start_broker
from control_plane.adapters.folder_store import FolderObjectStore, start_folder_store
from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from tests.support.screen import BACKHAUL, backhaul, started
from tests.support.sites import AGENT, MIB, sha256_of

pytestmark = pytest.mark.timeout(90)

CLIENT = "restaurant-1"
BUCKET = "direct"


@dataclass(frozen=True, slots=True)
class Field:
    """Everything but a control plane."""

    broker: Broker
    store: FolderObjectStore
    file: Path
    state: Path

    def settings(self, **changes: str) -> dict[str, str]:
        """The operator's environment."""
        given = {
            "MQTT_URL": self.broker.address.url,
            "AWS_ENDPOINT": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": self.store.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.store.credentials.secret_key,
            "S3_BUCKET_NAME": BUCKET,
            "XDG_STATE_HOME": str(self.state),
        }
        return clean_environment({**given, **changes})

    def run(self, *arguments: str, code: int = 0, **changes: str) -> dict[str, Any]:
        """The document of a `backhaul mqtt` command with `--json`."""
        ended = backhaul("mqtt", *arguments, "--json", env=self.settings(**changes), patience=60)
        assert ended.returncode == code, ended.stderr
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    def begin(self, *arguments: str) -> AbstractContextManager["subprocess.Popen[str]"]:
        """A `backhaul mqtt` command that was started."""
        return started((*BACKHAUL, "mqtt", *arguments, "--json"), self.settings())

    def bucket(self) -> S3ObjectStore:
        """The bucket, as an operator with credentials sees it."""
        keys = self.store.credentials
        return S3ObjectStore(
            S3Settings(
                bucket=BUCKET, endpoint=self.store.endpoint, access_key=keys.access_key, secret_key=keys.secret_key
            )
        )

    def stored_sha256(self, s3_key: str) -> str:
        """The digest of an object."""
        bucket = self.bucket()
        answer = httpx.get(bucket.presign_get(s3_key, 60))
        asyncio.run(bucket.close())
        assert answer.status_code == httpx.codes.OK, answer.text
        return hashlib.sha256(answer.content).hexdigest()

    def in_flight(self) -> list[str]:
        """Keys of the multipart uploads that the store still has."""

        async def request() -> list[str]:
            bucket = self.bucket()
            try:
                return [one.s3_key for one in await bucket.list_multipart("uploads/")]
            finally:
                await bucket.close()

        return asyncio.run(request())

    def kept(self) -> list[Path]:
        """The state files of uploads that are not over."""
        return sorted(one for one in self.state.glob("backhaul/*") if one.is_file())


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """A broker, a store and one agent with a file of 11 MiB and some."""
    home = tmp_path_factory.mktemp("field")
    file = home / "files" / "file.bin"
    file.parent.mkdir()
    file.write_bytes(os.urandom(11 * MIB + 7))
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(home / "broker"))
        store = stack.enter_context(start_folder_store(home / "store"))
        settings = {
            "CLIENT_ID": CLIENT,
            "FILE_PATH": str(file),
            "ALLOWED_ROOTS": str(file.parent),
            "STATE_DIR": str(home / "agent"),
            "MQTT_URL": broker.address.url,
            "UPLOAD_HOSTS": store.endpoint,
        }
        stack.enter_context(ChildProcess(AGENT, settings=settings, log_path=home / "agent.log"))
        yield Field(broker, store, file, home / "state")


Slow = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def slow(field: Field) -> Iterator[Slow]:
    """A direct upload that is under way, and its id; it outlasts the start of a program on a busy machine."""
    with field.begin("trigger", CLIENT, "-o", "max_bytes_per_second=1000000") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.match(r"upload (\w+), kept in", line):
                upload_id = found[1]
            if "in_progress" in line:
                break
        else:
            pytest.fail("it ended before it began")
        yield process, upload_id


def test_a_file_is_uploaded_and_proven_without_a_control_plane(field: Field) -> None:
    ended = field.run("trigger", CLIENT, "-m", "order=7")
    assert (ended["status"], ended["proof"], ended["metadata"]) == ("completed", "etag", {"order": "7"})
    assert f"-{ended['upload_id'][:8]}-file.bin" in ended["s3_key"]
    assert field.stored_sha256(ended["s3_key"]) == sha256_of(field.file)
    assert field.kept() == []


@pytest.mark.slow
def test_a_refused_file_exits_with_1_and_leaves_nothing(field: Field) -> None:
    ended = field.run("trigger", CLIENT, "/etc/passwd", code=1)
    assert (ended["state"], ended["error"]) == ("rejected", "path_not_allowed")
    assert field.kept() == []


@pytest.mark.slow
def test_after_a_kill_resume_continues_the_upload(field: Field, slow: Slow) -> None:
    process, upload_id = slow
    process.kill()
    process.communicate(timeout=60)
    ended = field.run("resume", upload_id)
    assert (ended["status"], ended["attempt"]) == ("completed", 1)
    assert field.stored_sha256(ended["s3_key"]) == sha256_of(field.file)
    assert field.kept() == []


@pytest.mark.slow
def test_two_commands_cannot_resume_one_upload(field: Field, slow: Slow) -> None:
    process, upload_id = slow
    assert backhaul("mqtt", "resume", upload_id, env=field.settings()).returncode == 1
    assert process.wait(60) == 0
    process.communicate()


@pytest.mark.slow
def test_ctrl_c_cancels_and_leaves_nothing_at_the_store(field: Field, slow: Slow) -> None:
    process, _ = slow
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert json.loads(out)["status"] == "cancelled"
    assert field.in_flight() == []
    assert field.kept() == []


@pytest.mark.slow
def test_a_killed_upload_is_cancelled_by_its_id(field: Field, slow: Slow) -> None:
    process, upload_id = slow
    process.kill()
    process.communicate(timeout=60)
    assert field.run("cancel", upload_id)["status"] == "cancelled"
    assert field.in_flight() == []


@pytest.mark.slow
def test_an_upload_of_any_owner_is_cancelled_at_its_client(field: Field, slow: Slow) -> None:
    process, upload_id = slow
    answer = field.run("cancel", upload_id, "--client", CLIENT)
    assert answer["status"] == "cancelled"
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["state"]) == (1, "cancelled")


@pytest.mark.slow
def test_a_printed_command_is_published_by_hand_and_completed(field: Field, tmp_path: Path) -> None:
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("mosquitto_pub is not installed: run `apt-get install mosquitto-clients`")
    ended = backhaul("mqtt", "trigger", CLIENT, "--print", env=field.settings())
    assert ended.returncode == 0, ended.stderr
    command = json.loads(ended.stdout)
    config = command["payload"]["upload_config"]
    assert [one["part_number"] for one in config["presigned_urls"]] == [1, 2, 3]
    (tmp_path / "command.json").write_text(ended.stdout)
    publish = next(line for line in ended.stderr.splitlines() if "mosquitto_pub -V 5" in line)
    sent = subprocess.run(("sh", "-c", publish), cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False)
    assert sent.returncode == 0, sent.stderr
    done = field.run("resume", config["upload_id"])
    assert (done["status"], done["s3_key"]) == ("completed", config["key"])
    assert field.stored_sha256(config["key"]) == sha256_of(field.file)


@pytest.mark.slow
def test_a_printed_command_that_was_not_published_can_be_cancelled(field: Field) -> None:
    printed = backhaul("mqtt", "trigger", CLIENT, "/nowhere", "--print", "--size", "1", env=field.settings())
    upload_id = json.loads(printed.stdout)["payload"]["upload_config"]["upload_id"]
    assert field.run("cancel", upload_id)["status"] == "cancelled"
    assert field.in_flight() == []
    assert field.kept() == []


@pytest.mark.slow
def test_a_command_is_printed_for_a_device_that_may_read_one_file_only(field: Field, tmp_path: Path) -> None:
    """`FILE_PATH` and no `ALLOWED_ROOTS`: its size can be listed all the same."""
    settings = {
        "CLIENT_ID": "restaurant-2",
        "FILE_PATH": str(field.file),
        "STATE_DIR": str(tmp_path / "agent"),
        "MQTT_URL": field.broker.address.url,
        "UPLOAD_HOSTS": field.store.endpoint,
    }
    with ChildProcess(AGENT, settings=settings, log_path=tmp_path / "agent.log"):
        command = field.run("trigger", "restaurant-2", "--print")
        refused = field.run("trigger", "restaurant-2", "/etc/passwd", "--print", code=1)
        config = command["payload"]["upload_config"]
        assert [one["part_number"] for one in config["presigned_urls"]] == [1, 2, 3]
        assert "--size" in refused["detail"]
        assert field.in_flight() == [config["key"]]
        assert field.run("cancel", config["upload_id"])["status"] == "cancelled"
    assert field.in_flight() == []
    assert field.kept() == []


@pytest.mark.slow
def test_the_bare_command_is_left_to_a_control_plane(field: Field) -> None:
    requested = field.run("trigger", CLIENT, str(field.file), "--ask-control-plane")
    command = requested["command"]
    assert command["message_id"] == requested["upload_id"]
    assert "upload_config" not in command["payload"]
    # No owner grants here; the offer stays with the agent until it is cancelled.
    assert field.run("cancel", requested["upload_id"], "--client", CLIENT)["status"] == "cancelled"


@pytest.mark.slow
def test_watch_prints_the_messages_of_the_fleet(field: Field) -> None:
    with field.begin("watch", CLIENT) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["topic"], first["retained"]) == (f"fleet/v1/{CLIENT}/presence", True)
        field.run("trigger", CLIENT)
        seen = []
        for line in process.stdout:
            message = json.loads(line)["message"]
            seen.append(message.get("action") or message["status"])
            if seen[-1] == "close_upload":
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert {"download_file", "grant_parts", "close_upload"} <= set(seen)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["MQTT_URL", "AWS_ENDPOINT"])
def test_an_unreachable_broker_or_store_exits_with_3(field: Field, setting: str) -> None:
    scheme = "mqtt" if setting == "MQTT_URL" else "http"
    settings = field.run("trigger", CLIENT, code=3, **{setting: f"{scheme}://127.0.0.1:{free_port()}"})
    assert settings["title"] == "unreachable"
    assert field.kept() == []
