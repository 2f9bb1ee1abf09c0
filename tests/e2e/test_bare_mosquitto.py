"""Our agent driven by nothing but `mosquitto_pub`, `mosquitto_sub` and a store: every message is typed by hand.

Rule: what goes to the agent here is JSON written in this file from protocol.md, not built by our code.
"""

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.support.sites import MIB, Fleet, running_fleet, sha256_of

CHUNK = 5 * MIB
PATIENCE = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed"),
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site with one agent."""
    home = tmp_path_factory.mktemp("bare")
    (home / "data").mkdir()
    (home / "data" / "test-file.bin").write_bytes(os.urandom(2 * CHUNK + 100))
    with running_fleet(home) as fleet:
        fleet.attach("restaurant-1", home / "data" / "test-file.bin", ALLOWED_ROOTS=str(home / "data"))
        yield fleet


class Terminal:
    """A person with two terminals: one subscribed, one to publish."""

    def __init__(self, fleet: Fleet, listening: "subprocess.Popen[bytes]") -> None:
        self._address = fleet.site.broker.address
        self._listening = listening
        self._received = b""

    def publish(self, message: dict[str, Any]) -> None:
        """`mosquitto_pub -V 5`."""
        command = ["mosquitto_pub", "-V", "5", "-q", "1", "-h", self._address.host, "-p", str(self._address.port)]
        command += ["-t", "fleet/v1/restaurant-1/command", "-m", json.dumps(message)]
        subprocess.run(command, check=True, timeout=60)

    def read(self, until: str) -> dict[str, Any]:
        """The next response with this status."""
        while True:
            message: dict[str, Any] = json.loads(self.line("{"))
            if message["status"] == until:
                return message

    def line(self, start: str) -> str:
        """The next line that starts with this text; the others are mosquitto_sub's own messages."""
        end = time.monotonic() + PATIENCE
        while not (line := self._line(end)).startswith(start):
            pass
        return line

    def _line(self, end: float) -> str:
        assert self._listening.stdout is not None
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._listening.stdout], [], [], max(0, end - time.monotonic()))
            assert ready, f"nothing more is heard: {self._received!r}"
            piece = os.read(self._listening.stdout.fileno(), 65_536)
            assert piece, "mosquitto_sub has ended"
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()


@contextmanager
def terminal(fleet: Fleet) -> Iterator[Terminal]:
    """`mosquitto_sub -V 5` on the responses of the client."""
    address = fleet.site.broker.address
    # With -d it prints when it is subscribed; into a pipe, that would stay with it until its buffer is full.
    command = ["stdbuf", "-oL", "mosquitto_sub", "-d", "-V", "5", "-q", "1"]
    command += ["-h", address.host, "-p", str(address.port), "-t", "fleet/v1/restaurant-1/response"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listening:
        try:
            person = Terminal(fleet, listening)
            person.line("Subscribed ")
            yield person
        finally:
            listening.terminate()


def s3_of(fleet: Fleet) -> Any:  # noqa: ANN401 - boto3's clients have no type of their own
    """A client with the operator's own credentials."""
    store = fleet.site.store
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=store.credentials.access_key,
        aws_secret_access_key=store.credentials.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def test_a_bare_command_is_carried_out_by_the_control_plane(fleet: Fleet) -> None:
    """`message_id` becomes the upload's id, and the default file is meant."""
    with terminal(fleet) as person:
        person.publish(
            {"message_id": "typed-by-hand", "action": "download_file", "payload": {"metadata": {"by": "me"}}}
        )
        fleet.until(lambda: _known(fleet, "typed-by-hand"), "the upload to be adopted")
        upload = fleet.ended("typed-by-hand")
    assert (upload["state"], upload["origin"], upload["metadata"]) == ("completed", "mqtt", {"by": "me"})
    assert fleet.stored_sha256("typed-by-hand") == sha256_of(Path(upload["file_path"]))


def _known(fleet: Fleet, upload_id: str) -> bool:
    return any(one["upload_id"] == upload_id for one in fleet.get("/uploads")["uploads"])


def test_a_bare_command_with_urls_in_it(fleet: Fleet) -> None:
    """Pre-granted, without an owner: the agent starts at once and answers with every etag; the sender completes."""
    s3, bucket, key = s3_of(fleet), "backhaul", "by-hand/test-file.bin"
    s3_upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    urls = [
        {
            "part_number": number,
            "url": s3.generate_presigned_url(
                "upload_part", {"Bucket": bucket, "Key": key, "UploadId": s3_upload_id, "PartNumber": number}
            ),
        }
        for number in range(1, 6)
    ]
    config = {"upload_id": "granted-1", "bucket": bucket, "key": key, "chunk_size": CHUNK, "presigned_urls": urls}
    path = fleet.directory / "data" / "test-file.bin"
    with terminal(fleet) as person:
        payload = {"file_path": str(path), "upload_config": config}
        person.publish({"message_id": "abc123", "action": "download_file", "payload": payload})
        answer = person.read("success")
    assert (answer["message_id"], answer["payload"]["upload_id"]) == ("abc123", "granted-1")
    assert answer["payload"]["owner"] == "cli-unknown"
    etags = answer["payload"]["etags"]
    assert sorted(etags) == ["1", "2", "3"]
    parts = [{"PartNumber": int(number), "ETag": etag} for number, etag in sorted(etags.items())]
    s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=s3_upload_id, MultipartUpload={"Parts": parts})
    copy = fleet.directory / "copy.bin"
    s3.download_file(bucket, key, str(copy))
    assert sha256_of(copy) == sha256_of(path)
    fleet.until(lambda: fleet.get("/uploads/granted-1")["state"] == "completing", "the history of it")


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"message_id": "x1", "action": "format_disk", "payload": {}}, "unsupported"),
        (
            {"message_id": "x2", "action": "download_file", "payload": {"upload_config": {"chunk_size": 5}}},
            "bad_request",
        ),
        ({"message_id": "x3", "action": "list_files", "payload": {}}, "bad_request"),
    ],
)
def test_a_command_that_cannot_be_obeyed_is_answered(fleet: Fleet, message: dict[str, Any], error: str) -> None:
    """With its `message_id` and one sentence."""
    with terminal(fleet) as person:
        person.publish(message)
        status = "rejected" if error == "unsupported" else "error"
        answer = person.read(status)
    assert (answer["message_id"], answer["error"]) == (message["message_id"], error)
    assert answer["message"]


def test_health_and_files_by_hand(fleet: Fleet) -> None:
    """The two questions that need no upload."""
    with terminal(fleet) as person:
        person.publish({"message_id": "h1", "action": "health_check", "payload": {}})
        health = person.read("success")
        assert health["payload"]["system_info"]["hostname"]
        pattern = str(fleet.directory / "data" / "*.bin")
        person.publish({"message_id": "f1", "action": "list_files", "payload": {"pattern": pattern}})
        (file,) = person.read("success")["payload"]["files"]
    assert file["size"] == 2 * CHUNK + 100
