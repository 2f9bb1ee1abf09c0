"""`backhaul-agent setup` in a terminal and without one: a real broker with accounts, a real file."""

import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import access
from device_agent.command_line.setup.command import FILE
from device_agent.command_line.setup.toml_file import toml_of, write_settings
from schemas.signing.enrolment import Bundle
from tests.support.agent_process import sink
from tests.support.brokers import Fleet, start_fleet
from tests.support.put_sink import PutSink, Script
from tests.support.screen import Screen, run_in_terminal
from tests.support.self_signed import self_signed

__all__ = ["sink"]

AGENT = (sys.executable, "-m", "device_agent")
CONNECTION_REFUSED = "mqtt://127.0.0.1:1"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A broker."""
    running = start_fleet(tmp_path_factory.mktemp("fleet"))
    with running.broker:
        yield running


@pytest.fixture(scope="module")
def password(fleet: Fleet) -> str:
    """That of till-7, given once: Mosquitto 2.0.11 does not survive many new passwords (docs/limits.md)."""
    given = access.enroll(fleet.directory, "till-7").password
    fleet.broker.reload()
    return given


class Device:
    """A device without settings: its folders, and the way to type on it."""

    def __init__(self, folder: Path, fleet: Fleet, password: str, sink: PutSink) -> None:
        self.folder = folder
        self.config = folder / "agent.d"
        self.data = folder / "data"
        self.data.mkdir()
        self.url = f"mqtt://127.0.0.1:{fleet.devices}"
        self.store = f"http://{sink.host_port}"
        self.password = password
        self.environment = {"LC_ALL": "C", "STATE_DIR": str(folder / "state"), "HOME": str(folder)}

    @property
    def file(self) -> Path:
        return self.config / FILE

    def written(self) -> dict[str, object]:
        return tomllib.loads(self.file.read_text())

    def answers(self, **other: str) -> list[tuple[str, str]]:
        """Each prompt with its right answer."""
        right = {
            "CLIENT_ID": "till-7",
            "MQTT_URL": self.url,
            "MQTT_PASSWORD": self.password,
            "ALLOWED_ROOTS": str(self.data),
            "UPLOAD_HOSTS": self.store,
            "URL": "",
        }
        return [(f"\n{name}", text) for name, text in {**right, **other}.items()]

    def command(self, *options: str) -> list[str]:
        return [*AGENT, *options, "--config-dir", str(self.config), "--env-file", str(self.folder / "none")]

    def type(self, typed: Sequence[tuple[str, str]], columns: int = 80, interrupt_at: str | None = None) -> Screen:
        return run_in_terminal(
            self.command("setup"),
            columns=columns,
            env=self.environment,
            typed=typed,
            interrupt_at=interrupt_at,
            patience=60.0,
        )

    def run(self, *options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*options),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def answers_file(self, **other: object) -> Path:
        path = self.folder / "answers.toml"
        values = {
            "client_id": "till-7",
            "mqtt_url": self.url,
            "mqtt_password": self.password,
            "allowed_roots": [str(self.data)],
            "upload_hosts": [self.store],
        }
        path.write_text(toml_of({**values, **other}))
        return path


@pytest.fixture
def device(tmp_path: Path, fleet: Fleet, password: str, sink: PutSink) -> Device:
    return Device(tmp_path, fleet, password, sink)


@pytest.mark.parametrize("columns", [40, pytest.param(80, marks=pytest.mark.slow)])
def test_a_person_answers_and_the_agent_has_its_settings(device: Device, columns: int) -> None:
    screen = device.type(device.answers(), columns)
    assert screen.exit_code == 0, screen.text
    assert "accepts this device" in " ".join(screen.text.split())
    assert "Now type: backhaul-agent" in screen.text or "systemctl restart backhaul-agent" in screen.text
    assert device.password not in screen.drawn
    typed = {text for _, text in device.answers()}
    own = [line for line in screen.text.splitlines() if not any(text and text in line for text in typed)]
    assert [line for line in own if len(line) > columns and " " in line.strip()] == []
    assert device.written() == {
        "client_id": "till-7",
        "mqtt_url": device.url,
        "mqtt_password": device.password,
        "allowed_roots": [str(device.data)],
        "upload_hosts": [device.store],
    }
    assert stat.S_IMODE(device.file.stat().st_mode) in {0o600, 0o640}
    assert [one.name for one in device.config.iterdir()] == [FILE]
    checked = device.run("--check")
    assert (checked.returncode, device.password in checked.stdout) == (0, False)
    assert "CLIENT_ID=till-7" in checked.stdout


def test_a_wrong_password_is_named_and_asked_again(device: Device) -> None:
    answers = device.answers()
    answers[2:2] = [("\nMQTT_PASSWORD", "no"), ("[c]orrect", "c")]
    screen = device.type(answers)
    assert "password is wrong" in " ".join(screen.text.split())
    assert screen.exit_code == 0
    assert device.written()["mqtt_password"] == device.password


def test_a_value_that_cannot_be_used_is_asked_again_and_one_that_cannot_be_reached_may_be_kept(device: Device) -> None:
    """The network may come later than the person."""
    answers = device.answers(MQTT_URL=CONNECTION_REFUSED)
    answers[0:0] = [("\nCLIENT_ID", "a/b")]
    answers[3:3] = [("[c]orrect", "k")]
    screen = device.type(answers)
    assert "client id 'a/b' is not allowed" in " ".join(screen.text.split())
    assert "Connection refused" in screen.text
    assert screen.exit_code == 0
    assert device.written()["mqtt_url"] == CONNECTION_REFUSED


def test_a_certificate_that_is_not_accepted_is_named(device: Device, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                context.wrap_socket(connection, server_side=True).close()

        serving = threading.Thread(target=serve)
        serving.start()
        answers = device.answers(MQTT_URL=f"mqtts://127.0.0.1:{listening.getsockname()[1]}")[:2]
        screen = device.type([*answers, ("[c]orrect", "l")])
        serving.join()
    assert "certificate of the server is not accepted: self-signed certificate" in " ".join(screen.text.split())
    assert (screen.exit_code, device.file.exists()) == (1, False)


@pytest.mark.slow
def test_a_clock_that_is_wrong_is_named(device: Device, sink: PutSink) -> None:
    sink.expect(Script(status=403, headers={"Date": formatdate(time.time() + 7_200, usegmt=True)}))
    screen = device.type([*device.answers()[:5], ("[c]orrect", "k"), ("\nURL", "")])
    assert "s between the object store's clock and this one" in " ".join(screen.text.split())
    assert "timedatectl set-ntp true" in " ".join(screen.text.split())
    assert screen.exit_code == 0


def test_a_put_is_tried_with_the_url_of_the_person_and_the_url_is_not_kept(device: Device, sink: PutSink) -> None:
    sink.expect(Script(status=200), Script(status=200))
    screen = device.type(device.answers(URL=f"{device.store}/bucket/key?X-Amz-Signature=CANARY"))
    assert screen.exit_code == 0, screen.text
    assert [put.body for put in sink.puts if put.method == "PUT"] == [b"x"]
    assert "CANARY" not in device.file.read_text()


@pytest.mark.parametrize("at", ["\nCLIENT_ID", "\nMQTT_PASSWORD", "[c]orrect"])
def test_ctrl_c_leaves_no_file(device: Device, at: str) -> None:
    answers = device.answers(MQTT_URL=CONNECTION_REFUSED if at == "[c]orrect" else device.url)
    before = {"\nCLIENT_ID": 0, "\nMQTT_PASSWORD": 2, "[c]orrect": 2}[at]
    screen = device.type(answers[:before], interrupt_at=at)
    assert screen.exit_code == 130
    assert "Nothing was written" in screen.text
    assert "Traceback" not in screen.text
    assert not device.config.exists()


@pytest.mark.slow
def test_what_is_set_is_not_asked_again_and_other_settings_of_the_file_stay(device: Device) -> None:
    device.config.mkdir()
    (device.config / "10-site.toml").write_text(f'mqtt_url = "{device.url}"\n')
    own = {"client_id": "till-7", "allowed_roots": [str(device.data)], "labels": {"site": "b"}}
    write_settings(device.file, own)
    screen = device.type([answer for answer in device.answers() if "PASS" in answer[0] or "U" in answer[0][1:2]])
    assert screen.exit_code == 0, screen.text
    assert "MQTT_URL is set in" in screen.text
    assert "CLIENT_ID [" not in screen.text
    assert device.written() == {**own, "mqtt_password": device.password, "upload_hosts": [device.store]}


def test_without_a_terminal_it_takes_a_file_of_answers_or_says_so(device: Device) -> None:
    refused = device.run("setup")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "--answers FILE" in refused.stderr
    done = device.run("setup", "--answers", str(device.answers_file(labels={"site": "berlin"})))
    assert done.returncode == 0, done.stdout + done.stderr
    assert device.password not in done.stdout + done.stderr
    assert (device.written()["client_id"], device.written()["labels"]) == ("till-7", {"site": "berlin"})


def test_a_bundle_answers_and_is_copied_where_the_agent_reads_it(device: Device) -> None:
    """What it has is not written a second time: the password is in one file, which others cannot read."""
    brought, answers, place = device.folder / "usb.json", device.folder / "answers.toml", device.config / "bundle.json"
    bundle = Bundle(
        client_id="till-7",
        mqtt_url=device.url,
        mqtt_password=device.password,
        allowed_roots=(str(device.data),),
        upload_hosts=(device.store,),
    )
    brought.write_bytes(msgspec.json.encode(bundle))
    brought.chmod(0o644)
    answers.write_text("")
    done = device.run("setup", "--bundle", str(brought), "--answers", str(answers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert device.password not in done.stdout + done.stderr
    assert device.written() == {"bundle_file": str(place)}
    assert (place.read_bytes(), stat.S_IMODE(place.stat().st_mode)) == (brought.read_bytes(), 0o600)
    brought.unlink()
    checked = device.run("--check")
    assert (checked.returncode, device.url in checked.stdout) == (0, True), checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"mqtt_password": "no"}, "password is wrong"),
        ({"client_id": "a b"}, "is not allowed"),
        ({"metrics_port": 0}, "METRICS_PORT"),
        ({"allowed_roots": ["/none"]}, "No such file"),
    ],
)
def test_answers_with_a_fault_write_nothing(device: Device, wrong: dict[str, object], text: str) -> None:
    done = device.run("setup", "--answers", str(device.answers_file(**wrong)))
    assert done.returncode in {1, 2}
    assert text in done.stdout + done.stderr
    assert not device.config.exists()


@pytest.mark.slow
def test_answers_may_be_written_before_there_is_a_network(device: Device) -> None:
    file = str(device.answers_file(mqtt_url=CONNECTION_REFUSED))
    assert device.run("setup", "--answers", file).returncode == 1
    assert device.run("setup", "--answers", file, "--write-anyway").returncode == 0
    assert device.written()["mqtt_url"] == CONNECTION_REFUSED


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(TEXTS, st.integers(0, 2**63), st.lists(TEXTS))), TEXTS)
def test_what_is_written_is_read_back(values: dict[str, object], text: str) -> None:
    everything = {**values, "labels": {text: text}}
    assert tomllib.loads(toml_of(everything)) == everything


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    write_settings(tmp_path / FILE, {"client_id": "a"})
    with pytest.raises(UnicodeEncodeError):
        write_settings(tmp_path / FILE, {"client_id": "\udcff"})
    assert tomllib.loads((tmp_path / FILE).read_text()) == {"client_id": "a"}
    assert [one.name for one in tmp_path.iterdir()] == [FILE]
