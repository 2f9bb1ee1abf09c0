"""What is installed, and from where: lock files, the lists of `make sbom`, images, and SECURITY.md.

Rule: the list is compared with the lock files, of which pip installs.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[3]
ROLES: Final = ("agent", "server")
PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
STATES: Final = {"resolved", "exploitable", "in_triage", "false_positive", "not_affected"}
JUSTIFICATIONS: Final = {
    "code_not_present",
    "code_not_reachable",
    "requires_configuration",
    "requires_dependency",
    "requires_environment",
    "protected_by_compiler",
    "protected_at_runtime",
    "protected_at_perimeter",
    "protected_by_mitigating_control",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sbom")
    subprocess.run([sys.executable, str(ROOT / "deploy/sbom/build"), str(folder)], check=True, timeout=60)
    return folder


def document(folder: Path, role: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / f"backhaul-{role}.cdx.json").read_text())
    return read


@pytest.mark.parametrize("role", ROLES)
def test_the_list_has_every_package_of_the_lock_with_its_hashes(built: Path, role: str) -> None:
    lock = (ROOT / "requirements" / f"{role}.txt").read_text()
    found = document(built, role)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(one["name"], one["version"]) for one in found["components"]}
    assert listed == set(PINNED.findall(lock))
    digests = [one["hashes"][0]["content"] for each in found["components"] for one in each["externalReferences"]]
    assert sorted(digests) == sorted(re.findall(r"--hash=sha256:(\w+)", lock))
    assert all(each["externalReferences"] for each in found["components"])


@pytest.mark.parametrize("role", ROLES)
def test_every_package_of_the_list_is_reached_from_the_program(built: Path, role: str) -> None:
    found = document(built, role)
    needs = {one["ref"]: one["dependsOn"] for one in found["dependencies"]}
    reached = {found["metadata"]["component"]["bom-ref"]}
    while more := {ref for one in reached for ref in needs[one]} - reached:
        reached |= more
    assert reached == set(needs)
    assert {one["bom-ref"] for one in found["components"]} < reached


def test_the_same_locks_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "deploy/sbom/build"), str(tmp_path)], check=True, timeout=60)
    for path in built.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_every_statement_about_a_vulnerability_names_a_package_and_a_test_that_exist(built: Path) -> None:
    written = tomllib.loads((ROOT / "deploy/sbom/vex.toml").read_text())["statement"]
    shown = [one for role in ROLES for one in document(built, role)["vulnerabilities"]]
    assert {one["id"] for one in written} == {one["id"] for one in shown}
    for one in shown:
        assert one["analysis"]["state"] in STATES
        assert one["analysis"]["justification"] in JUSTIFICATIONS
        path, _, name = re.search(r"(tests/\S+\.py)(::)(\w+)", one["analysis"]["detail"]).groups()  # type: ignore[union-attr]
        assert f"def {name}(" in (ROOT / path).read_text()


@pytest.mark.parametrize("name", ["agent", "demo", "dev", "server"])
def test_every_pinned_package_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert entries
    assert [one.splitlines()[0] for one in entries if "==" not in one or "--hash=sha256:" not in one] == []


def test_security_md_says_how_to_report_and_for_how_long_versions_are_supported() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for heading in ("## Report a vulnerability", "## Supported versions", "## What is in a release"):
        assert heading in text
