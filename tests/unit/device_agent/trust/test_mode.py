"""How a device shows that it is signed or not, and what its policy demands of who signs."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from device_agent.__main__ import main
from device_agent.bootstrap import signing_of
from device_agent.command_line.status import _lines
from device_agent.diagnosis.doctor import look_at_trust
from device_agent.enrolment.claim import read_claim_secret, store_claim_secret
from device_agent.files.roots import Roots
from device_agent.policy.document import PolicyDocument
from device_agent.policy.rules import DevicePolicy
from device_agent.settings import Settings
from device_agent.trust.mode import TRUST_FILE, is_signed
from device_agent.trust.signing import DeviceSigning
from schemas.signing.canonical import fingerprint
from schemas.signing.claims import claim_matches
from schemas.topics import Topics
from tests.unit.device_agent.agent_loop import AgentLoop
from tests.unit.device_agent.trust.fleet import ALICE, BOB, PLANE, entry, keys_of, operator, published, trusting
from tests.unit.device_agent.trust.loop import SignedLoop, codes

ONLY_OPERATORS = Roots(policy=DevicePolicy(PolicyDocument(commands_need="operator")))


def test_with_commands_need_only_a_persons_key_begins_an_upload(tmp_path: Path) -> None:
    """The owner that grants it is the control plane all the same, and a new attempt is new work."""
    agent = SignedLoop(tmp_path, entry(), operator(), entry(BOB, "both", owners=("*",)), roots=ONLY_OPERATORS)
    new: dict[str, Any] = {"file_path": "/data/a", "upload_config": {"upload_id": "u1", "owner": "control-plane"}}
    for number, by in enumerate((PLANE, BOB)):
        assert codes(agent.send("download_file", f"m{number}", by=by, **new)) == [("rejected", "bad_signature")]
    assert agent.loop.agent.uploads.get("u1") is None
    agent.send("download_file", "m2", by=ALICE, **new)
    run = agent.loop.agent.uploads.get("u1")
    assert run is not None
    assert (run.transfer.order.principal, run.transfer.order.owner) == ("alice", "control-plane")
    # What is begun is carried on, and ended, by its owner.
    agent.send("download_file", "m3", **new)
    agent.send("cancel_upload", upload_id="u1")
    assert run.ended
    again = {**new, "upload_config": {**new["upload_config"], "attempt": 2}}
    refused = agent.send("download_file", "m4", **again)
    assert codes(refused) == [("rejected", "bad_signature")]
    assert "attempt 2 needs a new command with an operator's signature" in (refused[0].message or "")
    assert agent.unverified == 0


def test_with_commands_need_an_unsigned_device_begins_nothing(tmp_path: Path) -> None:
    """A rule that cannot be applied allows nothing."""
    loop = AgentLoop(tmp_path, roots=ONLY_OPERATORS)
    loop.agent.turn([loop.command("download_file", file_path="/data/a")])
    assert loop.agent.uploads.get("u1") is None


def test_the_status_shows_how_commands_are_checked(tmp_path: Path) -> None:
    unsigned = AgentLoop(tmp_path / "unsigned").agent._local_status()
    assert (unsigned.trust, unsigned.signed) == ("unsigned", None)
    assert any("unsigned: each account" in line for line in _lines(unsigned))
    agent = SignedLoop(tmp_path / "signed")
    agent.receive(b"{}", None)
    found = agent.loop.agent._local_status()
    assert found.trust == "signed"
    assert found.signed is not None
    assert (found.signed.root, found.signed.keys_version, found.signed.unverified) == (1, 1, 1)
    shown = " ".join(" ".join(_lines(found)).split())
    assert "signed: root of trust 1, the list of keys 1; 1 were not verified" in shown
    assert fingerprint(agent.signing.signer.verifier.public_key) in shown


def test_a_device_without_a_list_of_keys_obeys_nobody_and_shows_it(tmp_path: Path) -> None:
    agent = SignedLoop(tmp_path)
    agent.signing.trust_file._trust = trusting(tmp_path / "fresh").trust
    assert agent.send("health_check") == []
    shown = " ".join(" ".join(_lines(agent.loop.agent._local_status())).split())
    assert "no list of keys yet" in shown
    agent.keys(published(keys_of(entry())))
    assert agent.send("health_check", "again") != []


def test_the_doctor_looks_at_the_root_of_trust_and_makes_no_key(tmp_path: Path) -> None:
    settings = Settings(client_id="d1", state_dir=tmp_path)
    assert (look_at_trust(settings).fine, look_at_trust(settings).text[:8]) == (True, "unsigned")
    trusting(tmp_path, entry())
    assert look_at_trust(settings).text == "signed: root of trust 1, the list of keys 1; no key was made yet"
    assert [one.name for one in tmp_path.iterdir()] == [TRUST_FILE]
    SignedLoop(tmp_path)
    assert "this device's key is ed25519:" in look_at_trust(settings).text
    (tmp_path / TRUST_FILE).write_bytes(b"{")
    damaged = look_at_trust(settings)
    assert not damaged.fine
    assert "enroll" in (damaged.remedy or "")


def test_a_root_of_trust_without_pynacl_ends_the_agent_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trusting(tmp_path / "state", entry())
    for name in ("CLIENT_ID", "MQTT_PASSWORD", "MQTT_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("device_agent.__main__.CONFIG_DIRS", (tmp_path / "agent.d",))
    monkeypatch.setattr("device_agent.__main__.start_logging", lambda _level: None)
    env_file = tmp_path / ".env"
    env_file.write_text(f"CLIENT_ID=till-1\nSTATE_DIR={tmp_path}/state\n")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nacl" else find_spec(name))
    assert main(["--env-file", str(env_file)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "pip install 'backhaul[signing]'" in printed


def test_a_state_folder_that_vanishes_does_not_make_the_device_unsigned(tmp_path: Path) -> None:
    """The journal is written again, and so are the root of trust and the key."""
    agent = SignedLoop(tmp_path / "state")
    key = agent.signing.signer.kid
    agent.send("download_file", file_path="/data/a", upload_config={"upload_id": "u1"})
    agent.state()
    shutil.rmtree(tmp_path / "state")
    agent.send("download_file", "m2", file_path="/data/b", upload_config={"upload_id": "u2"})
    agent.state()
    assert is_signed(tmp_path / "state")
    agent.restart()
    assert agent.signing.signer.kid == key
    assert agent.signing.keys_version == 1


def test_a_state_folder_that_vanishes_does_not_take_the_claim_along(tmp_path: Path) -> None:
    """A device that was enrolled and not heard yet could else never prove which bundle is its own."""
    state = tmp_path / "state"
    state.mkdir()
    trusting(state, entry())
    store_claim_secret(state, b"s" * 32)
    signing = signing_of(Settings(client_id="d1", state_dir=state))
    assert signing is not None
    shutil.rmtree(state)
    # The journal makes the folder again, and is written first.
    state.mkdir()
    signing.save_again()
    assert read_claim_secret(state) == b"s" * 32


def test_the_presence_of_an_enrolled_device_has_its_claim(tmp_path: Path) -> None:
    trusting(tmp_path, entry())
    signing = DeviceSigning.open(tmp_path, "d1", Topics(), b"s" * 32)
    agent = SignedLoop(tmp_path)
    claim = signing.identified(agent.loop.agent._presence._template).claim
    assert claim is not None
    assert claim_matches(claim, b"s" * 32, "d1", signing.signer.verifier.public_key)
