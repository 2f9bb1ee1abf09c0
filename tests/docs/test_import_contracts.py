"""Every import contract can fail: a planted violation breaks it.

Rule: every contract of pyproject.toml has a violation here, planted in a copy of the tree and linted once.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("schemas", "broker", "device_agent", "control_plane")
OPTIONS: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS: Final[Mapping[str, str]] = {contract["id"]: contract["name"] for contract in OPTIONS["contracts"]}

# (contract, the module that breaks it, what it imports)
VIOLATIONS: Final = (
    ("schemas-are-the-root", "schemas.planted_root", "broker"),
    ("broker-knows-schemas", "broker.planted_agent", "device_agent"),
    ("agent-knows-schemas", "device_agent.planted_broker", "broker"),
    ("sides-never-meet", "control_plane.planted_side", "device_agent"),
    ("control-plane-layers", "control_plane.domain.planted_upwards", "control_plane.services"),
    ("control-plane-layers", "control_plane.services.planted_upwards", "control_plane.api"),
    ("control-plane-layers", "control_plane.api.planted_sideways", "control_plane.cli"),
    ("control-plane-layers", "control_plane.presentation", "control_plane.api.models"),
    ("control-plane-layers", "control_plane.services.planted_presentation", "control_plane.presentation"),
    ("agent-layers", "device_agent.durability", "device_agent.effects"),
    ("agent-layers", "device_agent.uploads", "device_agent.inbox"),
    ("agent-layers", "device_agent.state.planted_upwards", "device_agent.files"),
    ("transfer-layers", "device_agent.transfer.model", "device_agent.transfer.machine"),
    ("adapters-know-services", "control_plane.adapters.planted_upwards", "control_plane.api"),
    ("composition-roots", "control_plane.services.planted_adapter", "control_plane.adapters"),
    ("composition-roots", "control_plane.cli.planted_adapter", "control_plane.adapters"),
    ("sans-io", "schemas.planted_clock", "time"),
    ("sans-io", "control_plane.domain.planted_clock", "asyncio"),
    ("sans-io", "device_agent.transfer.planted_log", "logging"),
    ("one-door-s3", "control_plane.adapters.planted_s3", "boto3"),
    ("one-door-database", "control_plane.services.planted_sql", "sqlmodel"),
    ("one-door-mqtt-server", "control_plane.services.planted_mqtt", "aiomqtt"),
    ("one-door-mqtt-device", "device_agent.planted_mqtt", "paho"),
    ("one-door-http-device", "device_agent.planted_http", "http"),
    ("one-door-traces", "control_plane.services.planted_traces", "opentelemetry"),
    ("one-door-http-cli", "control_plane.cli.planted_http", "httpx"),
)


def plant(tree: Path, module: str, imported: str) -> None:
    """Let `module` of the tree import `imported`, as its last line."""
    path = tree.joinpath(*module.split(".")).with_suffix(".py")
    with path.open("a") as source:
        source.write(f"\nimport {imported}\n")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The result of import-linter for each contract, by name, with every violation planted."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    for _, module, imported in VIOLATIONS:
        plant(tree, module, imported)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    lint = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60, check=False)
    headings = "|".join(re.escape(name) for name in CONTRACTS.values())
    # The details of a broken contract follow its name, underlined; the summary above has the name alone.
    parts = re.split(rf"^({headings})\n-+\n", lint.stdout, flags=re.MULTILINE)
    assert len(parts) > 1, lint.stdout + lint.stderr
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("contract", "module", "imported"), VIOLATIONS)
def test_a_planted_violation_breaks_the_contract(
    reports: Mapping[str, str], contract: str, module: str, imported: str
) -> None:
    assert f"{module} -> {imported}" in reports[CONTRACTS[contract]]


def test_every_contract_has_a_violation() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == set(CONTRACTS)
