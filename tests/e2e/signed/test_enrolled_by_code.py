"""Devices that are enrolled by a code and by the token of a batch, with real processes, up to the first upload.

Rule: `backhaul-agent enroll` and the agent are the shipped programs; the operator types what stands in
docs/how-to/enroll-a-device.md, and so does the person at the device.
"""

import json
import os
import re
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from broker.child_process import ChildProcess, clean_environment
from device_agent.trust.mode import TRUST_FILE
from tests.support.engine_guide import blocks
from tests.support.signed_fleet import fleet_with_accounts
from tests.support.sites import AGENT, MIB, PATIENCE, START, Fleet, serve, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME: Final = "restaurant-8"
HOW_TO: Final = (Path(__file__).parents[3] / "docs/how-to/enroll-a-device.md").read_text()
BY_BUNDLE, BY_CODE, SHOWN, BY_BATCH = blocks(HOW_TO)
LOST: Final = (
    (Path(__file__).parents[3] / "docs/how-to/sign-the-fleet.md").read_text().partition("### All root keys are lost")[2]
)
ANOTHER_ROOT, ANOTHER_BUNDLE = re.findall(r"^```sh\n(.*?)^```$", LOST, re.MULTILINE | re.DOTALL)
WITH_A_CODE, WITH_A_TOKEN = re.findall(r"^```sh\n(backhaul-agent .*)\n```$", HOW_TO, re.MULTILINE)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site whose broker has accounts; its control plane answers devices that ask."""
    with fleet_with_accounts(tmp_path_factory.mktemp("fleet"), ENROLL="on") as (running, _):
        yield running


@contextmanager
def asking(fleet: Fleet, home: Path, command: str) -> Iterator["subprocess.Popen[str]"]:
    """`backhaul-agent enroll`, until it ends by itself or the test is over."""
    digest = fleet.get("/keys")["root_sha256"]
    typed = command.replace("https://backhaul.example.com", fleet.site.server).replace("9f2c…", digest)
    program, *words = shlex.split(typed.replace("/etc/backhaul/", f"{fleet.directory}/"))
    assert program == "backhaul-agent"
    arguments = [*AGENT[:3], *words, "--out", str(home / "bundle.json")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(arguments, cwd=home, env=clean_environment({}), **pipes) as running:
        try:
            yield running
        finally:
            running.kill()


def shown(running: "subprocess.Popen[str]") -> tuple[str, str]:
    """The code and the fingerprint on the screen of the device."""
    assert running.stdout is not None
    lines = "".join(running.stdout.readline() for _ in range(3))
    found = re.search(r"code +(\S+)\nfingerprint +([0-9a-f ]+)\n", lines)
    assert found is not None, lines
    return found[1], found[2]


def operator(fleet: Fleet, script: str, code: str = "", fingerprint: str = "") -> str:
    """What a block of the page prints. The fingerprint is typed beside the code: no person compares it here."""
    for written, real in (
        ("/srv/outbox", str(fleet.directory / NAME / "data")),
        ("https://s3.example.com/backups/", fleet.site.agent_settings()["UPLOAD_HOSTS"]),
        ("4F7K-2QXM", f"{code} --fingerprint '{fingerprint}'"),
    ):
        script = script.replace(written, real)
    env = clean_environment({"BACKHAUL_URL": fleet.site.server, "COLUMNS": "160"})
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euc", script], cwd=fleet.directory, env=env, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def waiting(fleet: Fleet) -> list[dict[str, Any]]:
    return list(fleet.get("/enrollments")["requests"])


def started(fleet: Fleet, name: str, home: Path) -> ChildProcess:
    """The agent with the bundle that it was given, once it is connected."""
    settings = {"BUNDLE_FILE": str(home / "bundle.json"), "STATE_DIR": str(home / "state")}
    log = fleet.directory / f"{name}.log"
    agent = fleet.stack.enter_context(ChildProcess(AGENT, settings=settings, log_path=log))
    fleet.until(lambda: fleet.connected(name), agent.log_tail())
    return agent


def test_a_device_is_enrolled_by_a_code_and_uploads(fleet: Fleet) -> None:
    home = fleet.directory / NAME
    (home / "data").mkdir(parents=True, exist_ok=True)
    (home / "data" / "one.bin").write_bytes(os.urandom(MIB))
    with asking(fleet, home, WITH_A_CODE) as first:
        code = shown(first)
        assert [(one["user_code"], one["fingerprint"]) for one in waiting(fleet)] == [code]
        first.send_signal(signal.SIGKILL)
    with asking(fleet, home, WITH_A_CODE) as second:
        # The power came back: the same request goes on.
        assert shown(second) == code
        assert len(waiting(fleet)) == 1
        assert code[0] in operator(fleet, BY_CODE, *code)
        assert second.wait(PATIENCE) == 0
    bundle = home / "bundle.json"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["bundle.json", "data"]
    agent = started(fleet, NAME, home)
    seen = operator(fleet, SHOWN)
    assert f"device {NAME}: active" in seen
    assert f"key: {code[1]}" in seen
    ended = fleet.ended(fleet.trigger(NAME, home / "data" / "one.bin"))
    assert ended["state"] == "completed", ended
    assert fleet.stored_sha256(ended["upload_id"]) == sha256_of(home / "data" / "one.bin")
    assert json.loads(bundle.read_bytes())["mqtt_password"] not in agent.log_tail()
    # For another device, by a file: with the account, the root and the settings that were typed.
    operator(fleet, BY_BUNDLE)
    made = fleet.directory / "restaurant-7.json"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    other = json.loads(made.read_bytes())
    assert (other["client_id"], other["allowed_roots"]) == ("restaurant-7", [str(home / "data")])
    assert None not in (other["mqtt_password"], other["root"], other["claim_secret"])


def test_a_device_of_a_batch_joins_without_a_person(fleet: Fleet) -> None:
    home = fleet.directory / "of-a-batch"
    home.mkdir()
    (fleet.directory / NAME / "data").mkdir(parents=True, exist_ok=True)
    operator(fleet, BY_BATCH.replace("--count 100", "--auto --count 1"))
    (batch,) = fleet.get("/batches")["batches"]
    token = (fleet.directory / "token.txt").read_text().strip()
    with asking(fleet, home, WITH_A_TOKEN) as enrolling:
        shown_text, _ = enrolling.communicate(timeout=PATIENCE)
        assert enrolling.returncode == 0, shown_text
    assert "Enrolled as till-001" in shown_text
    assert token not in shown_text + (home / "bundle.json").read_text()
    assert sorted(path.name for path in home.iterdir()) == ["bundle.json"]
    started(fleet, "till-001", home)
    device = fleet.get("/devices/till-001")
    assert (device["state"], device["created_by"]) == ("active", f"batch:{batch['batch_id']}")
    assert [(one["taken"], one["count"]) for one in fleet.get("/batches")["batches"]] == [(1, 1)]
    # Whoever has the token, but not the key of this device, comes too late.
    other = fleet.directory / "other"
    other.mkdir()
    with asking(fleet, other, WITH_A_TOKEN) as refused:
        shown_text, _ = refused.communicate(timeout=PATIENCE)
    assert (refused.returncode, "the batch token is refused" in shown_text) == (1, True)
    assert not (other / "bundle.json").exists()


def test_when_all_root_keys_are_lost_the_steps_of_the_document_bring_a_device_back(fleet: Fleet) -> None:
    """The last test: the other devices of this site obey nobody after it."""
    home = fleet.directory / "restaurant-7-home"
    (home / "data").mkdir(parents=True)
    (home / "data" / "one.bin").write_bytes(os.urandom(MIB))
    hosts = fleet.site.agent_settings()["UPLOAD_HOSTS"]
    asked = {"client_id": "till-root", "allowed_roots": [str(home / "data")], "upload_hosts": [hosts]}
    (home / "bundle.json").write_text(json.dumps(fleet.post("/devices", asked).json()))
    (home / "bundle.json").chmod(0o600)
    agent = started(fleet, "till-root", home)
    key = fleet.get("/devices/till-root")["public_key"]
    old = fleet.get("/keys")["root_sha256"]
    # Step 1.
    fleet.site.plane.stop()
    (statement,) = re.findall(r"`(DELETE FROM \w+)`", LOST)
    with closing(sqlite3.connect(fleet.plane_settings["DATABASE_URL"].removeprefix("sqlite:///"))) as database:
        assert database.execute(statement).rowcount == 1
        database.commit()
    plane = fleet.stack.enter_context(serve(fleet.site.directory, fleet.plane_settings))
    fleet.site = replace(fleet.site, plane=plane)
    fleet.until(fleet.ready, "the control plane again", START)
    # Step 2. A passphrase is typed.
    (fleet.directory / "passphrase").write_text("of the new root\n")
    signing = re.sub(r"(keys (?:init|add) .*)", r"\1 --passphrase-file passphrase", ANOTHER_ROOT)
    operator(fleet, signing)
    assert fleet.get("/keys")["root_sha256"] not in {None, old}
    # Step 3.
    agent.stop()
    (home / "state" / TRUST_FILE).unlink()
    typed = ANOTHER_BUNDLE.replace("backhaul device rotate", "backhaul --yes device rotate")
    typed = typed.replace("restaurant-7 ", "till-root ").replace("/srv/outbox", str(home / "data"))
    operator(fleet, typed.replace("restaurant-7.json", "bundle-of-the-new-root.json"))
    (fleet.directory / "bundle-of-the-new-root.json").replace(home / "bundle.json")
    started(fleet, "till-root", home)
    ended = fleet.ended(fleet.trigger("till-root", home / "data" / "one.bin"))
    assert ended["state"] == "completed", ended
    assert fleet.get("/devices/till-root")["public_key"] == key
