"""Jobs on the command line, against a real control plane and real agents.

Rule: one site for the module; every test has a job of its own.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.screen import backhaul
from tests.support.sites import MIB, Fleet, running_fleet

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

CONTENTS = {
    "sales.csv": b"a;b;c\n" * 1000,
    "empty.csv": b"",
    "Küche 'x'.csv": b"one",
    "large.csv": bytes(range(256)) * (6 * MIB // 256),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A site with two agents that have the same files, and may read nothing else."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        for name in ("till-1", "till-2"):
            files = tmp_path_factory.mktemp(name)
            for file, content in CONTENTS.items():
                (files / file).write_bytes(content)
            fleet.attach(name, files / "sales.csv", ALLOWED_ROOTS=str(files), LABELS="site=berlin")
            fleet.folders[name] = files
        yield fleet


def run(fleet: Fleet, *arguments: str, code: int = 0, text: str | None = None) -> dict[str, Any]:
    """The document of a command with `--json`."""
    ended = backhaul(*arguments, "--json", env={"BACKHAUL_URL": fleet.site.server}, patience=120, text=text)
    assert ended.returncode == code, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document
