"""The units of `deploy/debian`: their exposure as systemd measures it, their syntax, and the agent's numbers in them.

Rule: `systemd-analyze` is asked, offline; a machine without it skips these.
"""

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Final

import pytest

from device_agent.agent import _LONGEST_SLEEP
from device_agent.command_line.parser import parser
from device_agent.command_line.screen import USAGE
from device_agent.enrolment.bundle import BUNDLE_FILE
from device_agent.service_manager import PULSES

DEBIAN: Final = Path(__file__).parents[2] / "deploy" / "debian"
UNIT: Final = DEBIAN / "backhaul-agent.service"
ENROLS: Final = DEBIAN / "backhaul-agent-enroll.service"
SYSTEM: Final = Path("/usr/lib/systemd/system")
DROP_INS: Final = ("read-all", "delete", "home")
SAFE: Final = 2.0

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def installed(root: Path, *drop_ins: str) -> Path:
    """A root with the units in their place, programs that they start, and these drop-ins in use."""
    units = root / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    # What every system has, and units stand in relation to.
    own = [path for path in SYSTEM.iterdir() if path.suffix in {".target", ".slice", ".socket", ".mount"}]
    for path in (*DEBIAN.glob("backhaul-agent*.*"), *own):
        shutil.copy(path, units)
    for name in drop_ins:
        folder = root / "etc/systemd/system/backhaul-agent.service.d"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(DEBIAN / "drop-ins" / f"{name}.conf", folder)
    for program in ("usr/bin/backhaul-agent", "usr/bin/systemctl"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", root / program)
    return root


def analyze(root: Path, *arguments: str) -> str:
    command = ["systemd-analyze", *arguments[:1], f"--root={root}", *arguments[1:]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def exposure(root: Path, unit: str = "backhaul-agent.service") -> float:
    """The exposure of a unit, from 0 to 10, as systemd measures it."""
    shown = analyze(root, "security", "--offline=true", "--no-pager", unit)
    found = re.search(rf"Overall exposure level for {re.escape(unit)}: ([0-9.]+)", shown)
    assert found, shown
    return float(found[1])


@pytest.mark.parametrize("drop_ins", [(), *((name,) for name in DROP_INS), DROP_INS], ids="+".join)
def test_the_exposure_is_low_with_each_drop_in(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    assert exposure(installed(tmp_path, *drop_ins)) <= SAFE


def test_a_drop_in_is_part_of_what_is_measured(tmp_path: Path) -> None:
    assert exposure(installed(tmp_path / "all", "read-all")) > exposure(installed(tmp_path / "alone"))


@pytest.mark.parametrize("drop_ins", [(), DROP_INS], ids=["alone", "with-drop-ins"])
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    root = installed(tmp_path, *drop_ins)
    names = sorted(path.name for path in DEBIAN.glob("backhaul-agent*.*"))
    assert names == [
        "backhaul-agent-bundle.path",
        "backhaul-agent-bundle.service",
        "backhaul-agent-enroll.service",
        "backhaul-agent.service",
    ]
    said = analyze(root, "verify", "--man=no", *names).splitlines()
    assert [line for line in said if "backhaul" in line] == []


def unit_file(path: Path) -> ConfigParser:
    """A unit; of a name that stands there twice the last value."""
    unit = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    return unit


def test_the_numbers_of_the_unit_are_those_of_the_agent() -> None:
    service = unit_file(UNIT)["Service"]
    assert service["WatchdogSec"] == "3min"
    assert PULSES * _LONGEST_SLEEP == 180, "the watchdog makes the loop wake no more often than it does by itself"
    assert str(USAGE) in service["RestartPreventExitStatus"].split()
    assert (service["MemoryHigh"], service["MemoryMax"]) == ("160M", "256M")
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == ""


def test_many_writes_of_the_bundle_do_not_end_the_unit_that_watches_it() -> None:
    unit = (DEBIAN / "backhaul-agent-bundle.service").read_text()
    assert "\nStartLimitIntervalSec=0\n" in unit.partition("[Service]")[0]


def test_the_unit_that_enrols_asks_once_for_the_bundle_that_the_agent_takes(tmp_path: Path) -> None:
    """Its words are options of the agent, and everything meets at the one file."""
    unit = unit_file(ENROLS)
    program, *words = unit["Service"]["ExecStart"].split()
    # Without braces systemd splits the value into words, and an unset one is none.
    assert words.pop() == "$ENROLL_OPTIONS"
    options = parser().parse_args([*words, "--batch-token-file", "/etc/backhaul/token.txt"])
    assert (program, options.command) == ("/usr/bin/backhaul-agent", "enroll")
    assert options.out == BUNDLE_FILE
    assert unit["Unit"]["ConditionPathExists"] == f"!{BUNDLE_FILE}"
    assert f"bundle:{BUNDLE_FILE}" in unit_file(UNIT)["Service"]["LoadCredential"]
    assert unit_file(DEBIAN / "backhaul-agent-bundle.path")["Path"]["PathChanged"] == str(BUNDLE_FILE)
    service = unit["Service"]
    # Only wrong usage, and a wrong Python, end it for good; an expired code does not.
    assert (service["Restart"], service["RestartPreventExitStatus"].split()) == ("on-failure", [str(USAGE), "78"])
    assert service["StandardOutput"] == service["StandardError"] == "journal+console"
    assert unit["Unit"]["OnSuccess"] == "backhaul-agent.service"
    assert exposure(installed(tmp_path), ENROLS.name) <= SAFE


def test_the_document_has_the_file_that_the_unit_reads() -> None:
    text = (DEBIAN.parents[1] / "docs" / "how-to" / "flash-an-image.md").read_text()
    service = unit_file(ENROLS)["Service"]
    assert f"`{service['EnvironmentFile']}`" in text
    used = re.findall(r"\$\{(ENROLL_\w+)\}", service["ExecStart"])
    (block,) = re.findall(r"^```text\n(ENROLL_.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [line.partition("=")[0] for line in block.splitlines()] == used


def test_every_unit_is_in_the_package_and_in_its_scripts() -> None:
    packaged = (DEBIAN / "nfpm.yaml").read_text()
    for path in DEBIAN.glob("backhaul-agent*.*"):
        assert f"dst: /usr/lib/systemd/system/{path.name}\n" in packaged
        # What has no [Install] section is started by another unit.
        for script in ("postinst", "prerm", "postrm") if "[Install]" in path.read_text() else ():
            assert path.name in (DEBIAN / "scripts" / script).read_text(), script


def test_a_drop_in_for_deleting_gives_no_capability() -> None:
    assert not re.search("^[^#]*Cap", (DEBIAN / "drop-ins/delete.conf").read_text(), re.MULTILINE)


def test_the_drop_in_for_reading_everything_says_so_and_keeps_the_secrets_of_the_system_closed() -> None:
    text = (DEBIAN / "drop-ins/read-all.conf").read_text()
    assert "EVERY file of this device" in text.partition("[Service]")[0]
    closed = text.partition("InaccessiblePaths=")[2].split()
    assert {"-/etc/shadow", "-/etc/gshadow", "-/root/.ssh", "-/etc/ssl/private"} <= set(closed)
