"""`backhaul conformance` on real agents: two that share no code pass, and each planted fault is found.

Rule: a fault is looked for by its own check alone, with a short patience; the whole kit runs once on each agent.
"""

import ast
import sys
from pathlib import Path

import pytest

from control_plane.cli.conformance.runner import CheckVerdict
from tests.support.conformance import ROOT, run_in_process, run_kit, type_command
from tests.support.engine_guide import blocks
from tests.support.planted_faults import FAULTS

INDEPENDENT = (sys.executable, "-m", "tests.support.independent_agent")


def test_the_independent_agent_imports_nothing_of_the_product() -> None:
    modules = list((ROOT / "tests" / "support" / "independent_agent").glob("*.py"))
    imported = {
        name.partition(".")[0] if not name.startswith("tests.") else name
        for module in modules
        for node in ast.walk(ast.parse(module.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    allowed = {*sys.stdlib_module_names, "paho"}
    beside = {name for name in imported if not name.startswith("tests.support.independent_agent")} - allowed
    assert modules
    assert beside == set()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_agent_that_follows_the_protocol_passes_every_check(tmp_path: Path) -> None:
    junit = tmp_path / "report.xml"
    run = run_kit(tmp_path, INDEPENDENT, options=("--junit", str(junit)))
    assert run.verdicts("failed") == {}, run.stderr
    assert run.code == 0, run.stderr
    passed = run.verdicts("passed")
    assert len(passed) > 90
    assert "engine.proven" in passed
    assert 'failures="0"' in junit.read_text()
    for check in run.verdicts("skipped").values():
        assert check["reason"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_commands_of_the_guide_find_nothing_wrong_with_the_shipped_agent(tmp_path: Path) -> None:
    """docs/how-to/write-your-own-agent.md is typed as it stands."""
    commands = blocks((ROOT / "docs" / "how-to" / "write-your-own-agent.md").read_text())
    assert commands
    for command in commands:
        done = type_command(tmp_path, command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "my-device conforms." in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_by_its_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, _ = FAULTS[name]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    agent = (sys.executable, "-m", "tests.support.planted_faults", name)
    results = run_in_process(tmp_path, agent, only=_options(check), patience=3)
    found = {result.check.identifier: result for result in results if result.verdict is CheckVerdict.FAILED}
    assert check in found, results
    assert found[check].expected
    assert found[check].seen


def _options(check: str) -> list[str]:
    """The check, and for one that looks back an upload to look at."""
    looks_back = check.startswith(("message.", "topics."))
    return [check, *(["grant.put"] if looks_back else [])]


def test_more_than_twenty_faults_are_planted() -> None:
    assert len(FAULTS) >= 20
    assert len({check for check, _ in FAULTS.values()}) >= 20
