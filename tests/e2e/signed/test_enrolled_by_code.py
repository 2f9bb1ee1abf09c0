"""A device that is enrolled by a code, with real processes, from the first call to the first upload.

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


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A site whose broker has accounts; its control plane answers devices that ask."""
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
def asking(fleet: Fleet, home: Path) -> Iterator["subprocess.Popen[str]"]:
    """`backhaul-agent enroll`, until it ends by itself or the test is over."""
    digest = fleet.get("/keys")["root_sha256"]
    command = [*AGENT[:3], "enroll", "--url", fleet.site.server, "--root-sha256", digest]
    command += ["--out", str(home / "bundle.json")]
    with subprocess.Popen(command, cwd=home, env=clean_environment({}), stdout=subprocess.PIPE, text=True) as running:
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
    settings = {"BUNDLE_FILE": str(bundle), "STATE_DIR": str(home / "state")}
    agent = fleet.stack.enter_context(ChildProcess(AGENT, settings=settings, log_path=fleet.directory / "agent.log"))
    fleet.until(lambda: fleet.connected(NAME), agent.log_tail())
    device = fleet.get(f"/devices/{NAME}")
    assert (device["state"], device["fingerprint"]) == ("active", code[1])
    ended = fleet.ended(fleet.trigger(NAME, home / "data" / "one.bin"))
    assert ended["state"] == "completed", ended
    assert fleet.stored_sha256(ended["upload_id"]) == sha256_of(home / "data" / "one.bin")
    assert json.loads(bundle.read_bytes())["mqtt_password"] not in agent.log_tail()
