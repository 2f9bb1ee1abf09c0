"""A signed fleet of real processes: uploads, foreign publishers, restarts of both sides, a change of keys.

Rule: the foreign publisher has the broker's own access, and signs with a key that the fleet does not list.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from broker.child_process import clean_environment
from schemas.signing.canonical import SignedKind
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import create_key
from schemas.topics import Topics
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected
from tests.support.signed_fleet import SignedFleet, entry_of
from tests.support.sites import Fleet, running_fleet, serve, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME: Final = "restaurant-1"
TOPIC: Final = Topics().command(NAME)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedFleet]:
    home = tmp_path_factory.mktemp("signed")
    (home / "data").mkdir()
    (home / "data" / "one.bin").write_bytes(os.urandom(6 * 1024 * 1024))
    with running_fleet(home) as fleet:
        signed = SignedFleet(fleet)
        signed.enroll(NAME)
        attach(fleet)
        yield signed


def attach(fleet: Fleet) -> None:
    fleet.attach(NAME, fleet.directory / "data" / "one.bin", ALLOWED_ROOTS=str(fleet.directory / "data"))


def client(fleet: Fleet) -> dict[str, Any]:
    return fleet.get(f"/clients/{NAME}")


def uploads(fleet: Fleet) -> bool:
    """One upload, from the command to the proof."""
    path = fleet.directory / "data" / "one.bin"
    ended = fleet.ended(fleet.trigger(NAME, path))
    assert ended["state"] == "completed", ended
    return fleet.stored_sha256(ended["upload_id"]) == sha256_of(path)


def publish(fleet: Fleet, payload: bytes, signer: Signer | None = None) -> None:
    """As anyone who has the broker's password."""
    user = signer.sign(SignedKind.COMMAND, TOPIC, payload).properties() if signer else []
    with connected(fleet.site.broker.address.port, Connect(client_id="foreign")) as wire:
        wire.publish(TOPIC, payload, qos=1, user=user)


def unverified(fleet: Fleet) -> int:
    return int(client(fleet)["unverified"])


def test_a_signed_fleet_uploads_and_its_key_is_pinned(signed: SignedFleet) -> None:
    assert uploads(signed.fleet)
    device = signed.device(NAME)
    assert device is not None
    assert (device.state, device.public_key is not None, device.claim_secret) == ("active", True, None)
    assert client(signed.fleet)["keys_version"] == 1


@pytest.mark.parametrize("signer", [None, Signer(b"f" * 32)], ids=["unsigned", "unknown key"])
def test_a_command_of_a_foreign_publisher_is_not_obeyed(signed: SignedFleet, signer: Signer | None) -> None:
    """Neither the agent begins it, nor does the control plane adopt what it heard."""
    fleet, upload_id = signed.fleet, f"foreign-{signer is None}"
    before = unverified(fleet)
    command = {"message_id": upload_id, "action": "download_file", "payload": {}}
    publish(fleet, json.dumps(command).encode(), signer)
    fleet.until(lambda: unverified(fleet) > before, "the count of the agent")
    assert all(one["upload_id"] != upload_id for one in fleet.get("/uploads")["uploads"])


def test_an_unsigned_presence_of_a_pinned_client_is_dropped(signed: SignedFleet) -> None:
    fleet = signed.fleet
    before = client(fleet)
    lie = {"client_id": NAME, "status": "offline", "install_id": "x", "epoch": 10**9, "sequence": 1}
    with connected(fleet.site.broker.address.port, Connect(client_id="liar")) as wire:
        wire.publish(Topics().presence(NAME), json.dumps(lie).encode(), qos=1)
    assert uploads(fleet)
    assert client(fleet)["state"] == before["state"] == "connected"


def test_both_sides_restart_and_go_on(signed: SignedFleet) -> None:
    fleet = signed.fleet
    fleet.agents[NAME].stop()
    upload_id = fleet.trigger(NAME, fleet.directory / "data" / "one.bin")
    fleet.site.plane.stop()
    plane = fleet.stack.enter_context(serve(fleet.site.directory, fleet.plane_settings))
    fleet.site = replace(fleet.site, plane=plane)
    fleet.until(fleet.ready, "the control plane again")
    attach(fleet)
    assert fleet.ended(upload_id)["state"] == "completed"


def test_an_operator_uploads_with_a_key_of_their_own(signed: SignedFleet, tmp_path: Path) -> None:
    """Straight over MQTT; without the key nothing is published that the device would not obey."""
    fleet, key = signed.fleet, tmp_path / "ana.json"
    ana = create_key(key)
    signed.publish(entry_of(signed.own), entry_of(ana.verifier.text, "ana", "cli-*"))
    version = signed.roots.version
    fleet.until(lambda: client(fleet)["keys_version"] == version, "the agent to report the list")
    settings = {**fleet.plane_settings, "XDG_STATE_HOME": str(tmp_path)}
    path = str(fleet.directory / "data" / "one.bin")
    settings["DEVICE_KEYS_FILE"] = str(tmp_path / "device-keys.json")
    program = [sys.executable, "-m", "control_plane.cli.main", "mqtt", "trigger", NAME, path, "--trust-first", "--json"]
    signed_run = subprocess.run(
        program,
        env=clean_environment({**settings, "OPERATOR_KEY_FILE": str(key)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert signed_run.returncode == 0, signed_run.stderr
    assert json.loads(signed_run.stdout)["status"] == "completed"
    unsigned_run = subprocess.run(
        program, env=clean_environment(settings), capture_output=True, text=True, check=False, timeout=120
    )
    assert unsigned_run.returncode == 2, unsigned_run.stdout
    assert "OPERATOR_KEY_FILE" in unsigned_run.stderr + unsigned_run.stdout


def test_a_revoked_key_is_obeyed_no_longer_and_a_new_list_is(signed: SignedFleet) -> None:
    """The agent takes the newer list from the broker while it is connected."""
    fleet = signed.fleet
    other = Signer(b"o" * 32)
    signed.publish(entry_of(signed.own), entry_of(other.verifier.text, "ana", "cli-*"))
    listed = signed.roots.version
    fleet.until(lambda: client(fleet)["keys_version"] == listed, "the agent to report the list")
    assert uploads(fleet)
    signed.publish(entry_of(signed.own), revoked=(other.kid,))
    fleet.until(lambda: client(fleet)["keys_version"] == listed + 1, "the agent to report the next list")
    before = unverified(fleet)
    publish(fleet, json.dumps({"message_id": "late", "action": "health_check", "payload": {}}).encode(), other)
    fleet.until(lambda: unverified(fleet) > before, "the count of the agent")
    assert uploads(fleet)
