"""`backhaul-agent doctor`: what is wrong on a device is found, and named with its remedy."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from broker import access
from broker.process import Broker
from device_agent.__main__ import main
from device_agent.diagnosis import doctor
from device_agent.diagnosis.doctor import examine
from device_agent.diagnosis.findings import Finding, as_json, shown
from device_agent.settings import Settings, load_settings
from device_agent.state.journal import Journal
from tests.support.brokers import Fleet, mosquitto, start_fleet

__all__ = ["mosquitto"]


@contextmanager
def store(*, skew: float = 0.0, status: int = 200, seen: list[tuple[str, str]] | None = None) -> Iterator[str]:
    """An HTTP server that tells its time; its address. `seen` gets the target and the Host of each PUT."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(403)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if seen is not None:
                seen.append((self.path, self.headers["Host"]))
            self.answer(status)

        def answer(self, code: int) -> None:
            self.send_response_only(code)
            self.send_header("Date", formatdate(time.time() + skew, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Given = Callable[..., Settings]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Settings with which nothing is wrong but the network."""
    roots = tmp_path / "data"
    roots.mkdir()

    def make(**more: str) -> Settings:
        base = {
            "CLIENT_ID": "till-1",
            "MQTT_URL": "mqtt://127.0.0.1:1",
            "ALLOWED_ROOTS": str(roots),
            "UPLOAD_HOSTS": "http://127.0.0.1:1",
            "STATE_DIR": str(tmp_path / "state"),
        }
        return load_settings({**base, **more})

    return make


def wrong(findings: list[Finding]) -> dict[str, str]:
    """The texts of what is wrong, by name; each has a remedy."""
    bad = [one for one in findings if not one.fine]
    assert all(one.remedy for one in bad), bad
    return {one.name: one.text for one in bad}


def test_on_a_good_device_nothing_is_wrong(given: Given, mosquitto: Broker) -> None:
    """And nothing is left behind."""
    with store() as url:
        settings = given(MQTT_URL=mosquitto.address.url, UPLOAD_HOSTS=url)
        settings.state_dir.mkdir()
        assert wrong(list(examine(settings, f"{url}/bucket/key?X-Amz-Signature=abc"))) == {}
    assert list(settings.state_dir.iterdir()) == []


def test_what_cannot_be_reached_is_named(given: Given) -> None:
    found = wrong(list(examine(given(MQTT_URL="mqtt://nosuchhost.invalid"))))
    assert "nosuchhost.invalid" in found["DNS"]
    assert "refused" in found["object store"]
    found = wrong(list(examine(given())))
    assert "refused" in found["broker"]


def test_folders_and_files_that_cannot_be_read_are_named(given: Given, tmp_path: Path) -> None:
    settings = given(
        ALLOWED_ROOTS=f"{tmp_path}/missing", TYPES=f"logs={tmp_path}/none/*.log", FILE_PATH=f"{tmp_path}/absent"
    )
    found = wrong(list(examine(settings)))
    assert {"root", "type", "file"} <= found.keys()
    assert "files" in wrong(list(examine(given(ALLOWED_ROOTS=""))))


def test_a_file_system_that_does_not_answer_is_named(
    given: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    silent = threading.Event()

    def scandir(_path: str) -> None:
        silent.wait(30)
        raise OSError

    monkeypatch.setattr(doctor, "PATIENCE", 0.05)
    monkeypatch.setattr("os.scandir", scandir)
    found = wrong(list(examine(given())))
    silent.set()
    assert "does not answer" in found["root"]


def test_a_state_folder_that_cannot_be_written_is_named(given: Given, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "state folder" in wrong(list(examine(given(STATE_DIR=f"{tmp_path}/file"))))


def test_a_disk_with_little_space_is_named(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 2**70)
    assert "disk" in wrong(list(examine(given())))


@pytest.mark.parametrize(("skew", "fine"), [(0.0, True), (4_000.0, False), (-4_000.0, False)])
def test_the_clock_is_compared_with_the_object_stores(given: Given, skew: float, fine: bool) -> None:  # noqa: FBT001
    with store(skew=skew) as url:
        found = wrong(list(examine(given(UPLOAD_HOSTS=url))))
    assert ("clock" not in found) is fine


def test_a_device_that_begins_in_1970_is_told_so(given: Given) -> None:
    assert "1970" in wrong(list(examine(given(), wall=lambda: 50.0)))["clock"]


@pytest.mark.parametrize(("status", "fine"), [(200, True), (403, False)])
def test_a_put_shows_whether_a_url_works_from_here(given: Given, status: int, fine: bool) -> None:  # noqa: FBT001
    with store(status=status) as url:
        findings = list(examine(given(UPLOAD_HOSTS=url), f"{url}/b/k?X-Amz-Signature=secret"))
    assert ("PUT" not in wrong(findings)) is fine
    assert "secret" not in as_json(findings)


def test_a_put_has_the_host_that_the_url_was_signed_for(given: Given) -> None:
    """As the upload has it: with the default port in it, an object store finds another signature."""
    seen: list[tuple[str, str]] = []
    with store(seen=seen) as proxy:
        settings = given(UPLOAD_HOSTS="http://store.example", UPLOAD_PROXY=proxy)
        for host in ("store.example", "store.example:80"):
            assert doctor.look_at_put(settings, f"http://{host}/b/k?X-Amz-Signature=secret").fine
    assert seen == 2 * [("http://store.example/b/k?X-Amz-Signature=secret", "store.example")]


def test_a_url_of_a_host_that_is_not_allowed_is_not_requested(given: Given) -> None:
    with store() as url:
        findings = list(examine(given(), f"{url}/b/k?X-Amz-Signature=secret"))
    assert "UPLOAD_HOSTS" in wrong(findings)["PUT"]
    assert "secret" not in as_json(findings)


def test_a_running_agent_keeps_its_connection(given: Given, mosquitto: Broker) -> None:
    """A second login with its client id would end the first one: only the port is tried."""
    settings = given(MQTT_URL=mosquitto.address.url)
    journal, _ = Journal.open(settings.state_dir)
    try:
        findings = list(examine(settings))
    finally:
        journal.close()
    assert "left to the agent that runs" in next(one.text for one in findings if one.name == "broker")
    assert "an agent runs on it" in next(one.text for one in findings if one.name == "state folder")


def test_a_wrong_password_is_named(given: Given, tmp_path: Path) -> None:
    """With the right one the device is accepted."""
    folder = tmp_path / "accounts"
    folder.mkdir()
    fleet: Fleet = start_fleet(folder)
    with fleet.broker:
        account = access.enroll(folder, "till-1")
        fleet.broker.reload()
        url = f"mqtt://127.0.0.1:{fleet.devices}"
        found = wrong(list(examine(given(MQTT_URL=url, MQTT_PASSWORD="wrong"))))
        assert "password" in found["broker"] or "authorized" in found["broker"]
        assert "broker" not in wrong(list(examine(given(MQTT_URL=url, MQTT_PASSWORD=account.password))))


def test_no_line_is_wider_than_the_terminal() -> None:
    findings = [Finding("object store", fine=False, text="long words " * 20, remedy="do this " * 20)]
    assert all(len(line) <= 60 for line in shown(findings, 60).splitlines())
    assert "\x1b" not in shown([Finding("x", fine=True, text="a\x1b[2Jb")], 80)


def test_the_command_ends_with_1_and_its_json_is_one_document(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = tmp_path / ".env"
    env.write_text(f"CLIENT_ID=till-1\nMQTT_URL=mqtt://127.0.0.1:1\nSTATE_DIR={tmp_path}/state\n")
    for name in ("CLIENT_ID", "MQTT_URL", "STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor", "--json", "--env-file", str(env)]) == 1
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert {"name", "fine", "text", "remedy"} == set(document["findings"][0])
    assert main(["doctor", "--env-file", str(env)]) == 1
    assert "findings are wrong" in capsys.readouterr().out
