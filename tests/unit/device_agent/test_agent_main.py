"""The program `backhaul-agent`: its output and its exit codes."""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from device_agent import VERSION
from device_agent.__main__ import main
from device_agent.logs import LineFormatter, start_logging


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CLIENT_ID", "MQTT_PASSWORD", "MQTT_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("device_agent.__main__.CONFIG_DIRS", (tmp_path / "agent.d",))
    path = tmp_path / ".env"
    path.write_text(f"CLIENT_ID=till-1\nMQTT_PASSWORD=hunter2\nSTATE_DIR={tmp_path}/state\n")
    return path


def test_check_prints_the_settings_and_no_secret(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--env-file", str(env_file)]) == 0
    printed = capsys.readouterr().out
    assert f"CLIENT_ID=till-1                          # {env_file}\n" in printed
    assert "MQTT_USERNAME=till-1                      # default\n" in printed
    assert "hunter2" not in printed
    assert not (env_file.parent / "state").exists()


def test_the_folder_of_settings_is_read_where_it_exists(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = env_file.parent / "agent.d"
    folder.mkdir()
    (folder / "50-site.toml").write_text('labels = { site = "berlin" }\n')
    assert main(["--check", "--env-file", str(env_file)]) == 0
    assert f"LABELS=site=berlin                        # {folder}/50-site.toml\n" in capsys.readouterr().out


def test_a_folder_of_settings_that_is_named_must_exist(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config-dir", str(env_file.parent / "none"), "--env-file", str(env_file)]) == 2
    assert capsys.readouterr().err.endswith("/none cannot be read: No such file or directory\n")


@pytest.mark.parametrize("command", ["--check", "status", "setup"])
def test_a_folder_of_settings_that_cannot_be_looked_at_is_one_line(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """As below an /etc/backhaul that only root may enter; here the name is too long, which stops root too."""
    out_of_sight = env_file.parent / ("x" * 300) / "agent.d"
    for module in ("__main__", "command_line.setup.command"):
        monkeypatch.setattr(f"device_agent.{module}.CONFIG_DIRS", (out_of_sight,))
    answers = env_file.with_name("answers.toml")
    answers.write_text("")
    more = ["--answers", str(answers)] if command == "setup" else []
    assert main([command, *more, "--env-file", str(env_file)]) == 2
    assert f"{out_of_sight} cannot be read: File name too long" in capsys.readouterr().err


def test_a_wrong_setting_is_one_line_and_code_2(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env_file.write_text("CLIENT_ID=till-1\nUPLOAD_HOST=x:1\n")
    assert main(["--env-file", str(env_file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("check", [True, False])
def test_a_password_in_clear_is_warned_about_at_each_start(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, check: bool
) -> None:
    """It is readable on every network on the way. A broker on this machine, or TLS, needs no warning."""
    start(monkeypatch, StoppableAgent(lambda: signal.raise_signal(signal.SIGTERM)))
    for url, warned in (
        ("mqtt://broker.example", True),
        ("mqtt://127.0.0.1", False),
        ("mqtts://broker.example", False),
    ):
        monkeypatch.setenv("MQTT_URL", url)
        assert main([*(["--check"] if check else []), "--env-file", str(env_file)]) == 0
        printed = capsys.readouterr().err
        assert ("MQTT_PASSWORD goes unencrypted to broker.example:1883" in printed) is warned
        assert "hunter2" not in printed


def test_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"backhaul-agent {VERSION}\n"


def test_a_log_line_is_one_line_without_a_signature(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("https://store/key?X-Amz-Signature=abc")  # noqa: EM101, TRY301
    except ValueError:
        logging.getLogger("t").exception('it "failed"\nbadly')
    line = LineFormatter().format(caplog.records[-1])
    assert "\n" not in line
    assert "abc" not in line
    assert line.startswith('level=error logger=t message="it \\"failed\\"\\nbadly"')


def test_at_debug_the_lines_of_libraries_stay_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A library logs whole requests at DEBUG, with the headers that sign them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        start_logging("debug")
        logging.getLogger("device_agent.agent").debug("own line")
        logging.getLogger("urllib3.connectionpool").debug("a request")
        (handler,) = root.handlers
        handler.flush()
        handler.close()
    finally:
        root.handlers[:], root.level = handlers, level
        logging.getLogger("device_agent").setLevel(logging.NOTSET)
    assert capsys.readouterr().err == 'level=debug logger=device_agent.agent message="own line"\n'


class StoppableAgent:
    """An agent that runs until it is stopped, or does what the test gives it."""

    def __init__(self, work: Callable[[], object] | None = None) -> None:
        self.stopped = threading.Event()
        self._work = work

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        if self._work is not None:
            self._work()
        assert self.stopped.wait(60)


def start(monkeypatch: pytest.MonkeyPatch, agent: StoppableAgent) -> None:
    monkeypatch.setattr("device_agent.__main__.open_agent", lambda *_settings: nullcontext(agent))
    monkeypatch.setattr("device_agent.__main__.start_logging", lambda _level: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_agent_while_its_loop_waits(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The waiting thread runs no Python, so no handler of its own could stop it; the handlers before are restored."""
    before = signal.getsignal(number)
    start(monkeypatch, StoppableAgent(lambda: signal.raise_signal(number)))
    assert main(["--env-file", str(env_file)]) == 0
    assert signal.getsignal(number) == before


def test_a_fault_of_the_loop_is_one_line_and_code_1(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start(monkeypatch, StoppableAgent(lambda: divmod(1, 0)))
    assert main(["--env-file", str(env_file)]) == 1
    assert [record.getMessage() for record in caplog.records] == ["the agent ends: its loop met a fault"]


@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError()])
def test_a_thread_that_dies_ends_the_process(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """A process with a dead thread looks alive to a service manager, and does nothing for ever."""
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)

    def die() -> None:
        raise error

    def work() -> None:
        thread = threading.Thread(target=die, name="mqtt")
        thread.start()
        thread.join()
        agent.stop()

    agent = StoppableAgent(work)
    start(monkeypatch, agent)
    assert main(["--env-file", str(env_file)]) == 0
    assert codes == [1]
    (record,) = caplog.records
    assert record.getMessage() == "the agent ends: its thread mqtt met a fault"
    assert "\n" not in LineFormatter().format(record)
