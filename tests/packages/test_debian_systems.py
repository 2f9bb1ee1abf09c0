"""The package on Debian 12 and 13 with systemd as the first process: install, upgrade, downgrade, remove, purge.

Rule: installed by apt from a file, as an administrator does; the agent is driven over MQTT only.
"""

import asyncio
import itertools
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from broker.child_process import clean_environment
from broker.process import Broker
from device_agent import VERSION
from schemas.messages import Hello
from schemas.parts import MIB
from schemas.values import UploadOptions
from tests.support.age import new_identity
from tests.support.agent_packages import built
from tests.support.agent_process import Owner, begin, bodies, close, grant, mosquitto, part_of, report, sink, wanted
from tests.support.debian_machine import Debian, booted
from tests.support.debian_roots import debian_root
from tests.support.loop_thread import LoopThread
from tests.support.patience import came_true
from tests.support.put_sink import PutSink, Script
from tests.support.self_signed import self_signed
from tests.support.signed_fleet import fleet_with_accounts
from tests.support.sites import Fleet

__all__ = ["mosquitto", "sink"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SUITES: Final = {"bookworm": "deb12", "trixie": "deb13"}
PATIENCE: Final = 60.0
CHUNK: Final = 5 * MIB
NEXT: Final = "0.9.0"
STATE: Final = "/var/lib/backhaul-agent"
STALLS: Final = [Script(read=MIB, then="stall")] * 1_000
NUMBERS: Final = itertools.count(1)


@pytest.fixture(scope="module", params=SUITES)
def system(request: pytest.FixtureRequest) -> Iterator[Debian]:
    """A running Debian without the package."""
    with debian_root(request.param) as root, booted(root) as running:
        yield running


@pytest.fixture
def debian(system: Debian) -> Iterator[Debian]:
    """The same, purged of the package after the test."""
    yield system
    system.run("dpkg", "--force-unsafe-io", "--purge", "backhaul-agent")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site that answers devices which ask by code, for all systems."""
    with fleet_with_accounts(tmp_path_factory.mktemp("fleet"), ENROLL="on") as (running, _):
        yield running


@contextmanager
def over_tls(fleet: Fleet, pem: Path) -> Iterator[str]:
    """The URL of a TLS end before the control plane, as a proxy is."""
    loop = LoopThread("tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    port = int(fleet.site.server.rpartition(":")[2])

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, outer), pass_on(inner, writer), return_exceptions=True)

    loop.start()
    try:
        server = loop.call(asyncio.start_server(taken, "127.0.0.1", 0, ssl=context))
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        loop.soon(server.close)
    finally:
        loop.stop()


@pytest.fixture
def client_id() -> str:
    return f"till-{next(NUMBERS)}"


@pytest.fixture
def owner(mosquitto: Broker, client_id: str) -> Iterator[Owner]:
    with Owner(mosquitto.address.port, client_id) as running:
        yield running


def package(debian: Debian, version: str | None = None) -> Path:
    """The package of this release for this machine."""
    return built(f"{SUITES[debian.folder.name]}-amd64", version)


def configure(debian: Debian, client_id: str, broker: Broker, sink: PutSink) -> None:
    """The one file that an administrator writes, and a folder that the agent may read."""
    text = f"""
client_id = "{client_id}"
mqtt_url = "mqtt://127.0.0.1:{broker.address.port}"
allowed_roots = ["/srv/till"]
upload_hosts = ["{sink.host_port}"]
"""
    debian.write("/etc/backhaul/agent.d/50-local.toml", text)
    debian.write("/srv/till/.keep", "")


def stored(sink: PutSink) -> set[int]:
    """The parts that arrived whole."""
    return {part_of(put.target) for put in sink.puts if len(put.body) == CHUNK}


def state_of(debian: Debian) -> str:
    return debian.shown("backhaul-agent.service", "ActiveState")


def why(debian: Debian) -> str:
    return debian.ended("journalctl", "-u", "backhaul-agent.service", "-o", "cat", "--no-pager").stdout[-3000:]


def online(debian: Debian, owner: Owner, version: str, epoch: int) -> None:
    """Wait for a presence of this start; fail with the journal."""
    try:
        owner.until(lambda: any(one.status == "online" and one.epoch >= epoch for one in owner.presences), PATIENCE)
    except AssertionError:
        pytest.fail(why(debian))
    assert owner.presences[-1].agent.version == version


def test_one_file_written_and_the_unit_started_it_is_online_and_uploads(
    debian: Debian, owner: Owner, sink: PutSink, mosquitto: Broker, client_id: str
) -> None:
    printed = debian.install(package(debian))
    [line] = [line for line in printed.splitlines() if line.startswith("backhaul-agent is installed")]
    assert line.endswith("Type: sudo backhaul-agent setup")
    assert state_of(debian) == "inactive", "it was started without settings"
    assert debian.run("systemctl", "is-enabled", "backhaul-agent.service").strip() == "enabled"
    assert debian.run("stat", "-c", "%U %a", STATE).split() == ["backhaul-agent", "700"]
    assert debian.run("ls", "/etc/backhaul/agent.d") == ""
    configure(debian, client_id, mosquitto, sink)
    debian.run("systemctl", "start", "backhaul-agent")
    online(debian, owner, VERSION, 1)
    main = debian.shown("backhaul-agent.service", "MainPID")
    assert debian.run("stat", "-c", "%U", f"/proc/{main}").strip() == "backhaul-agent"
    debian.write("/srv/till/sales.csv", "1,2\n")
    begin(owner, Path("/srv/till/sales.csv"))
    grant(owner, sink, wanted(owner.answer("u1", 1, PATIENCE)), 1)
    end = owner.answer("u1", 2, PATIENCE)
    assert (end.status, bodies(sink)) == ("success", {1: b"1,2\n"})


def test_under_its_unit_it_seals_with_the_libsodium_of_the_package(
    debian: Debian, owner: Owner, sink: PutSink, mosquitto: Broker, client_id: str, tmp_path: Path
) -> None:
    """The unit forbids executable memory that can be written; libsodium and its binding need none."""
    identity = new_identity(tmp_path)
    configure(debian, client_id, mosquitto, sink)
    debian.write("/srv/till/sales.csv", "1,2\n")
    debian.install(package(debian))
    online(debian, owner, VERSION, 1)
    begin(owner, Path("/srv/till/sales.csv"), options=UploadOptions(encrypt_to=(identity.recipient,)))
    grant(owner, sink, wanted(owner.answer("u1", 1, PATIENCE)), 1)
    assert owner.answer("u1", 2, PATIENCE).status == "success", why(debian)
    assert identity.opened(bodies(sink)[1]) == b"1,2\n"
    main = debian.shown("backhaul-agent.service", "MainPID")
    assert "/usr/lib/backhaul-agent/lib/nacl/_sodium" in debian.run("cat", f"/proc/{main}/maps")


def test_an_upgrade_and_a_downgrade_keep_an_upload_going(
    debian: Debian, owner: Owner, sink: PutSink, mosquitto: Broker, client_id: str
) -> None:
    content = os.urandom(6 * CHUNK)
    configure(debian, client_id, mosquitto, sink)
    (debian.folder / "srv/till/big.bin").write_bytes(content)
    printed = debian.install(package(debian))
    assert "not started" not in printed, "with its settings written before, an install starts it"
    online(debian, owner, VERSION, 1)
    begin(owner, Path("/srv/till/big.bin"))
    offer = owner.answer("u1", 1, PATIENCE)
    # Two parts are stored; the others are half sent, again and again, while apt replaces the agent.
    sink.expect(*[Script()] * 2, *STALLS)
    grant(owner, sink, wanted(offer), 1)
    owner.until(lambda: len(sink.puts) > 2 and len(stored(sink)) == 2, PATIENCE)
    debian.install(package(debian, NEXT))
    online(debian, owner, NEXT, 2)
    request = owner.answer("u1", 2, PATIENCE)
    kept = {*report(request).etags}
    assert kept == stored(sink), "what was stored before the upgrade is sent again"
    # The same with the older package.
    sink.expect_only(Script(), *STALLS)
    grant(owner, sink, wanted(request), 2)
    owner.until(lambda: len(stored(sink)) == 3, PATIENCE)
    debian.install(package(debian), "--allow-downgrades")
    online(debian, owner, VERSION, owner.presences[-1].epoch + 1)
    request = owner.answer("u1", 3, PATIENCE)
    assert {*report(request).etags} == stored(sink) - kept != set(), (
        "what was stored before the downgrade is sent again"
    )
    sink.expect_only()
    sink.released.set()
    grant(owner, sink, wanted(request), 3)
    end = owner.answer("u1", 4, PATIENCE)
    assert end.status == "success"
    whole = {part_of(put.target): put.body for put in sink.puts if len(put.body) == CHUNK}
    assert b"".join(body for _, body in sorted(whole.items())) == content
    close(owner)


def test_the_unit_enrols_the_device_by_a_code_and_the_agent_starts_with_its_bundle(
    debian: Debian, fleet: Fleet, client_id: str, tmp_path: Path
) -> None:
    """As an image does it: one file is written, the package is installed, an operator approves."""
    authority = self_signed(tmp_path)
    with over_tls(fleet, authority) as url:
        digest = fleet.get("/keys")["root_sha256"]
        where = f"ENROLL_URL={url}\nENROLL_ROOT_SHA256={digest}\nENROLL_CA_FILE=/etc/backhaul/authority.pem\n"
        certificate = authority.read_text().partition("-----BEGIN CERT")
        debian.write("/etc/backhaul/authority.pem", "".join(certificate[1:]))
        debian.write("/etc/backhaul/enroll.env", where)
        debian.write("/srv/till/sales.csv", "1,2\n")
        debian.install(package(debian))
        assert state_of(debian) == "inactive", "it was started without settings"

        def journal() -> str:
            return debian.ended("journalctl", "-u", "backhaul-agent-enroll.service", "-o", "cat", "--no-pager").stdout

        assert came_true(lambda: "fingerprint" in journal(), PATIENCE), journal()
        found = re.search(r"code +(\S+)\nfingerprint +([0-9a-f ]+)\n", journal())
        assert found, journal()
        hosts = fleet.site.agent_settings()["UPLOAD_HOSTS"]
        words = (found[1], "--fingerprint", found[2], "--name", client_id, "--roots", "/srv/till", "--hosts", hosts)
        subprocess.run(
            [sys.executable, "-m", "control_plane.cli.main", "device", "approve", *words],
            env=clean_environment({"BACKHAUL_URL": fleet.site.server}), cwd=tmp_path, check=True, timeout=PATIENCE,
        )  # fmt: skip
        assert came_true(lambda: fleet.connected(client_id), PATIENCE), journal() + why(debian)
    assert debian.run("stat", "-c", "%U %a", "/etc/backhaul/bundle.json").split() == ["root", "600"]
    assert not debian.exists("/etc/backhaul/bundle.json.request")
    assert (state_of(debian), debian.shown("backhaul-agent-enroll.service", "Result")) == ("active", "success")
    assert fleet.get(f"/devices/{client_id}")["state"] == "active"
    ended = fleet.ended(fleet.trigger(client_id, Path("/srv/till/sales.csv")))
    assert ended["state"] == "completed", ended
    # Enrolled once, it does nothing at the next boot.
    debian.run("systemctl", "start", "backhaul-agent-enroll.service")
    assert debian.shown("backhaul-agent-enroll.service", "ConditionResult") == "no"
    # It is the operator's: a purge leaves it, and its folder.
    debian.run("rm", "/etc/backhaul/authority.pem")


def test_remove_keeps_journal_and_settings_and_purge_removes_them(
    debian: Debian, owner: Owner, sink: PutSink, mosquitto: Broker, client_id: str
) -> None:
    configure(debian, client_id, mosquitto, sink)
    debian.write("/etc/systemd/system/backhaul-agent.service.d/read-all.conf", "[Service]\n")
    debian.install(package(debian))
    online(debian, owner, VERSION, 1)
    debian.write("/srv/till/sales.csv", "1,2\n")
    begin(owner, Path("/srv/till/sales.csv"))
    owner.answer("u1", 1, PATIENCE)
    debian.run("apt-get", "remove", "-y", "-q", "backhaul-agent")
    assert state_of(debian) == "inactive"
    assert not debian.exists("/usr/lib/backhaul-agent"), "something stays that dpkg does not know"
    assert not debian.exists("/usr/bin/backhaul-agent")
    assert debian.exists(f"{STATE}/journal")
    assert debian.exists("/etc/backhaul/agent.d/50-local.toml")
    # Installed again it goes on: the upload is still open.
    owner.responses.clear()
    debian.install(package(debian))
    online(debian, owner, VERSION, 2)
    owner.until(lambda: any(isinstance(one.payload, Hello) for one in owner.responses), PATIENCE)
    [hello, *_] = [one.payload for one in owner.responses if isinstance(one.payload, Hello)]
    assert [one.upload_id for one in hello.active] == ["u1"]
    debian.run("apt-get", "purge", "-y", "-q", "backhaul-agent")
    left = debian.run("find", "/etc", "/usr", "/var/lib", "/run", "-xdev", "-iname", "*backhaul*").splitlines()
    assert left == []
    assert debian.run("getent", "passwd", "backhaul-agent"), "its number could go to another user"


def test_after_a_release_upgrade_without_the_new_package_it_exits_78_and_names_it(debian: Debian) -> None:
    other = next(name for suite, name in SUITES.items() if suite != debian.folder.name)
    deb = built(f"{other}-amd64")
    shutil.copy(deb, debian.folder / "root")
    # As after an upgrade that dpkg was forced to make.
    debian.run("dpkg", "-i", "--force-depends", f"/root/{deb.name}")
    ended = debian.ended("backhaul-agent")
    assert ended.returncode == 78
    own = SUITES[debian.folder.name]
    assert f"sudo apt install --fix-broken ./backhaul-agent_{VERSION}-1~{own}_" in ended.stdout
    debian.write("/etc/backhaul/agent.d/50-local.toml", 'client_id = "till"\n')
    debian.ended("systemctl", "start", "backhaul-agent")
    assert came_true(lambda: state_of(debian) == "failed", PATIENCE), why(debian)
    assert debian.shown("backhaul-agent.service", "ExecMainStatus") == "78"
    assert debian.shown("backhaul-agent.service", "NRestarts") == "0"
    # The line that it printed brings the right package.
    debian.install(package(debian), "--fix-broken", "--allow-downgrades")
    assert debian.run("backhaul-agent", "--version").strip() == f"backhaul-agent {VERSION}"


def test_the_one_file_runs_on_a_read_only_root_and_writes_nothing(system: Debian) -> None:
    pyz = built("pyz")
    shutil.copy(pyz, system.folder / "root")
    read_only = "mount -o remount,bind,ro / && mount -t tmpfs -o ro none /tmp && ! touch /root/x 2>/dev/null"
    started = f"{read_only} && python3 /root/backhaul-agent.pyz --version"
    assert system.run("unshare", "--mount", "sh", "-c", started).strip() == f"backhaul-agent {VERSION}"
