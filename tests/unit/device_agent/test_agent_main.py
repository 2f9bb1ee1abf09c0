"""The program `backhaul-agent`: its output and its exit codes."""

import logging
from pathlib import Path

import pytest

from device_agent import VERSION
from device_agent.__main__ import main
from device_agent.logs import LineFormatter, start_logging


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CLIENT_ID", "MQTT_PASSWORD", "MQTT_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / ".env"
    path.write_text(f"CLIENT_ID=till-1\nMQTT_PASSWORD=hunter2\nSTATE_DIR={tmp_path}/state\n")
    return path


def test_check_prints_the_settings_and_no_secret(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--env-file", str(env_file)]) == 0
    printed = capsys.readouterr().out
    assert "CLIENT_ID=till-1\n" in printed
    assert "hunter2" not in printed
    assert not (env_file.parent / "state").exists()


def test_a_wrong_setting_is_one_line_and_code_2(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env_file.write_text("CLIENT_ID=till-1\nUPLOAD_HOST=x:1\n")
    assert main(["--env-file", str(env_file)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


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
        logging.getLogger("device_agent.agent").debug("our own")
        logging.getLogger("urllib3.connectionpool").debug("a request")
    finally:
        root.handlers[:], root.level = handlers, level
        logging.getLogger("device_agent").setLevel(logging.NOTSET)
    assert capsys.readouterr().err == 'level=debug logger=device_agent.agent message="our own"\n'
