"""A stolen device, with real processes: a mosquitto with accounts, an agent that was enrolled by a bundle.

Rule: the thief has all that is on the device: its key, its password, its state folder. The seconds that a revocation
took are in the log of the test; the limit of the test itself is for a slow machine.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker.child_process import ChildProcess
from control_plane.cli.site.broker import AuthenticatedBroker
from schemas.codec import encode
from schemas.messages import Presence
from schemas.signing.canonical import SignedKind
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import read_key
from schemas.topics import Topics
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import connected
from tests.support.patience import came_true
from tests.support.signed_fleet import fleet_with_accounts
from tests.support.sites import AGENT, MIB, PATIENCE, Fleet, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME: Final = "restaurant-7"
TOPICS: Final = Topics()

log = logging.getLogger(__name__)


@dataclass
class Stolen:
    """The site, and the device with its home."""

    fleet: Fleet
    home: Path
    bundle: dict[str, Any]
    broker: AuthenticatedBroker
    first: ChildProcess | None = None

    @property
    def signer(self) -> Signer:
        """The key that the thief has."""
        return read_key(self.home / "state" / "identity.json")

    def start(self) -> ChildProcess:
        """Run the agent with its bundle alone; the device's own settings are where its state and its file are."""
        settings = {
            "BUNDLE_FILE": str(self.home / "bundle.json"),
            "STATE_DIR": str(self.home / "state"),
            "MAX_BYTES_PER_SECOND": str(MIB),
        }
        agent = ChildProcess(AGENT, settings=settings, log_path=self.home / "agent.log")
        return self.fleet.stack.enter_context(agent)


@pytest.fixture(scope="module")
def stolen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stolen]:
    directory = tmp_path_factory.mktemp("stolen")
    with fleet_with_accounts(directory) as (fleet, network):
        home = directory / NAME
        (home / "state").mkdir(parents=True)
        (home / "data").mkdir()
        (home / "data" / "small.bin").write_bytes(os.urandom(MIB))
        (home / "data" / "large.bin").write_bytes(os.urandom(64 * MIB))
        body = {
            "client_id": NAME,
            "allowed_roots": [str(home / "data")],
            "upload_hosts": [fleet.site.agent_settings()["UPLOAD_HOSTS"]],
        }
        answer = fleet.post("/devices", body)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        (home / "bundle.json").write_text(json.dumps(answer.json()))
        (home / "bundle.json").chmod(0o600)
        yield Stolen(fleet, home, answer.json(), network)


def device(fleet: Fleet) -> dict[str, Any]:
    return fleet.get(f"/devices/{NAME}")


def until(condition: Callable[[], bool], what: str) -> None:
    assert came_true(condition, PATIENCE), what


def test_a_device_joins_with_its_bundle_alone(stolen: Stolen) -> None:
    fleet, agent = stolen.fleet, stolen.start()
    stolen.first = agent
    until(lambda: fleet.connected(NAME), agent.log_tail())
    found = device(fleet)
    assert (found["state"], found["awaits_claim"], found["has_account"]) == ("active", False, True)
    assert found["public_key"] == stolen.signer.verifier.text
    path = stolen.home / "data" / "small.bin"
    ended = fleet.ended(fleet.trigger(NAME, path))
    assert ended["state"] == "completed", ended
    assert fleet.stored_sha256(ended["upload_id"]) == sha256_of(path)


def test_the_thief_of_a_password_alone_becomes_nobody(stolen: Stolen) -> None:
    """A broker that read the password, or a thief of it, has another key: it raises the alarm, and gets nothing."""
    fleet, other = stolen.fleet, Signer(b"t" * 32)
    presence = Presence(NAME, "online", "stolen", 9, 9, key=other.verifier.text)
    topic, payload = TOPICS.presence(NAME), encode(presence)
    properties = other.sign(SignedKind.PRESENCE, topic, payload).properties()
    account = {"username": NAME, "password": stolen.bundle["mqtt_password"]}
    with connected(stolen.broker.devices.port, Connect(client_id=NAME, **account)) as wire:
        wire.publish(topic, payload, qos=1, user=properties)
        until(lambda: device(fleet)["other_fingerprint"] is not None, "the alarm")
    assert device(fleet)["public_key"] == stolen.signer.verifier.text
    upload = fleet.trigger(NAME, stolen.home / "data" / "small.bin")
    until(lambda: (fleet.get(f"/uploads/{upload}")["reason"] or {}).get("code") == "key_alarm", "the reason")
    assert fleet.post(f"/uploads/{upload}/cancel").is_success
    assert stolen.first is not None
    stolen.first.stop()
    # The operator looked at the device, which has the pinned key still: with a new password the thief is out.
    rotated = fleet.post(f"/devices/{NAME}/rotate", {"allowed_roots": stolen.bundle["allowed_roots"]})
    assert rotated.is_success, rotated.text
    assert device(fleet)["other_fingerprint"] is None
    stolen.bundle = {**rotated.json(), "upload_hosts": stolen.bundle["upload_hosts"]}
    (stolen.home / "bundle.json").write_text(json.dumps(stolen.bundle))


def test_a_revoked_device_is_out_within_seconds(stolen: Stolen) -> None:
    fleet, agent = stolen.fleet, stolen.start()
    until(lambda: fleet.connected(NAME), agent.log_tail())
    upload = fleet.trigger(NAME, stolen.home / "data" / "large.bin")
    until(lambda: fleet.get(f"/uploads/{upload}")["bytes_uploaded"] > 0, agent.log_tail())
    began = time.monotonic()
    assert fleet.post(f"/devices/{NAME}/revoke").is_success
    refused = time.monotonic() - began
    until(lambda: fleet.get(f"/uploads/{upload}")["state"] == "cancelled", "the end of its upload")
    until(lambda: not fleet.connected(NAME), "the end of its connection")
    until(lambda: "ot authori" in agent.log_tail(), agent.log_tail())
    log.warning("revoked: answered in %.1f s, all over in %.1f s", refused, time.monotonic() - began)
    assert agent.alive
    assert device(fleet)["state"] == "revoked"


def test_nothing_that_the_thief_sends_afterwards_is_taken(stolen: Stolen) -> None:
    """Its key is refused under its own name and under any other, also over an account that may write everywhere."""
    fleet, thief = stolen.fleet, stolen.signer
    plane = stolen.broker.plane
    account = Connect(client_id="thief", username=plane["MQTT_USERNAME"], password=plane["MQTT_PASSWORD"])
    with connected(stolen.broker.services.port, account) as wire:
        for name in (NAME, "restaurant-8"):
            topic = TOPICS.presence(name)
            payload = encode(Presence(name, "online", "stolen", 99, 99, key=thief.verifier.text))
            wire.publish(topic, payload, qos=1, user=thief.sign(SignedKind.PRESENCE, topic, payload).properties())
        # Of a device without a key, which is taken: what came before it was judged before it.
        wire.publish(TOPICS.presence("fence"), encode(Presence("fence", "online", "other", 1, 1)), qos=1)
        until(lambda: fleet.connected("fence"), "what is taken")
    assert not fleet.connected(NAME)
    assert not fleet.connected("restaurant-8")
