"""A device that is enrolled by a code, with real processes, from the first call to the first upload.

Rule: `backhaul-agent enroll` and the agent are the shipped programs; the operator types what stands in
docs/how-to/enroll-a-device.md, and so does the person at the device.
"""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from broker.child_process import ChildProcess, clean_environment
from broker.server import free_port
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker
from tests.support.engine_guide import blocks
from tests.support.signed_fleet import SignedFleet
from tests.support.sites import AGENT, MIB, PATIENCE, Fleet, running_fleet, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME: Final = "restaurant-8"
HOW_TO: Final = (Path(__file__).parents[3] / "docs/how-to/enroll-a-device.md").read_text()
BY_BUNDLE, BY_CODE, SHOWN = blocks(HOW_TO)
(ON_THE_DEVICE,) = re.findall(r"^```sh\n(backhaul-agent .*)\n```$", HOW_TO, re.MULTILINE)


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
    typed = ON_THE_DEVICE.replace("https://backhaul.example.com", fleet.site.server).replace("9f2c…", digest)
    program, *words = shlex.split(typed)
    assert program == "backhaul-agent"
    command = [*AGENT[:3], *words, "--out", str(home / "bundle.json")]
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
        assert code[0] in operator(fleet, BY_CODE, *code)
        assert second.wait(PATIENCE) == 0
    bundle = home / "bundle.json"
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["bundle.json", "data"]
    settings = {"BUNDLE_FILE": str(bundle), "STATE_DIR": str(home / "state")}
    agent = fleet.stack.enter_context(ChildProcess(AGENT, settings=settings, log_path=fleet.directory / "agent.log"))
    fleet.until(lambda: fleet.connected(NAME), agent.log_tail())
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
