"""A command that another program signs: `openssl` makes the signature, `mosquitto_pub` publishes it.

Rule: nothing of the product builds or signs the command; the bytes are those of protocol.md section 11.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.signed_fleet import SignedFleet, entry_of
from tests.support.sites import running_fleet, sha256_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed"),
]

NAME: Final = "restaurant-1"
TOPIC: Final = f"fleet/v1/{NAME}/command"
_HEAD: Final = 12
"""Bytes of DER before the 32 bytes of an Ed25519 public key."""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedFleet]:
    home = tmp_path_factory.mktemp("openssl")
    (home / "data").mkdir()
    (home / "data" / "one.bin").write_bytes(os.urandom(100_000))
    with running_fleet(home) as fleet:
        signed = SignedFleet(fleet)
        signed.enroll(NAME)
        fleet.attach(NAME, home / "data" / "one.bin", ALLOWED_ROOTS=str(home / "data"))
        yield signed


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60).stdout


def session_of(signed: SignedFleet) -> str:
    """From the retained presence, as anyone reads it who may command the device."""
    address = signed.fleet.site.broker.address
    command = ["mosquitto_sub", "-V", "5", "-h", address.host, "-p", str(address.port), "-C", "1", "-W", "60"]
    heard = subprocess.run([*command, "-t", f"fleet/v1/{NAME}/presence"], check=True, capture_output=True, timeout=90)
    return str(json.loads(heard.stdout)["session"])


def test_a_command_that_openssl_signed_is_obeyed(signed: SignedFleet, tmp_path: Path) -> None:
    """Twenty lines in any language: the key, the bytes, the signature, two user properties."""
    fleet, key, file = signed.fleet, tmp_path / "key.pem", tmp_path / "bytes"
    openssl("genpkey", "-algorithm", "ed25519", "-out", key)
    public = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")[_HEAD:]
    signed.publish(entry_of(signed.own), entry_of(text_of(public), "openssl", "cli-*"))
    fleet.until(lambda: bool(fleet.get(f"/clients/{NAME}")["keys_version"] == 2), "the agent to report the list")

    command: dict[str, Any] = {"message_id": "by-openssl", "action": "download_file", "payload": {}}
    payload = json.dumps({**command, "session": session_of(signed)}).encode()
    topic = TOPIC.encode()
    file.write_bytes(b"BACKHAULv1 7 command %d %b %d %b" % (len(topic), topic, len(payload), payload))
    signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file)
    kid = f"ed25519:{text_of(hashlib.sha256(public).digest()[:16])}"

    address = fleet.site.broker.address
    publish = ["mosquitto_pub", "-V", "5", "-q", "1", "-h", address.host, "-p", str(address.port), "-t", TOPIC]
    publish += ["-D", "publish", "user-property", "kid", kid]
    publish += ["-D", "publish", "user-property", "signature", text_of(signature)]
    subprocess.run([*publish, "-s"], input=payload, check=True, timeout=60)

    fleet.until(
        lambda: any(one["upload_id"] == "by-openssl" for one in fleet.get("/uploads")["uploads"]), "the adoption"
    )
    ended = fleet.ended("by-openssl")
    assert ended["state"] == "completed", ended
    assert fleet.stored_sha256("by-openssl") == sha256_of(fleet.directory / "data" / "one.bin")
