"""The direct command line in a signed fleet: whom it believes, and what it signs.

Rule: real processes. The liar has the broker's own access, and signs with no key, or with one of its own.
"""

import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from broker.child_process import clean_environment
from control_plane.cli.mqtt.device_keys import DeviceKeys
from schemas.codec import encode
from schemas.messages import FileEntry, FileList, Response
from schemas.signing.canonical import SignedKind, fingerprint
from schemas.signing.ed25519 import Signer, Verifier
from schemas.signing.key_files import create_key
from schemas.topics import Topics
from schemas.values import Action, ResponseStatus
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, connected
from tests.support.screen import BACKHAUL, backhaul, started
from tests.support.signed_fleet import SignedFleet, entry_of
from tests.support.sites import Fleet, running_fleet, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME: Final = "restaurant-1"
STRICT: Final = "till-2"
TOPICS: Final = Topics()
LIAR: Final = Signer(b"l" * 32)


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal of an operator whose key is listed. Without `keys` it knows no device."""

    signed: SignedFleet
    key: Path
    keys: Path

    @property
    def fleet(self) -> Fleet:
        return self.signed.fleet

    @property
    def file(self) -> Path:
        return self.fleet.directory / "data" / "one.bin"

    @property
    def pinned(self) -> DeviceKeys:
        return DeviceKeys(self.keys, TOPICS.root)

    def settings(self, **changes: str) -> dict[str, str]:
        given = {
            **self.fleet.plane_settings,
            "BACKHAUL_URL": self.fleet.site.server,
            "OPERATOR_KEY_FILE": str(self.key),
            "DEVICE_KEYS_FILE": str(self.keys),
            "XDG_STATE_HOME": str(self.keys.parent),
        }
        return clean_environment({**given, **changes})

    def run(self, *words: str, code: int = 0, **changes: str) -> "subprocess.CompletedProcess[str]":
        ended = backhaul(*words, env=self.settings(**changes), patience=120)
        assert ended.returncode == code, ended.stderr
        return ended

    def document(self, *words: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*words, "--json").stdout)
        return answer

    def fingerprint(self, name: str = NAME) -> str:
        """As the control plane's registry has it."""
        return str(self.fleet.get(f"/devices/{name}")["fingerprint"])

    def trust(self, name: str = NAME) -> None:
        """As `mqtt trust` does it, without the program."""
        device = self.signed.device(name)
        assert device is not None
        assert device.public_key is not None
        self.pinned.pin(name, Verifier(device.public_key))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignedFleet]:
    home = tmp_path_factory.mktemp("terminal")
    (home / "data").mkdir()
    (home / "data" / "one.bin").write_bytes(os.urandom(100_000))
    policy = home / "policy.toml"
    policy.write_text('commands_need = "operator"\n')
    key = create_key(home / "ana.json")
    with running_fleet(home) as fleet:
        signed = SignedFleet(fleet)
        signed.publish(entry_of(signed.own), entry_of(key.verifier.text, "ana", "cli-*"))
        for name, more in ((NAME, {}), (STRICT, {"POLICY_FILE": str(policy)})):
            signed.enroll(name)
            fleet.attach(name, home / "data" / "one.bin", ALLOWED_ROOTS=str(home / "data"), **more)
        names = (NAME, STRICT)
        fleet.until(lambda: all(fleet.get(f"/clients/{one}")["keys_version"] == 2 for one in names), "the list of keys")
        fleet.until(lambda: all(fleet.get(f"/devices/{one}")["state"] == "active" for one in names), "the pins")
        yield signed


@pytest.fixture
def terminal(signed: SignedFleet, tmp_path: Path) -> Terminal:
    return Terminal(signed, signed.fleet.directory / "ana.json", tmp_path / "device-keys.json")


def test_a_device_is_believed_once_its_key_is_pinned(terminal: Terminal) -> None:
    """The error has the fingerprint and the next command; no other fingerprint pins the key."""
    ended = terminal.run("mqtt", "files", NAME, code=1)
    assert ended.stdout == ""
    assert "signs with a key that is not known here" in ended.stderr
    digits = terminal.fingerprint().replace(" ", "")
    assert f"mqtt trust --fingerprint {digits} {NAME}" in ended.stderr
    ended = terminal.run("mqtt", "trust", NAME, "--fingerprint", fingerprint(LIAR.verifier.public_key), code=1)
    assert terminal.fingerprint() in ended.stderr
    assert not terminal.keys.exists()
    (row,) = terminal.document("mqtt", "trust", NAME, "--fingerprint", terminal.fingerprint())["devices"]
    assert row["fingerprint"] == terminal.fingerprint()
    assert terminal.keys.stat().st_mode & 0o777 == 0o600
    listed = terminal.document("mqtt", "files", NAME)["files"]
    assert [one["path"] for one in listed] == [str(terminal.file)]


def test_the_first_key_is_pinned_with_trust_first_and_uploads(terminal: Terminal) -> None:
    ended = terminal.document("mqtt", "trigger", NAME, "--trust-first")
    assert (ended["status"], ended["file_size"]) == ("completed", terminal.file.stat().st_size)
    pinned = terminal.pinned.of_client(NAME)
    assert pinned is not None
    assert fingerprint(pinned.verifier.public_key) == terminal.fingerprint()


def test_without_a_key_the_command_says_what_is_missing(terminal: Terminal) -> None:
    """Also where nothing waits for an answer that would not come."""
    terminal.trust()
    for words in (("files", NAME), ("trigger", NAME), ("trigger", NAME, "--ask-control-plane")):
        ended = terminal.run("mqtt", *words, code=2, OPERATOR_KEY_FILE="")
        assert "obeys signed commands alone" in ended.stderr, words


def test_bare_commands_are_signed(terminal: Terminal) -> None:
    terminal.trust()
    assert terminal.document("mqtt", "cancel", "never-begun", "--client", NAME)["status"] == "cancelled"
    fleet, upload_id = terminal.fleet, terminal.document("mqtt", "trigger", NAME, "--ask-control-plane")["upload_id"]
    fleet.until(lambda: any(one["upload_id"] == upload_id for one in fleet.get("/uploads")["uploads"]), "the adoption")
    assert fleet.ended(upload_id)["state"] == "completed"
    assert fleet.stored_sha256(upload_id) == sha256_of(terminal.file)


@contextmanager
def answering(
    fleet: Fleet, answer: Callable[[Any], list[tuple[bytes, list[tuple[str, str]]]]]
) -> Iterator[list[bytes]]:
    """Someone at the broker who answers each command of the device; the answers that were given."""
    given: list[bytes] = []
    over = threading.Event()
    with connected(fleet.site.broker.address.port, Connect(client_id="liar")) as wire:
        wire.subscribe(TOPICS.command(NAME))

        def lie() -> None:
            while not over.is_set():
                try:
                    packet = wire.receive(0.1)
                except TimeoutError:
                    continue
                except (Closed, OSError):
                    return
                for payload, properties in answer(json.loads(packet.payload)):
                    wire.publish(TOPICS.response(NAME), payload, user=properties)
                    given.append(payload)

        liar = threading.Thread(target=lie)
        liar.start()
        try:
            yield given
        finally:
            over.set()
            liar.join(60)
            assert not liar.is_alive()


def test_a_forged_answer_is_counted_and_not_believed(terminal: Terminal) -> None:
    """The device is silent, and someone else answers in its place: without a signature, and with one of their own."""
    terminal.trust()
    fleet, topic = terminal.fleet, TOPICS.response(NAME)

    def forged(command: Any) -> list[tuple[bytes, list[tuple[str, str]]]]:  # noqa: ANN401 - JSON
        files = FileList((FileEntry("/etc/forged", 1, 1),))
        payload = encode(Response(command["message_id"], Action.LIST_FILES, ResponseStatus.SUCCESS, files, epoch=1))
        return [(payload, []), (payload, LIAR.sign(SignedKind.RESPONSE, topic, payload).properties())]

    fleet.agents[NAME].stop()
    try:
        with answering(fleet, forged) as given:
            ended = terminal.run("mqtt", "files", NAME, code=1)
    finally:
        fleet.attach(NAME, terminal.file, ALLOWED_ROOTS=str(terminal.file.parent))
    assert len(given) == 2
    assert ended.stdout == ""
    assert "2 messages without its signature, or altered ones, were dropped" in ended.stderr


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto-clients is not installed")
def test_what_is_signed_by_hand_is_obeyed(terminal: Terminal, tmp_path: Path) -> None:
    terminal.trust()
    command, address = tmp_path / "command.json", terminal.fleet.site.broker.address
    command.write_text('{"message_id": "by-hand-signed", "action": "download_file", "payload": {}}')
    printed = terminal.run("mqtt", "sign", NAME, str(command)).stdout
    assert "-D publish user-property signature" in printed
    assert (tmp_path / "command.signed.json").stat().st_mode & 0o777 == 0o600
    publish = ["mosquitto_pub", "-h", address.host, "-p", str(address.port), *shlex.split(printed)]
    subprocess.run(publish, check=True, timeout=60)
    fleet = terminal.fleet
    fleet.until(
        lambda: any(one["upload_id"] == "by-hand-signed" for one in fleet.get("/uploads")["uploads"]), "the adoption"
    )
    assert fleet.ended("by-hand-signed")["state"] == "completed"
    assert fleet.stored_sha256("by-hand-signed") == sha256_of(terminal.file)


def test_a_device_that_wants_an_operator_uploads_when_an_operator_signs(terminal: Terminal) -> None:
    """REST, by itself, is refused; the operator's terminal publishes, and the control plane grants and proves."""
    terminal.trust(STRICT)
    refused = terminal.fleet.post(f"/trigger-download/{STRICT}", {})
    assert refused.json()["type"].endswith("needs-operator-signature"), refused.text
    ended = terminal.document("trigger", STRICT, str(terminal.file), "--sign", "--wait", "-m", "order=7")
    assert (ended["status"], ended["metadata"], ended["client_id"]) == ("completed", {"order": "7"}, STRICT)
    assert terminal.fleet.stored_sha256(ended["upload_id"]) == sha256_of(terminal.file)


def test_watch_tells_what_is_not_signed_by_the_device(terminal: Terminal) -> None:
    """The stored presence is the device's own; the one that a liar publishes is shown as what it is."""
    terminal.trust()
    with watching(terminal, ["mqtt", "watch", NAME, "--json"]) as lines:
        lie = json.dumps({"client_id": NAME, "status": "offline", "install_id": "lie", "epoch": 1, "sequence": 1})
        with connected(terminal.fleet.site.broker.address.port, Connect(client_id="liar")) as wire:
            wire.publish(TOPICS.presence(NAME), lie.encode(), qos=1)
        terminal.fleet.until(
            lambda: {"verified", "refused"} <= {json.loads(line)["signature"] for line in lines}, "both presences"
        )
    shown = [json.loads(line) for line in lines]
    presences = [one for one in shown if one["topic"] == TOPICS.presence(NAME)]
    lies = [one["message"]["install_id"] == "lie" for one in presences]
    assert [one["signature"] == "refused" for one in presences] == lies


@contextmanager
def watching(terminal: Terminal, command: list[str]) -> Iterator[list[str]]:
    """A command that runs, and the lines that it has printed; the first one has come."""
    lines: list[str] = []
    with started((*BACKHAUL, *command), terminal.settings()) as running:
        assert running.stdout is not None
        lines.append(running.stdout.readline())
        reader = threading.Thread(target=lambda: lines.extend(running.stdout or ()))
        reader.start()
        yield lines
        running.terminate()
        reader.join(60)
        assert not reader.is_alive()
