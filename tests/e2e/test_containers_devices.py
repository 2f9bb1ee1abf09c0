"""`deploy/containers/devices`: it enrols devices where the control plane cannot write the broker's accounts.

Rule: no engine is needed here. The program runs as its container runs it, beside a Mosquitto with accounts, a control
plane that wants tokens, and agents that have nothing but their bundle.
"""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from broker import access
from broker.child_process import ChildProcess
from broker.server import free_port
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker
from tests.support.engine_guide import GUIDE
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Wire
from tests.support.sites import AGENT, MIB, Fleet, running_fleet, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT: Final = Path(__file__).parents[2]
PROGRAM: Final = ROOT / "deploy/containers/devices"
SECRET: Final = "a secret of the operators, of 32 bytes or more"
SUCCESS: Final = 0
NOT_AUTHORIZED: Final = 0x87
_SH: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Place:
    """A site whose control plane knows nothing of the broker's accounts, and the folders of the containers."""

    fleet: Fleet
    network: AuthenticatedBroker
    directory: Path

    @property
    def accounts(self) -> Path:
        """The folder of the broker's accounts."""
        return self.fleet.site.directory / "broker" / ACCESS

    def environment(self, **more: str) -> dict[str, str]:
        """What the container of the program has."""
        given = {"BROKER_ACCESS": str(self.accounts), "BACKHAUL_URL": self.fleet.site.server, "JWT_SECRET": SECRET}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **given, **more}

    def runs(self, *arguments: str, reloads: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run the program; `reloads`: it knows the broker's process."""
        pid = self.directory / "broker.pid"
        pid.write_text(str(self.fleet.site.broker.pid))
        more = {"BROKER_PID_FILE": str(pid if reloads else self.directory / "no.pid")}
        command = [sys.executable, str(PROGRAM), *arguments]
        return subprocess.run(
            command, env=self.environment(**more), capture_output=True, text=True, timeout=60, check=False
        )

    def ensures(self, *named: str, reloads: bool = True) -> list[str]:
        """What is said about each device."""
        ended = self.runs("ensure", str(self.directory), *named, reloads=reloads)
        assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
        return ended.stderr.splitlines()

    def joins(self, name: str, bundle: Path) -> ChildProcess:
        """Start an agent with this bundle, and where its state and its files are; wait until it is connected."""
        home = self.directory / name
        settings = {
            "BUNDLE_FILE": str(bundle),
            "STATE_DIR": str(home / "state"),
            "ALLOWED_ROOTS": str(home),
            "UPLOAD_HOSTS": self.fleet.site.agent_settings()["UPLOAD_HOSTS"],
        }
        agent = ChildProcess(AGENT, settings=settings, log_path=home / "agent.log")
        self.fleet.stack.enter_context(agent)
        self.fleet.until(lambda: self.fleet.connected(name), f"{name} to connect: {agent.log_tail()}")
        return agent

    def uploads(self, name: str) -> None:
        """Let a device upload a file, and compare the object with it."""
        file = self.directory / name / "file.bin"
        file.write_bytes(os.urandom(MIB))
        ended = self.fleet.ended(self.fleet.trigger(name, file))
        assert ended["state"] == "completed", ended
        assert self.fleet.stored_sha256(ended["upload_id"]) == sha256_of(file)

    def device(self, name: str) -> dict[str, Any]:
        """What the control plane has of a device."""
        return self.fleet.get(f"/devices/{name}")

    def answer(self, name: str, password: str) -> int:
        """The broker's answer to this account."""
        with Wire(self.network.devices.port) as wire:
            return wire.connect(Connect(name, username=name, password=password)).reason


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("devices")
    network = AuthenticatedBroker("127.0.0.1", free_port(), free_port())
    settings = {"BROKER_ACCESS": "", "DEVICE_MQTT_URL": network.devices.url, "JWT_SECRET": SECRET}
    with running_fleet(directory, settings, network=network) as fleet:
        place = Place(fleet, network, directory)
        # The root of trust alone.
        assert place.ensures() == []
        yield place


def test_a_device_of_the_first_try_is_enrolled_once_and_signed(place: Place) -> None:
    bundle = place.directory / "first.json"
    assert place.ensures(f"first={bundle}") == ["first: enrolled"]
    assert bundle.stat().st_mode & 0o777 == 0o640
    place.joins("first", bundle)
    found = place.device("first")
    assert (found["state"], found["awaits_claim"], found["public_key"] is None) == ("active", False, False)
    (client,) = [one for one in place.fleet.get("/clients")["clients"] if one["client_id"] == "first"]
    assert client["connected"] is True
    assert (place.directory / "first/state/trust.json").exists()
    place.uploads("first")
    before = bundle.read_text()
    assert place.ensures(f"first={bundle}") == ["first: is enrolled"]
    assert bundle.read_text() == before
    assert place.device("first") == found


def test_the_key_of_the_root_is_the_folders_owners_alone(place: Place) -> None:
    key = place.directory / "trust/root-key.json"
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_bundle_that_is_lost_is_made_again_and_the_pinned_key_counts(place: Place) -> None:
    bundle = place.directory / "lost.json"
    place.ensures(f"lost={bundle}")
    place.joins("lost", bundle)
    pinned = place.device("lost")["public_key"]
    bundle.unlink()
    # The broker is not told: the one of Debian 12 may damage its memory when a password is replaced (docs/limits.md).
    said = place.ensures(f"lost={bundle}", reloads=False)
    assert "lost: has a new bundle: restart its agent" in said
    assert json.loads(bundle.read_text())["client_id"] == "lost"
    assert place.device("lost")["public_key"] == pinned


def test_a_bundle_of_another_device_is_replaced(place: Place) -> None:
    """As after another CLIENT_ID in `.env`."""
    bundle = place.directory / "one.json"
    assert place.ensures(f"one={bundle}") == ["one: enrolled"]
    assert place.ensures(f"two={bundle}") == ["two: enrolled"]
    assert json.loads(bundle.read_text())["client_id"] == "two"


def test_another_device_joins_with_a_bundle_that_is_printed(place: Place) -> None:
    root = place.directory / "printed"
    made = place.runs("enroll", "printed", "--roots", str(root), "--label", "site=berlin")
    assert (made.returncode, made.stderr) == (0, "")
    bundle = place.directory / "printed.json"
    bundle.write_text(made.stdout)
    given = json.loads(made.stdout)
    assert (given["allowed_roots"], given["labels"]) == ([str(root)], {"site": "berlin"})
    place.joins("printed", bundle)
    place.uploads("printed")
    assert place.device("printed")["public_key"] is not None
    again = place.runs("enroll", "printed")
    assert (again.returncode, again.stdout) == (1, "")
    assert "is enrolled already" in again.stderr


def test_a_new_password_needs_a_broker_that_reads_it(place: Place) -> None:
    first = json.loads(place.runs("enroll", "rotated").stdout)
    assert place.answer("rotated", first["mqtt_password"]) == SUCCESS
    made = place.runs("rotate", "rotated", "--yes", reloads=False)
    assert made.returncode == 0
    assert made.stderr == "the broker must read its accounts again: send it SIGHUP, or restart it\n"
    second = json.loads(made.stdout)
    assert second["mqtt_password"] != first["mqtt_password"]
    assert second["claim_secret"] != first["claim_secret"]


def test_a_device_at_work_keeps_its_account(place: Place) -> None:
    refused = place.runs("enroll", "worker", "--keep-account")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "worker has no account at the broker that could be kept" in refused.stderr
    password = access.enroll(place.accounts, "worker").password
    made = place.runs("enroll", "worker", "--keep-account")
    assert (made.returncode, made.stderr) == (0, "")
    assert json.loads(made.stdout)["mqtt_password"] is None
    place.fleet.until(lambda: place.answer("worker", password) == SUCCESS, "the broker to read the account")


def test_a_revoked_device_loses_its_account_and_is_not_enrolled_again(place: Place) -> None:
    bundle = place.directory / "revoked.json"
    place.ensures(f"revoked={bundle}")
    place.joins("revoked", bundle)
    ended = place.runs("revoke", "revoked", "--yes")
    assert ended.returncode == 0, ended.stderr
    place.fleet.until(lambda: not place.fleet.connected("revoked"), "the end of its connection")
    password = json.loads(bundle.read_text())["mqtt_password"]
    place.fleet.until(lambda: place.answer("revoked", password) == NOT_AUTHORIZED, "the end of its account")
    assert "revoked" not in access.accounts(place.accounts)
    before = bundle.read_text()
    assert place.ensures(f"revoked={bundle}") == [
        "revoked: is revoked: `devices rotate revoked` makes another bundle for it"
    ]
    assert bundle.read_text() == before


def test_the_guide_enrols_a_device_of_a_cluster(place: Place, tmp_path: Path) -> None:
    """With the folder of accounts of an overlay; the broker reads it when the cluster starts it again."""
    (block,) = [one for one in _SH.findall(GUIDE.read_text()) if "containers/devices" in one]
    overlay = tmp_path / "deploy/kubernetes/mine"
    (overlay / "secrets").mkdir(parents=True)
    (overlay / "secrets/accounts").symlink_to(place.accounts)
    for name in ("deploy/containers", "broker", "control_plane", "schemas"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = place.environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    del environment["BROKER_ACCESS"], environment["PYTHONPATH"]
    command = ["bash", "-euo", "pipefail", "-c", block]
    ended = subprocess.run(
        command, cwd=overlay, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert ended.stderr == "the broker must read its accounts again: send it SIGHUP, or restart it\n"
    made = overlay / "restaurant-7.json"
    assert made.stat().st_mode & 0o777 == 0o600
    bundle = json.loads(made.read_text())
    assert (bundle["client_id"], bundle["mqtt_url"]) == ("restaurant-7", place.network.devices.url)
    assert bundle["root"] is not None
    assert "restaurant-7" in access.accounts(place.accounts)


def test_an_option_is_never_taken_for_the_name_of_a_device(place: Place) -> None:
    """Else `--why lost NAME` would leave the account of NAME."""
    refused = place.runs("revoke", "--yes", "printed")
    assert (refused.returncode, refused.stderr) == (1, "devices: write the name of the device before the options\n")


def test_two_devices_never_share_a_file(place: Place) -> None:
    shared = place.directory / "shared.json"
    named = (f"till-1={shared}", f"till-2={shared.parent}/./shared.json")
    refused = place.runs("ensure", str(place.directory), *named)
    assert refused.returncode == 1
    assert "two devices would have one file" in refused.stderr
    assert not shared.exists()


def test_a_bundle_is_never_shown_on_a_terminal(place: Place) -> None:
    ours, terminal = pty.openpty()
    try:
        command = [sys.executable, str(PROGRAM), "enroll", "shown"]
        ended = subprocess.run(
            command, env=place.environment(), stdout=terminal, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(terminal)
        os.close(ours)
    assert ended.returncode == 1
    assert b"send it to a file" in ended.stderr
    assert [one["client_id"] for one in place.fleet.get("/devices")["devices"] if one["client_id"] == "shown"] == []
