"""What the built packages contain, and that the same sources make the same bytes.

Rule: the archives are read without dpkg, so that they are judged by their bytes; what they do on a system is tested in
the neighbours of this module.
"""

import io
import re
import struct
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Final

import pytest

from device_agent import VERSION
from tests.support.agent_packages import ROOT, build, built

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEBS: Final = ("deb12-amd64", "deb12-arm64", "deb13-amd64", "deb13-arm64")
PYTHON: Final = {"deb12": (3, 11), "deb13": (3, 13)}
MACHINE: Final = {"amd64": 62, "arm64": 183}
"""As the header of ELF numbers them."""

LIBRARY: Final = "./usr/lib/backhaul-agent/lib/"
LARGEST: Final = 2_200_000
"""Bytes of a package."""


def members(deb: Path) -> dict[str, bytes]:
    """The parts of a package: an archive of ar."""
    data, found, at = deb.read_bytes(), {}, 8
    assert data[:8] == b"!<arch>\n"
    while at < len(data):
        name, size = data[at : at + 16].decode().strip().rstrip("/"), int(data[at + 48 : at + 58])
        found[name] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def opened(deb: Path, part: str) -> tarfile.TarFile:
    [data] = [data for name, data in members(deb).items() if name.startswith(part)]
    return tarfile.open(fileobj=io.BytesIO(data))


def control(deb: Path, name: str = "control") -> str:
    with opened(deb, "control.tar") as archive:
        file = archive.extractfile(f"./{name}")
        assert file is not None
        return file.read().decode()


def content(deb: Path, path: str) -> bytes:
    with opened(deb, "data.tar") as archive:
        file = archive.extractfile(path)
        assert file is not None
        return file.read()


def listed(deb: Path) -> dict[str, tarfile.TarInfo]:
    with opened(deb, "data.tar") as archive:
        return {one.name: one for one in archive}


@pytest.mark.parametrize("name", DEBS)
def test_a_package_depends_on_the_python_that_it_was_built_for(name: str) -> None:
    suite, _, arch = name.partition("-")
    major, minor = PYTHON[suite]
    fields = control(built(name))
    assert f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})" in fields
    assert "nacl" not in fields, "it brings its own, for a first boot without a network"
    assert f"Version: {VERSION}-1~{suite}\n" in fields
    assert f"Architecture: {arch}\n" in fields
    assert built(name).name == f"backhaul-agent_{VERSION}-1~{suite}_{arch}.deb"
    assert built(name).stat().st_size < LARGEST


@pytest.mark.parametrize("name", DEBS)
def test_its_compiled_modules_are_of_that_python_and_processor(name: str) -> None:
    suite, _, arch = name.partition("-")
    modules = sorted(path.removeprefix(LIBRARY) for path in listed(built(name)) if path.endswith(".so"))
    backend, core, sodium = modules
    for module in (core, backend):
        assert re.search(r"cpython-(\d+)-", module)[1] == "{}{}".format(*PYTHON[suite])  # type: ignore[index]
    # libsodium's binding fits every Python.
    assert sodium == "nacl/_sodium.abi3.so"
    machines = [struct.unpack_from("<H", content(built(name), LIBRARY + module), 18)[0] for module in modules]
    assert machines == [MACHINE[arch]] * 3


@pytest.mark.parametrize("name", DEBS)
def test_every_file_is_roots_with_a_plain_mode_and_none_is_a_configuration_file(name: str) -> None:
    files = listed(built(name))
    for path, one in files.items():
        assert (one.uid, one.gid) == (0, 0), path
        wanted = 0o755 if one.isdir() or path == "./usr/bin/backhaul-agent" else 0o644
        assert one.isdir() or one.isfile(), path
        assert one.mode & 0o7777 == wanted, path
    assert [path for path, one in files.items() if path.startswith("./etc") and one.isfile()] == []
    with opened(built(name), "control.tar") as archive:
        modes = {one.name: one.mode & 0o777 for one in archive}
    assert modes == dict.fromkeys(("./control", "./md5sums"), 0o644) | dict.fromkeys(
        ("./postinst", "./prerm", "./postrm"), 0o755
    )


@pytest.mark.parametrize("name", DEBS)
def test_it_holds_the_agent_its_three_libraries_and_nothing_else(name: str) -> None:
    files = listed(built(name))
    tops = {path.removeprefix(LIBRARY).split("/")[0] for path in files if path.startswith(LIBRARY)} - {""}
    found = {top.partition(".")[0] for top in tops if not top.endswith(".dist-info")}
    assert found == {"device_agent", "schemas", "msgspec", "paho", "nacl", "_cffi_backend"}
    assert [path for path in files if path.endswith((".pyc", ".pyi")) or "__pycache__" in path] == []
    for path in (
        "./usr/lib/systemd/system/backhaul-agent.service",
        "./usr/lib/systemd/system/backhaul-agent-enroll.service",
        "./usr/lib/sysusers.d/backhaul-agent.conf",
        "./usr/lib/backhaul-agent/agent.d/00-package.toml",
        "./usr/share/backhaul-agent/drop-ins/read-all.conf",
        "./usr/share/doc/backhaul-agent/copyright",
        "./etc/backhaul/agent.d",
    ):
        assert path in {one.rstrip("/") for one in files}
    for package in ("device_agent", "schemas"):
        for file in (ROOT / package).rglob("*.py"):
            path = f"{LIBRARY}{file.relative_to(ROOT)}"
            assert path in files or "schemas/generate/" in path


def test_the_defaults_of_the_package_can_be_read() -> None:
    text = content(built("deb12-amd64"), "./usr/lib/backhaul-agent/agent.d/00-package.toml").decode()
    assert tomllib.loads(text) == {"state_dir": "/var/lib/backhaul-agent"}


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_the_scripts_are_plain_shell_that_stops_at_an_error(name: str) -> None:
    text = control(built("deb12-amd64"), name)
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -e\n" in text
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0


def test_under_another_python_the_launcher_exits_78_with_the_line_to_type(tmp_path: Path) -> None:
    other = next(name for name in ("deb12-amd64", "deb13-amd64") if PYTHON[name[:5]] != sys.version_info[:2])
    launcher = tmp_path / "backhaul-agent"
    launcher.write_bytes(content(built(other), "./usr/bin/backhaul-agent"))
    ended = subprocess.run(
        [sys.executable, "-IB", str(launcher)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 78
    assert f"\n  sudo apt install --fix-broken ./backhaul-agent_{VERSION}-1~deb" in ended.stderr


def test_built_twice_the_bytes_are_equal(tmp_path: Path) -> None:
    again = ROOT / "deploy/debian/00-package.toml"
    again.touch()
    names = ("deb12-amd64", "deb13-arm64")
    first, second = build(tmp_path / "first", *names), build(tmp_path / "second", *names)
    assert [one.read_bytes() for one in first] == [one.read_bytes() for one in second]


def test_a_pre_release_is_older_than_its_release(tmp_path: Path) -> None:
    [deb] = build(tmp_path, "deb12-amd64", version="0.9.0rc1")
    assert deb.name == "backhaul-agent_0.9.0~rc1-1~deb12_amd64.deb"
    assert b'"0.9.0rc1"' in content(deb, f"{LIBRARY}device_agent/__init__.py")
