"""Runs `backhaul conformance` on an agent, and reads its report.

Rule: the kit runs as a person runs it: a process, its exit code and its JSON.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.cli.conformance import checks as _checks  # noqa: F401 - fills the catalogue
from control_plane.cli.conformance.bench.setup import BenchOptions, bench_of
from control_plane.cli.conformance.runner import CheckResult, chosen, run_checks
from control_plane.settings import Settings

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class KitRun:
    """One run: its exit code, the JSON document, and standard error."""

    code: int
    document: dict[str, Any]
    stderr: str

    def verdicts(self, verdict: str) -> dict[str, dict[str, Any]]:
        """The checks that ended so, by their ids."""
        return {check["id"]: check for check in self.document.get("checks", []) if check["verdict"] == verdict}


def run_kit(
    home: Path, command: Sequence[str], *, options: Sequence[str] = (), timeout: float = 280, patience: float = 15
) -> KitRun:
    """Run the kit on the agent that `command` starts; the state of the user is below `home`."""
    start = ["--", *command] if command else []
    done = subprocess.run(
        [
            *(sys.executable, "-m", "control_plane.cli.main", "conformance", "--client", "kit-1", "--json"),
            *("--patience", str(patience), *options, *start),
        ],
        cwd=home,
        env=_environment(home),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    document = json.loads(done.stdout) if done.stdout else {}
    return KitRun(done.returncode, document, done.stderr)


def type_command(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Type a command of a document into a shell that finds this environment's programs."""
    return subprocess.run(
        ["bash", "-euc", command],
        cwd=home,
        env={**_environment(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def _environment(home: Path) -> dict[str, str]:
    """The environment without settings of a broker or an object store; the user's state is below `home`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "MQTT_"))},
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(home),
    }


def run_in_process(home: Path, command: Sequence[str], *, only: Sequence[str], patience: float) -> list[CheckResult]:
    """Some checks on the agent that `command` starts, without the start of a program for the kit itself."""

    async def run() -> list[CheckResult]:
        options = BenchOptions(client_id="kit-1", directory=home, patience=patience, command=tuple(command))
        async with bench_of(options, Settings.load({}), real_store=False) as bench:
            return await run_checks(bench, chosen(only), arrival=60.0, on_result=lambda _: None)

    return asyncio.run(run())
