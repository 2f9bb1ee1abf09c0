"""The agent's unit on Debian with systemd as the first process: watchdog, drop-ins, memory, wrong settings, a bundle.

Rule: one installed system for each suite; a test puts its own drop-ins in place, and they are gone after it.
"""

import itertools
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from broker.process import Broker
from device_agent.trust.mode import TRUST_FILE
from device_agent.trust.trust_file import TrustFile
from schemas.parts import MIB
from schemas.signing.documents import RootDocument
from schemas.signing.ed25519 import SEED_SIZE, Signer
from schemas.signing.trust import sign_document
from schemas.topics import Topics
from tests.support.agent_packages import built
from tests.support.agent_process import Owner, begin, mosquitto
from tests.support.debian_machine import Debian, booted
from tests.support.debian_roots import debian_root
from tests.support.patience import came_true

__all__ = ["mosquitto"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SUITES: Final = {"bookworm": "deb12", "trixie": "deb13"}
PATIENCE: Final = 60.0
MOST: Final = 32 * MIB
MOST_SIGNED: Final = 34 * MIB
"""Bytes of memory at rest, with the Python of either release: PyNaCl is loaded where commands are signed."""

UNIT: Final = "backhaul-agent.service"
SETTINGS: Final = "/etc/backhaul/agent.d/50-local.toml"
STATE: Final = "var/lib/backhaul-agent"
DROP_INS: Final = f"etc/systemd/system/{UNIT}.d"
NUMBERS: Final = itertools.count(1)
CLIENT: Final = "till-unit"


@pytest.fixture(scope="module", params=SUITES)
def system(request: pytest.FixtureRequest, mosquitto: Broker) -> Iterator[Debian]:
    """A running Debian with the package, configured."""
    with debian_root(request.param) as root, booted(root) as running:
        roots = '["/srv", "/home/anna", "/etc"]'
        url = f"mqtt://127.0.0.1:{mosquitto.address.port}"
        text = f'client_id = "{CLIENT}"\nmqtt_url = "{url}"\nallowed_roots = {roots}\n'
        running.write(SETTINGS, text)
        for path, mode in (("/srv/open", 0o644), ("/srv/closed", 0o600), ("/home/anna/report", 0o644)):
            running.write(path, "1,2\n", mode)
        running.install(built(f"{SUITES[request.param]}-amd64"))
        yield running


@pytest.fixture
def debian(system: Debian) -> Iterator[Debian]:
    """The same, with the unit as it was installed, before and after the test."""
    yield system
    shutil.rmtree(system.folder / DROP_INS, ignore_errors=True)
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "reset-failed", UNIT)


@pytest.fixture
def owner(mosquitto: Broker) -> Iterator[Owner]:
    with Owner(mosquitto.address.port, CLIENT) as running:
        yield running


def use(debian: Debian, *names: str, text: str = "") -> None:
    """Restart the agent with these drop-ins of the package, and one with this text."""
    folder = debian.folder / DROP_INS
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(debian.folder / f"usr/share/backhaul-agent/drop-ins/{name}.conf", folder)
    if text:
        (folder / "test.conf").write_text(text)
    debian.run("systemctl", "daemon-reload")
    debian.run("systemctl", "restart", UNIT)


def online(debian: Debian) -> None:
    """Wait for the status of the unit, as a person reads it."""
    if not came_true(lambda: debian.shown(UNIT, "StatusText").startswith("online at mqtt://"), PATIENCE):
        pytest.fail(journal(debian))


def journal(debian: Debian) -> str:
    return debian.ended("journalctl", "-u", UNIT, "-o", "cat", "--no-pager").stdout[-20_000:]


def resident(debian: Debian) -> int:
    """Bytes of memory of the agent."""
    pid = debian.shown(UNIT, "MainPID")
    found = re.search(r"VmRSS:\s+(\d+) kB", debian.run("cat", f"/proc/{pid}/status"))
    assert found
    return int(found[1]) * 1024


def answer(owner: Owner, path: str) -> str:
    """What the agent makes of one file: `in_progress`, or the code of the error."""
    upload = f"u{next(NUMBERS)}"
    begin(owner, Path(path), upload)
    owner.until(lambda: any(one.status != "success" for one in owner.answers(upload)), PATIENCE)
    found = owner.answers(upload)[-1]
    return found.error or found.status


def as_the_agent(debian: Debian, *command: str) -> str:
    """Run a command among the files that the agent sees, as its user, without capabilities; its output."""
    pid = debian.shown(UNIT, "MainPID")
    user = ("setpriv", "--reuid=backhaul-agent", "--regid=backhaul-agent", "--init-groups", "--inh-caps=-all")
    return debian.ended("nsenter", "--mount", "--target", pid, *user, *command).stdout


def as_root(debian: Debian, *command: str) -> str:
    """Run a command among the files that the agent sees, as root; its output."""
    return debian.run("nsenter", "--mount", "--target", debian.shown(UNIT, "MainPID"), *command)


def test_the_unit_runs_small_and_closed(debian: Debian) -> None:
    use(debian)
    online(debian)
    shown = debian.run("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(rf"exposure level for {re.escape(UNIT)}: ([0-9.]+)", shown)
    assert found, shown
    assert float(found[1]) <= 2.0
    units = (UNIT, "backhaul-agent-bundle.path", "backhaul-agent-bundle.service", "backhaul-agent-enroll.service")
    assert "backhaul" not in debian.run("systemd-analyze", "verify", "--man=no", *units)
    assert resident(debian) <= MOST
    groups = debian.run("id", "-Gn", "backhaul-agent").split()
    assert {"adm", "systemd-journal"} <= set(groups)
    assert debian.run("stat", "-c", "%U %a", "/run/backhaul-agent").split() == ["backhaul-agent", "750"]


def test_a_signed_agent_is_small_too(debian: Debian) -> None:
    debian.run("systemctl", "stop", UNIT)
    root = Signer(bytes(range(SEED_SIZE)))
    document = RootDocument(1, 1, (root.verifier.text,), datetime.now(UTC))
    signed = sign_document(document, Topics().keys(), [root])
    try:
        TrustFile.store_root(debian.folder / STATE, Topics().keys(), signed)
        debian.run("chown", "-R", "backhaul-agent:", f"/{STATE}")
        use(debian)
        online(debian)
        assert "commands are verified" in journal(debian)
        assert resident(debian) <= MOST_SIGNED
    finally:
        debian.run("systemctl", "stop", UNIT)
        (debian.folder / STATE / TRUST_FILE).unlink()
    use(debian)
    online(debian)


def test_an_agent_that_hangs_is_ended_and_started_again(debian: Debian) -> None:
    use(debian, text="[Service]\nWatchdogSec=3\nRestartSec=100ms\n")
    online(debian)
    first = debian.shown(UNIT, "MainPID")
    debian.run("systemctl", "kill", "--signal=STOP", UNIT)
    assert came_true(lambda: int(debian.shown(UNIT, "NRestarts")) == 1, PATIENCE), journal(debian)
    online(debian)
    assert debian.shown(UNIT, "MainPID") != first
    assert "Watchdog timeout" in journal(debian)


def test_a_restart_after_a_kill_needs_nobody(debian: Debian) -> None:
    use(debian, text="[Service]\nRestartSec=100ms\n")
    online(debian)
    debian.run("systemctl", "kill", "--signal=KILL", UNIT)
    assert came_true(lambda: int(debian.shown(UNIT, "NRestarts")) == 1, PATIENCE), journal(debian)
    online(debian)


def test_the_agent_reads_what_its_user_may_read_and_nothing_below_home(debian: Debian, owner: Owner) -> None:
    use(debian)
    online(debian)
    assert answer(owner, "/srv/open") == "in_progress"
    assert answer(owner, "/srv/closed") == "permission_denied"
    assert answer(owner, "/home/anna/report") != "in_progress"
    assert "Read-only file system" in as_the_agent(debian, "touch", "/srv/new")


def test_the_drop_in_for_home_opens_home(debian: Debian, owner: Owner) -> None:
    use(debian, "home")
    online(debian)
    assert answer(owner, "/home/anna/report") == "in_progress"
    assert answer(owner, "/srv/closed") == "permission_denied"


def test_the_drop_in_for_everything_opens_every_file_but_the_secrets_of_the_system(
    debian: Debian, owner: Owner
) -> None:
    use(debian, "read-all")
    online(debian)
    assert answer(owner, "/srv/closed") == "in_progress"
    assert debian.run("cat", "/etc/shadow")
    assert as_root(debian, "cat", "/etc/shadow") == "", "an empty file stands in its place, also for root"
    assert "Read-only file system" in as_the_agent(debian, "touch", "/srv/new")


def test_the_drop_in_for_deleting_opens_one_folder_as_far_as_its_rights_go(debian: Debian) -> None:
    for path in ("/srv/outbox/mine", "/srv/outbox/sub/theirs"):
        debian.write(path, "1,2\n")
    debian.run("chown", "backhaul-agent", "/srv/outbox")
    use(debian, "delete")
    online(debian)
    assert as_the_agent(debian, "rm", "/srv/outbox/mine") == ""
    assert "Permission denied" in as_the_agent(debian, "rm", "-f", "/srv/outbox/sub/theirs")
    assert "Read-only file system" in as_the_agent(debian, "touch", "/srv/new")
    assert not debian.exists("/srv/outbox/mine")


def test_a_wrong_setting_is_one_line_and_no_restart(debian: Debian) -> None:
    wrong = "/etc/backhaul/agent.d/90-wrong.toml"
    debian.write(wrong, "log_level = 'loud'\n")
    try:
        use_failed = debian.ended("systemctl", "restart", UNIT)
        assert use_failed.returncode != 0
        assert (debian.shown(UNIT, "ActiveState"), debian.shown(UNIT, "ExecMainStatus")) == ("failed", "2")
        assert f"{wrong}: log_level: 'loud' must be one of" in journal(debian)
    finally:
        (debian.folder / wrong.lstrip("/")).unlink()
    debian.run("systemctl", "restart", UNIT)
    online(debian)


def test_a_bundle_that_is_dropped_restarts_the_agent_which_takes_its_settings(debian: Debian) -> None:
    use(debian)
    online(debian)
    first = debian.shown(UNIT, "MainPID")
    head = '{"format": "backhaul-bundle-v1", "client_id": "x", "mqtt_url": "mqtts://broker.example:8883"'
    debian.write("/etc/backhaul/bundle.json", head + ', "labels": {"site": "of-the-bundle"}}\n', 0o600)
    try:
        assert came_true(lambda: debian.shown(UNIT, "MainPID") not in {first, "0"}, PATIENCE), journal(debian)
        # The settings of the folder are stronger: it is still this client, at this broker.
        online(debian)
        shown = debian.run("backhaul-agent", "--check")
        assert re.search(r"of-the-bundle.*/etc/backhaul/bundle\.json", shown), shown
        assert f"CLIENT_ID={CLIENT}" in shown.replace(" ", ""), shown
    finally:
        (debian.folder / "etc/backhaul/bundle.json").unlink()
