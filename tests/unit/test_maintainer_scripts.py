"""The scripts of the Debian package where a device is not as the package left it.

Rule: run below a root of the test's own, with only the programs that are named; a whole system is in tests/packages.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

SCRIPTS: Final = Path(__file__).parents[2] / "deploy" / "debian" / "scripts"
PLACES: Final = ("/etc/", "/var/lib/", "/usr/lib/", "/run/")
PROGRAMS: Final = ("rm", "rmdir", "find")
WITHOUT_EFFECT: Final = ("systemd-sysusers", "python3", "deb-systemd-helper", "setpriv", "grep")
"""Programs of postinst that only succeed here."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with programs, the agent's state and its settings."""
    for folder in ("bin", "var/lib/backhaul-agent", "etc/backhaul/agent.d"):
        (tmp_path / folder).mkdir(parents=True)
    for name in PROGRAMS:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    (tmp_path / "var/lib/backhaul-agent/journal").touch()
    (tmp_path / "etc/backhaul/agent.d/50-local.toml").touch()
    for name in ("bundle.json", "bundle.json.request", "enroll.env"):
        (tmp_path / "etc/backhaul" / name).touch()
    return tmp_path


def run(root: Path, name: str, action: str, *before: str) -> None:
    """Run a script to its end, after the words of another program; a failure is the test's."""
    text = re.sub("|".join(PLACES), lambda place: f"{root}{place[0]}", (SCRIPTS / name).read_text())
    command = [*before, shutil.which("sh") or "/bin/sh", "-s", action]
    ended = subprocess.run(
        command,
        input=text,
        env={**os.environ, "PATH": str(root / "bin")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_purge_leaves_nothing(root: Path) -> None:
    run(root, "postrm", "purge")
    assert not (root / "var/lib/backhaul-agent").exists()
    assert not (root / "etc/backhaul").exists()
    run(root, "postrm", "purge")


def test_a_purge_ends_where_the_folder_of_settings_is_a_link(root: Path) -> None:
    (root / "etc/backhaul").rename(root / "data")
    (root / "etc/backhaul").symlink_to(root / "data")
    run(root, "postrm", "purge")
    assert list((root / "data").iterdir()) == []


def test_a_purge_removes_the_rest_where_the_state_is_a_partition_of_its_own(root: Path) -> None:
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    state = root / "var/lib/backhaul-agent"
    apart = (unshare or "", "--mount", "/bin/sh", "-c", f'{mount} --bind {state} {state} && exec "$@"', "sh")
    if not (unshare and mount) or subprocess.run([*apart, "/bin/true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    run(root, "postrm", "purge", *apart)
    assert list(state.iterdir()) == []
    assert not (root / "etc/backhaul").exists(), "the bundle and the password in it stay on the device"


@pytest.mark.parametrize("action", ["remove", "upgrade"])
def test_a_package_whose_library_was_lost_can_be_removed_and_replaced(root: Path, action: str) -> None:
    run(root, "prerm", action)
    compiled = root / "usr/lib/backhaul-agent/lib/device_agent/__pycache__"
    compiled.mkdir(parents=True)
    run(root, "prerm", action)
    assert not compiled.exists()


def test_the_state_may_be_a_link_to_a_partition_that_is_not_mounted_yet(root: Path) -> None:
    """As in an image that is being built: install(1) would fail there."""
    shutil.rmtree(root / "var/lib/backhaul-agent")
    (root / "var/lib/backhaul-agent").symlink_to(root / "data/backhaul-agent")
    for name in WITHOUT_EFFECT:
        (root / "bin" / name).symlink_to(shutil.which("true") or "/bin/true")
    run(root, "postinst", "configure")
    assert (root / "var/lib/backhaul-agent").is_symlink()
