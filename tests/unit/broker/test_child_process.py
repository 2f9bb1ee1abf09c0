"""A child process: its environment, its session, its log and its end."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.child_process import ChildProcess, accepts, bound_log, clean_environment, python_program, stop_all
from broker.errors import NotListening
from broker.server import free_port
from tests.support.patience import came_true

SLEEP = (sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)")
READY = re.compile("^ready")


def ended(child: ChildProcess) -> bool:
    """Whether the program ends."""
    return came_true(lambda: not child.alive, 60)


def test_no_setting_of_the_caller_reaches_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MQTT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN", "JWT_SECRET", "HTTP_PROXY", "CLIENT_ID"):
        monkeypatch.setenv(name, "the caller's")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    given = clean_environment({"MQTT_URL": "ours"})
    assert given["MQTT_URL"] == "ours"
    assert given["LC_ALL"] == "C.UTF-8"
    assert "the caller's" not in given.values()


def test_a_child_with_settings_runs_in_the_folder_of_its_log_and_in_its_own_session(tmp_path: Path) -> None:
    program = "import os; print(os.getcwd(), os.environ['NAME'], os.getsid(0) == os.getpid())"
    child = ChildProcess((sys.executable, "-c", program), tmp_path / "new" / "log", settings={"NAME": "value"})
    assert ended(child)
    assert child.output().split() == [str(tmp_path / "new"), "value", "True"]


def test_the_output_is_that_of_this_child_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("an earlier child\n")
    child = ChildProcess((sys.executable, "-c", "print('this one')"), log)
    assert ended(child)
    assert (child.output(), child.log_tail(), child.exit_code) == ("this one\n", "  this one", 0)
    assert log.read_text() == "an earlier child\nthis one\n"


def test_a_child_that_ends_before_it_listens_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    failing = ChildProcess((sys.executable, "-c", "import sys; sys.exit('Address already in use')"), tmp_path / "log")
    with pytest.raises(NotListening, match=r"(?s)ended with code 1; .*log ends:\n  Address already in use") as caught:
        failing.wait_until_listening(READY, [], timeout=60)
    assert caught.value.port_taken


def test_a_child_that_listens_on_no_port_is_ended_after_the_timeout(tmp_path: Path) -> None:
    port = free_port()
    with ChildProcess(SLEEP, tmp_path / "log") as child:
        with pytest.raises(NotListening, match=r"did not listen within 0\.5 s") as caught:
            child.wait_until_listening(READY, [("127.0.0.1", port)], timeout=0.5)
        assert (caught.value.port_taken, child.alive, accepts("127.0.0.1", port)) == (False, False, False)


def test_children_stop_together(tmp_path: Path) -> None:
    children = [ChildProcess(SLEEP, tmp_path / f"log-{number}") for number in range(2)]
    for child in children:
        child.wait_until_listening(READY, [], timeout=60)
    stop_all(children)
    assert [child.exit_code for child in children] == [-signal.SIGTERM] * 2


def test_a_program_that_does_not_exist_is_an_error_of_the_operating_system(tmp_path: Path) -> None:
    if sys.platform == "linux":
        # The arming program starts, and fails to replace itself.
        child = ChildProcess((str(tmp_path / "missing"),), tmp_path / "log")
        assert ended(child)
        assert "No such file" in child.output()
    else:
        with pytest.raises(FileNotFoundError):
            ChildProcess((str(tmp_path / "missing"),), tmp_path / "log")
    assert not os.path.lexists(tmp_path / "missing")


def test_a_module_that_lies_in_the_folder_of_the_caller_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` searches the working folder first: a file of that name there would run with the caller's rights."""
    for name in ("uvicorn", "structlog", "json", "device_agent", "nanio"):
        (tmp_path / f"{name}.py").write_text("print('planted')\nraise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    for settings in (None, dict[str, str]()):
        child = ChildProcess(python_program("device_agent", "--version"), tmp_path / "log" / "log", settings=settings)
        child._waiter.join(60)
        assert (child.exit_code, "planted" in child.output()) == (0, False)
    answer = subprocess.run(python_program("uvicorn", "--version"), capture_output=True, check=False, timeout=60)
    assert b"planted" not in answer.stdout


def test_every_program_of_the_product_is_started_by_the_one_helper() -> None:
    root = Path(__file__).parents[3]
    modules = [path for name in ("broker", "control_plane", "device_agent") for path in (root / name).rglob("*.py")]
    found = [str(path.relative_to(root)) for path in modules if re.search(r'"-m"(?! *,? *metavar)', path.read_text())]
    assert [path for path in found if "uploads.py" not in path] == ["broker/child_process.py"]


def test_the_log_of_a_running_child_is_bounded(tmp_path: Path) -> None:
    """What is started here is bounded here: the child keeps its descriptor, and what it writes then is kept."""
    log = tmp_path / "log"
    with ChildProcess(SLEEP, log) as child:
        log.write_bytes(b"x" * 1000)
        bound_log(log, limit=1001)
        assert log.stat().st_size == 1000
        bound_log(log, limit=1000)
        assert (log.stat().st_size, (tmp_path / "log.1").stat().st_size) == (0, 1000)
        assert child.output() == ""
    bound_log(tmp_path / "absent")
