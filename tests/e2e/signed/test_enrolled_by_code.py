"""Devices that are enrolled by a code and by the token of a batch, with real processes, up to the first upload.

Rule: `backhaul-agent enroll` and the agent are the shipped programs; the operator's part is REST.
"""

import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker.child_process import ChildProcess, clean_environment
from broker.server import free_port
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker
from tests.support.signed_fleet import SignedFleet
from tests.support.sites import AGENT, MIB, PATIENCE, Fleet, running_fleet, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME: Final = "restaurant-7"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site whose broker has accounts; its control plane answers devices that ask."""
    tmp_path = tmp_path_factory.mktemp("fleet")
    network = AuthenticatedBroker("127.0.0.1", free_port(), free_port())
    pid_file = tmp_path / "broker.pid"
    settings = {
        "BROKER_ACCESS": str(tmp_path / "site" / "broker" / ACCESS),
        "BROKER_PID_FILE": str(pid_file),
        "DEVICE_MQTT_URL": network.devices.url,
        "ENROLL": "on",
    }
    with running_fleet(tmp_path, settings, network=network) as running:
        pid_file.write_text(str(running.site.broker.pid))
        SignedFleet(running)
        yield running


@contextmanager
def asking(fleet: Fleet, home: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """`backhaul-agent enroll`, until it ends by itself or the test is over."""
    digest = fleet.get("/keys")["root_sha256"]
    command = [*AGENT[:3], "enroll", "--url", fleet.site.server, "--root-sha256", digest]
    command += ["--out", str(home / "bundle.json"), *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=home, env=clean_environment({}), **pipes) as running:
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
    (home / "data").mkdir(parents=True)
    (home / "data" / "one.bin").write_bytes(os.urandom(MIB))
    with asking(fleet, home) as first:
        code = shown(first)
        assert [(one["user_code"], one["fingerprint"]) for one in waiting(fleet)] == [code]
        first.send_signal(signal.SIGKILL)
    with asking(fleet, home) as second:
        # The power came back: the same request goes on.
        assert shown(second) == code
        assert len(waiting(fleet)) == 1
        body = {
            "client_id": NAME,
            "fingerprint": code[1],
            "allowed_roots": [str(home / "data")],
            "upload_hosts": [fleet.site.agent_settings()["UPLOAD_HOSTS"]],
        }
        answer = fleet.post(f"/enrollments/{code[0]}/approve", body)
        assert answer.status_code == httpx.codes.OK, answer.text
        assert second.wait(PATIENCE) == 0
    bundle = home / "bundle.json"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["bundle.json", "data"]
    agent = started(fleet, NAME, home)
    device = fleet.get(f"/devices/{NAME}")
    assert (device["state"], device["fingerprint"]) == ("active", code[1])
    ended = fleet.ended(fleet.trigger(NAME, home / "data" / "one.bin"))
    assert ended["state"] == "completed", ended
    assert fleet.stored_sha256(ended["upload_id"]) == sha256_of(home / "data" / "one.bin")
    assert json.loads(bundle.read_bytes())["mqtt_password"] not in agent.log_tail()


def test_a_device_of_a_batch_joins_without_a_person(fleet: Fleet) -> None:
    home = fleet.directory / "of-a-batch"
    (home / "data").mkdir(parents=True)
    wanted = {"allowed_roots": [str(home / "data")], "upload_hosts": [fleet.site.agent_settings()["UPLOAD_HOSTS"]]}
    answer = fleet.post("/batches", {"names": "till-{n:03}", "count": 1, "expires_in": 600, "auto": True, **wanted})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    batch = answer.json()
    token_file = home / "token.txt"
    token_file.write_text(batch["token"] + "\n")
    with asking(fleet, home, "--batch-token-file", str(token_file)) as enrolling:
        shown_text, _ = enrolling.communicate(timeout=PATIENCE)
        assert enrolling.returncode == 0, shown_text
    assert "Enrolled as till-001" in shown_text
    assert batch["token"] not in shown_text + (home / "bundle.json").read_text()
    assert sorted(path.name for path in home.iterdir()) == ["bundle.json", "data", "token.txt"]
    started(fleet, "till-001", home)
    device = fleet.get("/devices/till-001")
    assert (device["state"], device["created_by"]) == ("active", f"batch:{batch['batch_id']}")
    assert [(one["taken"], one["count"]) for one in fleet.get("/batches")["batches"]] == [(1, 1)]
    # Whoever has the token, but not the key of this device, comes too late.
    other = fleet.directory / "other"
    other.mkdir()
    with asking(fleet, other, "--batch-token-file", str(token_file)) as refused:
        shown_text, _ = refused.communicate(timeout=PATIENCE)
    assert (refused.returncode, "the batch token is refused" in shown_text) == (1, True)
    assert not (other / "bundle.json").exists()
