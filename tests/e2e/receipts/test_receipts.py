"""Receipts with real processes: signed by the device, witnessed, stored beside the object, verified, found altered."""

import io
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from control_plane.cli.site.stack import BUCKET
from schemas.receipts.envelope import decode_envelope
from schemas.receipts.statement import PARTS
from schemas.signing.ed25519 import Verifier
from schemas.signing.key_files import read_key
from tests.support.enrolled import enroll, plane_key
from tests.support.sites import MIB, Fleet, running_fleet

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
HOW_TO = Path(__file__).parents[3] / "docs" / "how-to" / "prove-an-upload.md"
CLI = (sys.executable, "-m", "control_plane.cli.main")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the agents may read."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Fleet]:
    """A site with an enrolled agent, `restaurant-1`, and one that has no root of trust, `kiosk-1`."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        enroll(fleet, "restaurant-1")
        allowed: dict[str, Any] = {"ALLOWED_ROOTS": str(files), "ALLOW_AFTER": "delete", "AFTER_GRACE": "0"}
        fleet.attach("restaurant-1", **allowed)
        fleet.attach("kiosk-1", **allowed)
        yield fleet


def completed(fleet: Fleet, client_id: str, path: Path, **body: Any) -> str:  # noqa: ANN401
    """Upload a file."""
    upload_id = fleet.trigger(client_id, path, **body)
    upload = fleet.ended(upload_id)
    assert upload["state"] == "completed", upload
    return upload_id


def receipt_of(fleet: Fleet, upload_id: str) -> dict[str, Any]:
    """The receipt of an upload, once it is made and stored beside the object."""
    answers: list[httpx.Response] = []

    def made() -> bool:
        answers[:] = [httpx.get(f"{fleet.site.server}/uploads/{upload_id}/receipt", timeout=60)]
        return answers[0].status_code == httpx.codes.OK

    fleet.until(made, f"the receipt of {upload_id}")
    return dict(answers[0].json())


def verify(fleet: Fleet, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `backhaul verify`; its exit code and its document."""
    environment = {**os.environ, "BACKHAUL_URL": fleet.site.server}
    command = [*CLI, "--json", "verify", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.strip()
    return done.returncode, json.loads(lines) if lines else {"error": done.stderr}


@pytest.mark.parametrize(
    ("size", "body"),
    [
        (3 * MIB, {}),
        (0, {}),
        (12 * MIB + 1, {}),
        (300_000, {"options": {"compression": "gzip"}}),
        (300_000, {"options": {"encrypt_to": [RECIPIENT]}}),
        (300_000, {"after": "delete"}),
    ],
    ids=["one part", "empty", "many parts", "gzip", "sealed", "deleted"],
)
def test_device_and_control_plane_sign_and_the_object_is_verified_by_its_bytes(
    fleet: Fleet, files: Path, size: int, body: dict[str, Any]
) -> None:
    """Both signatures verify with the keys of the registry; HEAD and the bytes agree."""
    path = files / f"file-{size}-{len(str(body))}.bin"
    path.write_bytes(os.urandom(size))
    upload_id = completed(fleet, "restaurant-1", path, **body)
    fleet.until(lambda: receipt_of(fleet, upload_id)["signed_by_device"], "the device's signature")
    receipt = receipt_of(fleet, upload_id)
    envelope = decode_envelope(json.dumps(receipt["envelope"]).encode())
    keys = {one["of"]: Verifier.of_text(one["public_key"]) for one in receipt["keys"]}
    assert keys["control-plane"].kid == read_key(plane_key(fleet)).kid
    for key in keys.values():
        signature = envelope.signature_of(key.kid)
        assert signature is not None
        assert key.verifies_bytes(signature, envelope.signed)
    statement = json.loads(b64decode(receipt["envelope"]["payload"]))
    assert statement["subject"][0]["name"] == receipt["s3_key"]
    assert list(statement["subject"][0]["digest"]) == [PARTS]
    predicate = statement["predicate"]
    assert (predicate["client_id"], predicate["path"], len(predicate["command"])) == ("restaurant-1", str(path), 64)
    code, document = verify(fleet, upload_id, "--bytes")
    assert code == 0, document
    (row,) = document["uploads"]
    assert (row["verdict"], row["content"], row["signed_by_device"], row["differs"]) == ("verified", "bytes", True, [])


def test_without_a_root_of_trust_the_control_plane_signs_alone_and_verify_says_so(fleet: Fleet, files: Path) -> None:
    """The unsigned client's upload has a receipt too."""
    path = files / "kiosk.bin"
    path.write_bytes(b"kiosk")
    upload_id = completed(fleet, "kiosk-1", path)
    receipt = receipt_of(fleet, upload_id)
    assert not receipt["signed_by_device"]
    assert [one["of"] for one in receipt["keys"]] == ["control-plane"]
    code, document = verify(fleet, upload_id)
    assert code == 0
    assert any("not signed by the device" in note for note in document["uploads"][0]["notes"])


def test_an_object_that_was_replaced_in_the_store_is_found_and_the_difference_is_an_event(
    fleet: Fleet, files: Path
) -> None:
    """Bytes of the same size, and the receipt beside it."""
    path = files / "ledger.csv"
    path.write_bytes(b"1,2,3\n" * 100)
    upload_id = completed(fleet, "restaurant-1", path)
    key = receipt_of(fleet, upload_id)["s3_key"]
    fleet.until(lambda: stored(fleet, f"{key}.receipt.json") is not None, "the receipt beside the object")
    assert verify(fleet, upload_id)[0] == 0
    overwrite(fleet, key, b"9,9,9\n" * 100)
    code, document = verify(fleet, upload_id)
    assert code == 1, document
    code, document = verify(fleet, "--all", "--bytes")
    assert code == 1
    changes = fleet.get(f"/uploads/{upload_id}/timeline")["changes"]
    found = [one for one in changes if one["type"] == "upload.mismatched"]
    assert len(found) == 2


def test_the_how_to_is_followed_word_for_word_and_openssl_verifies_both_signatures(
    fleet: Fleet, files: Path, tmp_path: Path
) -> None:
    """`prove-an-upload.md`, for a file of three parts; no code of this project takes part in the check."""
    path = files / "by hand.bin"
    path.write_bytes(os.urandom(11 * MIB))
    upload_id = completed(fleet, "restaurant-1", path)
    fleet.until(lambda: receipt_of(fleet, upload_id)["signed_by_device"], "the device's signature")
    show, check, compare = re.findall(r"^```bash\n(.*?)^```$", HOW_TO.read_text(), re.MULTILINE | re.DOTALL)
    assert "device" in typed(fleet, tmp_path, show.replace("UPLOAD", upload_id))
    assert "Signature Verified Successfully" in typed(fleet, tmp_path, check.replace("UPLOAD", upload_id))
    second = check.partition("\n")[2].replace("[0]", "[1]")
    assert "Signature Verified Successfully" in typed(fleet, tmp_path, second)
    digests = typed(fleet, tmp_path, compare.replace("UPLOAD", upload_id)).split()
    assert digests[0] == digests[-1]
    assert len(digests[0]) == 64
    (tmp_path / "signed").write_bytes((tmp_path / "signed").read_bytes().replace(b"restaurant-1", b"restaurant-2"))
    with pytest.raises(AssertionError):
        typed(fleet, tmp_path, check.splitlines()[-1])


def typed(fleet: Fleet, desk: Path, script: str) -> str:
    """What these commands of a document print; a command that fails ends it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "BACKHAUL_URL": fleet.site.server, "COLUMNS": "160"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    ended = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def bucket(fleet: Fleet) -> Any:  # noqa: ANN401 - boto3 has no types
    """The bucket, with the credentials of the control plane."""
    given = fleet.plane_settings
    return boto3.resource(
        "s3",
        endpoint_url=given["AWS_ENDPOINT"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    ).Bucket(BUCKET)


def stored(fleet: Fleet, key: str) -> bytes | None:
    """The object under this key."""
    found = list(bucket(fleet).objects.filter(Prefix=key))
    return found[0].get()["Body"].read() if found else None


def overwrite(fleet: Fleet, key: str, content: bytes) -> None:
    """What the operator of the object store can do: other bytes with the metadata of the first."""
    one = bucket(fleet).Object(key)
    one.put(Body=io.BytesIO(content), Metadata=one.metadata)
