"""`backhaul-agent status` and `explain`, as a person types them beside a real agent."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.command_line import explain as explaining
from device_agent.command_line.explain import explain
from device_agent.command_line.status import _lines
from device_agent.files.own_files import OwnFiles
from device_agent.files.roots import Roots
from device_agent.local.model import BrokerState, ClockState, JournalState, LocalStatus, LocalUpload, Policy
from schemas.values import BudgetUse, DeviceBudget, ErrorCode
from tests.support.agent_process import AgentProcess, Owner, agent, begin, client_id, mosquitto, owner, sink
from tests.support.authorities import Authority
from tests.support.screen import run_in_terminal

__all__ = ["agent", "client_id", "mosquitto", "owner", "sink"]


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "device_agent", *options]


def settings(agent: AgentProcess) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "CLIENT_ID": agent.client_id,
        "ALLOWED_ROOTS": str(agent.data),
        "STATE_DIR": str(agent.folder / "state"),
    }


def run(agent: AgentProcess, *options: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*options),
        env=settings(agent) | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_status_of_a_running_agent_is_0_and_has_its_uploads(agent: AgentProcess, owner: Owner) -> None:
    owner.online()
    path = agent.file("report.bin", b"content")
    begin(owner, path)
    owner.answer("u1", 1)
    done = run(agent, "status", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["client_id"], document["broker"]["connected"]) == (agent.client_id, True)
    assert [one["path"] for one in document["uploads"]] == [str(path)]

    for columns in (80, 40):
        screen = run_in_terminal(command("status"), columns=columns, env={**settings(agent), "LC_ALL": "C"})
        assert screen.exit_code == 0
        assert "is online" in screen.text
        assert "waiting for the owner to grant the next parts" in " ".join(screen.text.split())


@pytest.mark.slow
def test_status_without_a_broker_is_1_and_has_the_reason(tmp_path: Path) -> None:
    with AgentProcess("away", tmp_path, 1) as away:
        while (done := run(away, "status")).returncode == 2 or "refused" not in done.stdout:
            assert away.process is not None
            assert away.process.poll() is None
    assert done.returncode == 1
    assert "Connection refused" in done.stdout
    assert "never connected; next try in" in done.stdout


def test_status_without_an_agent_is_2_and_has_the_line_that_starts_it(tmp_path: Path) -> None:
    stopped = AgentProcess("stopped", tmp_path, 1)
    done = run(stopped, "status")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "start it:" in done.stderr
    done = run(stopped, "status", "--json")
    assert (done.returncode, json.loads(done.stdout)["running"]) == (2, False)


def test_status_with_wrong_settings_shows_why_no_agent_can_start(tmp_path: Path) -> None:
    done = run(AgentProcess("stopped", tmp_path, 1), "status", METRICS_PORT="0")
    assert done.returncode == 2
    assert "none can start: METRICS_PORT" in done.stderr


def shown(
    failing: str | None = None,
    *,
    clock: tuple[str, ...] = (),
    budget: DeviceBudget | None = None,
    conditions: tuple[str, ...] = (),
) -> str:
    status = LocalStatus(
        version="1",
        client_id="till-7",
        pid=812,
        started_at=0.0,
        broker=BrokerState(url="mqtts://b", connected=False, since=0.0, last_error="no route", next_try_at=130.0),
        clock=ClockState(now=120.0, notes=clock),
        journal=JournalState(folder="/s", size=0, failing=failing),
        policy=Policy(roots=("/data",)),
        budget=budget,
        conditions=conditions,
        uploads_open=40,
        uploads=tuple(LocalUpload(upload_id=str(n), path="/d\x1b[2J", state="queued") for n in range(40)),
    )
    return "\n".join(_lines(status))


def test_status_has_the_caps_and_what_holds_uploads_back() -> None:
    text = shown(budget=DeviceBudget(day=BudgetUse(cap=2**21, used=2**20)), conditions=("the battery is low",))
    assert "budget      1.0 of 2.0 MiB this day" in text
    assert "held back   the battery is low" in text


def test_status_names_a_disk_that_fails_and_a_clock_that_was_never_set() -> None:
    text = shown("the device cannot keep its state: EIO", clock=("the clock was never set",))
    assert text.startswith("till-7 takes no command: the device cannot keep its state: EIO")
    assert "clock       the clock was never set" in text


def test_status_lists_the_first_uploads_and_moves_no_cursor() -> None:
    text = shown()
    assert "till-7 is offline: no route" in text
    assert "next try in 10 s" in text
    assert "and 20 more: backhaul-agent status --json" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("name", "rule", "code", "remedy"),
    [
        ("data/file", "ALLOWED_ROOTS", None, None),
        ("logs/a.log", "TYPES logs", None, None),
        ("one", "FILE_PATH", None, None),
        ("logs/a.txt", None, "path_not_allowed", "TYPES"),
        ("data", None, "path_not_allowed", "name a file"),
        ("data/folder", "ALLOWED_ROOTS", "not_a_file", "pattern"),
        ("data/none", "ALLOWED_ROOTS", "file_not_found", "spelling"),
        ("data/pipe", "ALLOWED_ROOTS", "not_a_file", "name a file"),
        ("data/inside", "ALLOWED_ROOTS", "path_not_allowed", "request"),
        ("data/outside", "ALLOWED_ROOTS", "path_not_allowed", "no setting allows"),
        ("data/own", "ALLOWED_ROOTS", "path_not_allowed", None),
    ],
)
def test_explain_names_the_rule_that_decides(
    tmp_path: Path, name: str, rule: str | None, code: str | None, remedy: str | None
) -> None:
    data, logs = tmp_path / "data", tmp_path / "logs"
    for folder in (data, logs, data / "folder"):
        folder.mkdir()
    for file in ("data/file", "data/own", "logs/a.log", "logs/a.txt", "one"):
        (tmp_path / file).write_text("x")
    os.mkfifo(data / "pipe")
    (data / "inside").symlink_to(data / "file")
    (data / "outside").symlink_to(tmp_path / "logs" / "a.txt")
    types = {"logs": [f"{logs}/*.log"]}
    roots = Roots([str(data)], str(tmp_path / "one"), types=types, own=OwnFiles(None, [data / "own"]))
    found = explain(str(tmp_path / name), roots, "someone")
    assert (found.allowed, found.code) == (code is None, code)
    assert (found.rule or "").startswith(rule or "")
    assert (found.rule is None) == (rule is None)
    assert remedy is None or remedy in (found.remedy or "")
    assert found.size == (1 if code is None else None)


def test_explain_names_the_drop_in_where_the_unit_hides_a_home_folder(tmp_path: Path) -> None:
    found = explain("/home/none/file", Roots(["/home"]), "someone")
    assert found.code == ErrorCode.FILE_NOT_FOUND
    assert "home.conf" in (found.remedy or "")


@pytest.mark.slow
def test_explain_on_the_command_line_takes_a_relative_path(agent: AgentProcess) -> None:
    agent.file("f", b"x")
    relative = os.path.relpath(agent.data / "f")
    done = run(agent, "explain", relative)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{agent.data}/f may be uploaded." in done.stdout
    assert "it stays: ALLOW_AFTER" in done.stdout
    moved = run(agent, "explain", relative, "--json", ALLOW_AFTER="delete")
    assert json.loads(moved.stdout)["after"] == ["delete"], moved.stderr
    refused = run(agent, "explain", "/etc/passwd", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (1, "path_not_allowed")
    assert run(agent, "explain").returncode == 2


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user reaches: those of pytest are closed, also again while a test runs."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_path_that_cannot_be_looked_at_is_explained(tmp_path: Path) -> None:
    """As below a folder that the agent's user may not enter; here the name is too long, which stops root too."""
    own = OwnFiles(tmp_path / "state", ())
    found = explain(f"{tmp_path}/{'x' * 300}/file", Roots((f"{tmp_path}/data",), None, types={}, own=own), "till")
    assert (found.allowed, found.code) == (False, ErrorCode.PATH_NOT_ALLOWED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_explain_decides_as_the_user_of_the_state_folder(open_folder: Path) -> None:
    """Root reads every file; the agent's own user may not."""
    data, state = open_folder / "data", open_folder / "state"
    data.mkdir()
    state.mkdir()
    os.chown(state, 65534, 65534)
    secret = data / "secret"
    secret.touch(mode=0o600)
    done = run(AgentProcess("d", open_folder, 1), "explain", str(secret), "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["code"], document["user"]) == (1, "permission_denied", "nobody")
    assert "setfacl" in document["remedy"]
    data.chmod(0o700)
    doctor = json.loads(run(AgentProcess("d", open_folder, 1), "doctor", "--json").stdout)
    assert {one["name"]: one["fine"] for one in doctor["findings"]}["root"] is False
    data.chmod(0o755)
    assert explaining.explain(str(secret), Roots([str(data)]), "root").allowed


def test_explain_refuses_the_key_that_the_device_connects_with(tmp_path: Path) -> None:
    certificate, key = Authority.make(tmp_path, "devices").issue("till-7")
    # Under a name that no pattern of the policy denies.
    key = key.rename(tmp_path / "till-7.txt")
    here = AgentProcess("till-7", tmp_path, 1)
    files = {"MQTT_URL": "mqtts://127.0.0.1:1", "MQTT_CERTIFICATE": str(certificate), "MQTT_KEY": str(key)}
    done = run(here, "explain", str(key), "--json", ALLOWED_ROOTS=str(tmp_path), **files)
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, "path_not_allowed"), done.stderr
    assert "agent itself" in json.loads(done.stdout)["text"]
