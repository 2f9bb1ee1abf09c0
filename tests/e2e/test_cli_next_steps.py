"""What a command prints as a next step works when it is pasted into the shell that it was printed in."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.cli.program import program
from tests.support.screen import BACKHAUL
from tests.support.scripted_rest import Rows, scripted_rest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CLI = Path(__file__).parents[2] / "control_plane" / "cli"
HELP = {"topics.py", "completion.py", "commands.py", "errors.py"}
"""Their texts are help: the name of the program stands for itself."""


@pytest.fixture
def site() -> Iterator[tuple[str, Rows]]:
    """A control plane of a few rows."""
    with scripted_rest() as served:
        yield served


def run(words: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A line in a fresh shell that has nothing of this process but a home."""
    return subprocess.run(
        ("bash", "--norc", "-c", words), env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def steps(text: str) -> list[str]:
    """The command lines between backticks."""
    return re.findall(r"`([^`]*(?:backhaul|cli\.main) ?[^`]*)`", text)


@pytest.mark.parametrize("typed", [False, True], ids=["environment", "typed"])
def test_each_printed_step_works_in_the_same_shell(site: tuple[str, Rows], typed: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Where the control plane was typed, the step names it, too."""
    url, rows = site
    (tmp_path / "token file").write_text("secret-token\n")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    where = ""
    if typed:
        where = f" --server {url} --token-file '{tmp_path}/token file'"
    else:
        environment["BACKHAUL_URL"] = url
    backhaul = " ".join(BACKHAUL)
    pasted = 0
    for words in (
        "trigger restaurant-7",
        "upload trigger restaurant-1",
        "context list",
        f"context add other --server {url}; {backhaul} context add more --server {url}",
    ):
        printed = run(f"{backhaul} {words}{'' if words.startswith('context') else where}", environment)
        assert printed.returncode == 0, printed.stderr
        for step in steps(printed.stdout + printed.stderr):
            rows.uploads = [one | {"state": "completed", "status": "completed"} for one in rows.uploads]
            ended = run(step, environment)
            assert ended.returncode == 0, f"{step}: {ended.stderr}"
            pasted += 1
    rows.uploads, rows.clients = [], []
    for words in ("upload list", "client list", "job list --help"):
        printed = run(f"{backhaul} {words}{where}", environment)
        for step in steps(printed.stderr):
            assert run(step, environment).returncode == 0, step
            pasted += 1
    assert pasted == 6


def test_each_step_of_an_error_works(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "BACKHAUL_URL": "http://127.0.0.1:9"}
    refused = run(f"{' '.join(BACKHAUL)} clients", environment)
    (step,) = steps(refused.stderr)
    assert refused.returncode == 3
    assert run(f"{step} --help", environment).returncode == 0
    assert step == f"{program()} up" or step.endswith(" up")


def test_no_printed_text_has_the_bare_name_of_the_program() -> None:
    """It need not be on the PATH of the shell: `program` knows how it is called."""
    offences = []
    for path in CLI.rglob("*.py"):
        if path.name in HELP:
            continue
        tree = ast.parse(path.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        offences += [
            f"{path.name}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
            if "`backhaul " in node.value
        ]
    assert offences == []
    assert CLI.is_dir()
