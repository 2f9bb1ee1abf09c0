"""`backhaul up`: one site on one machine that continues with its data, and accepts only devices with an account."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.child_process import ChildProcess, clean_environment
from broker.server import find_mosquitto, free_port
from tests.support.screen import BACKHAUL, backhaul, started
from tests.support.sites import AGENT, MIB

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def ports() -> dict[str, str]:
    """Ports that stay the same over restarts; services come in one above the devices'."""
    return {"--port": str(free_port()), "--mqtt-port": str(free_port()), "--store-port": str(free_port())}


@contextmanager
def up(data: Path, ports: dict[str, str], *arguments: str, **settings: str) -> Iterator[dict[str, Any]]:
    """A running site; yields the document that it prints. `settings` are in the environment of the command."""
    given = [word for pair in ports.items() for word in pair]
    command = (*BACKHAUL, "up", "--data", str(data), "--json", *given, *arguments)
    with started(command, clean_environment(settings)) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=60)[1]
            document = json.loads(line)
            assert "agent" in document, document
            yield document
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def agent(home: Path, site: dict[str, Any], **settings: str) -> ChildProcess:
    """An agent with the settings that the site prints."""
    file = home / "file.bin"
    if not file.exists():
        file.write_bytes(os.urandom(6 * MIB))
    own = {"CLIENT_ID": "restaurant-1", "FILE_PATH": str(file), "STATE_DIR": str(home / "agent")}
    return ChildProcess(AGENT, settings={**own, **site["agent"], **settings}, log_path=home / "agent.log")


def uploaded(site: dict[str, Any]) -> dict[str, Any]:
    """Trigger an upload and wait for its end; repeated until the agent is registered."""
    for _ in range(40):
        ended = backhaul("trigger", "restaurant-1", "--wait", "--json", "--server", site["server"], patience=60)
        if ended.returncode == 0:
            break
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_the_same_directory_is_the_same_site_again(tmp_path: Path, ports: dict[str, str]) -> None:
    data = tmp_path / "data"
    with up(data, ports) as site:
        assert site["readiness"]["status"] == "ready"
        with agent(tmp_path, site):
            first = uploaded(site)
        second = backhaul("up", "--data", str(data))
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert "another `up` runs" in second.stderr
    with up(data, ports) as again:
        assert again["server"] == site["server"]
        assert again["agent"] == site["agent"]
        kept = backhaul("upload", first["upload_id"], "--json", "--server", again["server"])
        assert json.loads(kept.stdout)["status"] == "completed"
        assert backhaul("url", first["upload_id"], "--server", again["server"]).returncode == 0
        with agent(tmp_path, again):
            uploaded(again)


def test_with_a_secret_the_link_to_the_page_signs_one_browser_in(tmp_path: Path, ports: dict[str, str]) -> None:
    with up(tmp_path / "data", ports, JWT_SECRET="s" * 32) as site:
        server, _, code = site["page"].partition("/#code=")
        assert server == site["server"]
        assert httpx.get(f"{server}/clients").status_code == 401
        origin = {"Origin": server}
        with httpx.Client(base_url=server, headers=origin) as browser:
            assert browser.post("/session", json={"code": code}).status_code == 200
            assert browser.get("/clients").status_code == 200
        assert httpx.post(f"{server}/session", json={"code": code}, headers=origin).status_code == 401
        # Who may read the operator's file gets another link, and may use the command line.
        shell = f"set -a; . {tmp_path / 'data'}/operator.env; {' '.join(BACKHAUL)} page; {' '.join(BACKHAUL)} clients"
        done = subprocess.run(("sh", "-ec", shell), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{server}/#code=")
    with up(tmp_path / "data", ports) as site:
        assert site["page"] == f"{site['server']}/"


def test_a_taken_port_is_named_with_its_option(tmp_path: Path, ports: dict[str, str]) -> None:
    with up(tmp_path / "one", ports):
        arguments = [word for pair in ports.items() for word in pair]
        ended = backhaul("up", "--data", str(tmp_path / "two"), *arguments)
    assert ended.returncode == 1
    assert "--port" in ended.stderr


def test_it_listens_with_passwords_only(tmp_path: Path, ports: dict[str, str]) -> None:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed: run `apt-get install mosquitto`")
    data = tmp_path / "data"
    with up(data, ports, "--listen", "127.0.0.1") as site:
        accounts = str(data / "broker" / "access")
        shell = f"set -a; . {data}/operator.env; {' '.join(BACKHAUL)} doctor --json"
        examined = subprocess.run(("sh", "-c", shell), capture_output=True, text=True, timeout=60, check=False)
        assert [one for one in json.loads(examined.stdout)["findings"] if not one["fine"]] == []
        enrolled = backhaul("broker", "enroll", "restaurant-1", "--directory", accounts, "--json")
        with agent(tmp_path, site, MQTT_USERNAME="restaurant-1", MQTT_PASSWORD="wrong") as stranger:
            refused = backhaul("status", "restaurant-1", "--server", site["server"])
            assert refused.returncode == 1
            assert stranger.alive or "not authori" in stranger.log_tail().lower()
        with agent(tmp_path, site, **json.loads(enrolled.stdout)):
            uploaded(site)
            direct = f"set -a; . {data}/operator.env; {' '.join(BACKHAUL)} mqtt trigger restaurant-1 --json"
            done = subprocess.run(("sh", "-c", direct), capture_output=True, text=True, timeout=60, check=False)
            assert json.loads(done.stdout)["status"] == "completed", done.stderr
