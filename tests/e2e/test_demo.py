"""`backhaul demo` as a person runs it: every byte compared, and nothing left behind however it ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from broker.server import find_mosquitto
from tests.support.patience import came_true
from tests.support.screen import BACKHAUL, run_in_terminal, started

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that name the folder; a site's programs all do."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                where = str((entry / "cwd").resolve())
            except OSError:
                continue
            if str(directory) in line or str(directory) in where:
                found.append(line)
    return found


def demo(directory: Path, *arguments: str) -> AbstractContextManager["subprocess.Popen[str]"]:
    """A demo that was started."""
    return started((*BACKHAUL, "demo", "--directory", str(directory), *arguments))


@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_every_byte_arrives_and_nothing_stays(broker: str, tmp_path: Path) -> None:
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: run `apt-get install mosquitto`")
    with demo(tmp_path, "--once", "--json", "--broker", broker) as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    reported = json.loads(out)
    assert reported["ok"] is True
    assert reported["broker"]["kind"] == broker
    assert [row["file_size"] for row in reported["uploads"]] == [2**20, 25 * 2**20, 100 * 2**20]
    assert all(row["identical"] and row["proof"] for row in reported["uploads"])
    job = reported["job"]
    assert (job["outcome"], job["clients"], job["fetched"], job["identical"]) == ("all", 3, 6, True)
    assert list(tmp_path.iterdir()) == []
    assert came_true(lambda: not processes_of(tmp_path), 10)


def test_make_demo_is_that_demo(tmp_path: Path) -> None:
    """As the README has it, in the environment that these tests run in."""
    environment = Path(sys.prefix)
    if shutil.which("make") is None or not (environment / "bin" / "backhaul").exists():
        pytest.skip("make is not installed, or this is not an environment that it set up")
    # -o: the environment is taken as it is, nothing is installed.
    command = ("make", "-o", str(environment / ".stamp-demo"), "demo", f"VENV={environment}")
    arguments = f"DEMO_ARGS=--once --json --directory {tmp_path}"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ended = subprocess.run(
        (*command, arguments), cwd=ROOT, env=outside, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stderr
    reported = json.loads(ended.stdout.splitlines()[-1])
    assert reported["ok"] is True
    assert [row["identical"] for row in reported["uploads"]] == [True, True, True]


def test_it_runs_until_a_signal_and_its_printed_commands_work(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        lines: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if "it runs until" in line:
                break
        else:
            pytest.fail("".join(lines))
        commands = _commands(process)
        trigger = next(line for line in commands if " trigger " in line)
        settings = next(line for line in commands if line.startswith("set -a"))
        ran = subprocess.run(
            ("sh", "-c", f"{settings}; {trigger} --json"), capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["status"] == "completed"
        jobs = [line for line in commands if " job " in line]
        ran = subprocess.run(
            ("sh", "-ec", "\n".join([settings, *jobs])), capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        assert "6 fetched" in ran.stdout
        examined = settings, f"{sys.executable} -m control_plane.cli.main doctor --json"
        ran = subprocess.run(
            ("sh", "-ec", "\n".join(examined)), capture_output=True, text=True, timeout=60, check=False
        )
        assert [one for one in json.loads(ran.stdout)["findings"] if not one["fine"]] == []
        endless = (" watch", "mosquitto_sub")
        for line in commands:
            if line in (trigger, *jobs) or not line.startswith(("/", "backhaul", "curl", "mosquitto")):
                continue
            limit = "timeout -s INT 5 " if any(one in line for one in endless) else ""
            pasted = subprocess.run(
                ("sh", "-c", f"{settings}; {limit}{line}"), capture_output=True, text=True, timeout=60, check=False
            )
            assert pasted.returncode in ((124, 130) if limit else (0,)), f"{line}: {pasted.stderr}"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert came_true(lambda: not processes_of(tmp_path), 10)


def _commands(process: "subprocess.Popen[str]") -> list[str]:
    """The lines on standard output up to the last command."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("mosquitto_pub"):
            break
    return lines


def test_after_a_kill_nothing_stays_behind(tmp_path: Path) -> None:
    with demo(tmp_path, "--once") as process:
        assert came_true(lambda: any("device_agent" in line for line in processes_of(tmp_path)), 60)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert came_true(lambda: not processes_of(tmp_path), 30), processes_of(tmp_path)
    assert came_true(lambda: not list(tmp_path.iterdir()), 30)


def test_with_keep_its_folder_stays(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--keep", "--json") as process:
        out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    home = Path(json.loads(out)["directory"])
    assert (home / "control-plane" / "control-plane.log").stat().st_size > 0
    assert (home / "operator.env").stat().st_mode & 0o077 == 0


def test_a_terminal_sees_a_bar_for_each_device_and_whole_commands(tmp_path: Path) -> None:
    command = (*BACKHAUL, "demo", "--once", "--directory", str(tmp_path))
    screen = run_in_terminal(command, columns=80, patience=100)
    assert screen.exit_code == 0, screen.text
    assert screen.moved
    for device in ("restaurant-1", "restaurant-2", "restaurant-3"):
        assert f"{device} " in screen.text
    # Three uploads and the job.
    assert screen.text.count("identical") == 4
