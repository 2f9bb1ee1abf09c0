"""The agent's packages, built for a test by the program that `make package` runs.

Rule: built once a session for each name and version.
"""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support.engine_images import mirror

ROOT: Final = Path(__file__).parents[2]
EPOCH: Final = 1_700_000_000


def build(folder: Path, *names: str, version: str | None = None) -> list[Path]:
    """Build packages by name into a folder; their paths."""
    words = [] if version is None else ["--version", version]
    command = [sys.executable, str(ROOT / "deploy/debian/build"), "--out", str(folder), *words, *names]
    environment = {"SOURCE_DATE_EPOCH": str(EPOCH), "MIRROR": " ".join(mirror())}
    ended = subprocess.run(
        ["env", *(f"{name}={value}" for name, value in environment.items()), *command],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [Path(line) for line in ended.stdout.splitlines()]


@functools.cache
def built(name: str, version: str | None = None) -> Path:
    """One package by name."""
    folder = Path(_scratch().name) / (version or "own")
    return build(folder, name, version=version)[0]


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="backhaul-packages-")
