"""`mqtt trust`, `mqtt sign` and `trigger --sign`, as far as they need no broker."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from control_plane.cli.commands import build
from control_plane.cli.mqtt.device_keys import DeviceKeys
from schemas.signing.canonical import fingerprint
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import create_key
from schemas.topics import DEFAULT_ROOT

DEVICE = Signer(b"d" * 32)
COMMAND = '{"message_id": "m1", "action": "download_file", "payload": {}}'


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceKeys:
    """The keys of an operator who has a key of their own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    create_key(tmp_path / "ana.json")
    monkeypatch.setenv("OPERATOR_KEY_FILE", str(tmp_path / "ana.json"))
    monkeypatch.setenv("DEVICE_KEYS_FILE", str(tmp_path / "device-keys.json"))
    monkeypatch.delenv("TOPIC_ROOT", raising=False)
    return DeviceKeys(tmp_path / "device-keys.json", DEFAULT_ROOT)


def run(*words: str) -> Result:
    return CliRunner().invoke(build(), words)


def test_pinned_keys_are_listed_and_removed(keys: DeviceKeys) -> None:
    assert json.loads(run("mqtt", "trust", "--json").stdout) == {"devices": []}
    for name in ("till-2", "till-1"):
        keys.pin(name, Signer(name.ljust(32).encode()).verifier)
    rows = json.loads(run("mqtt", "trust", "--json").stdout)["devices"]
    assert [one["client_id"] for one in rows] == ["till-1", "till-2"]
    assert run("mqtt", "trust", "-o", "name").stdout.split() == ["till-1", "till-2"]
    keys.pin("till-1", DEVICE.verifier)
    (row,) = json.loads(run("mqtt", "trust", "till-1", "--json").stdout)["devices"]
    assert row["fingerprint"] == fingerprint(DEVICE.verifier.public_key)
    assert run("mqtt", "trust", "till-1", "--remove", "--no-input").exit_code == 2
    assert len(keys.all()) == 2
    assert run("mqtt", "trust", "till-1", "--remove", "--yes").exit_code == 0
    assert [one.client_id for one in keys.all()] == ["till-2"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("trust", "--remove"), "name the client"),
        (("trust", "--fingerprint", "0" * 32), "name the client"),
        (("trust", "till-1", "--remove", "--fingerprint", "0" * 32), "choose one"),
        (("trust", "till-1", "--fingerprint", "abc"), "32 hex digits"),
        (("trust", "till-1"), "no key of till-1 is pinned"),
        (("trust", "a/b"), "client id"),
        (("sign", "till-1", "none.json"), "none.json"),
        (("sign", "till-1", "ana.json"), "holds no command"),
        (("sign", "a/b", "command.json"), "client id"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_connected(
    keys: DeviceKeys, words: tuple[str, ...], complaint: str
) -> None:
    (keys.path.parent / "command.json").write_text(COMMAND)
    ended = run("mqtt", *words)
    assert ended.exit_code == 2, ended.output
    assert complaint in ended.output
    assert keys.all() == ()


def test_a_command_of_standard_input_needs_a_place(keys: DeviceKeys) -> None:
    ended = CliRunner().invoke(build(), ("mqtt", "sign", "till-1", "-"), input=COMMAND)
    assert (ended.exit_code, "--out" in ended.output) == (2, True)
    assert keys.all() == ()


def test_nothing_is_signed_without_a_key(keys: DeviceKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    (keys.path.parent / "command.json").write_text(COMMAND)
    monkeypatch.delenv("OPERATOR_KEY_FILE")
    ended = run("mqtt", "sign", "till-1", "command.json")
    assert (ended.exit_code, "OPERATOR_KEY_FILE" in ended.output) == (2, True)
    assert not (keys.path.parent / "command.signed.json").exists()


def test_a_deadline_is_refused_with_sign(keys: DeviceKeys) -> None:
    ended = run("trigger", "till-1", "/data/a", "--sign", "--deadline", "2h")
    assert (ended.exit_code, "has no deadline" in ended.output) == (2, True)
    assert keys.all() == ()
