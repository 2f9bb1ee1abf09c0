"""The how-to documents, followed word for word: on a site with agents, with the files in place that each assumes.

Rule: a document's JSON is the file that its text names; its commands run in their order, in one folder. `/data` is
replaced by the folder of the agents: no test writes below `/data`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from tests.support.sites import Fleet, running_fleet

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

HOW_TO: Final = Path(__file__).parents[2] / "docs" / "how-to"
_BLOCK: Final = re.compile(r"^```(json|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE: Final = re.compile(r"here as `([\w.-]+)`")


@dataclass(frozen=True)
class Place:
    """A site, the folder that stands for `/data`, and the folder in which the reader works."""

    fleet: Fleet
    data: Path
    desk: Path

    def follow(self, document: str) -> str:
        """What the commands of a document print; a command that fails ends it."""
        text = (HOW_TO / document).read_text().replace("/data/", f"{self.data}/")
        names = iter(_FILE.findall(text))
        printed = []
        for kind, block in _BLOCK.findall(text):
            if kind == "json":
                (self.desk / next(names)).write_text(block)
            else:
                printed.append(self._run(block))
        return "\n".join(printed)

    def _run(self, script: str) -> str:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "BACKHAUL_URL": self.fleet.site.server, "COLUMNS": "160"}
        ended = subprocess.run(
            ["bash", "-euxc", script], cwd=self.desk, env=env, capture_output=True, text=True, timeout=200, check=False
        )
        assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
        return ended.stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Two tills in Berlin, both restaurants and of the beta channel, that may read one folder."""
    data, desk = tmp_path / "data", tmp_path / "desk"
    desk.mkdir()
    for name in ("sales", "cores", "log/app"):
        (data / name).mkdir(parents=True)
    with running_fleet(tmp_path / "fleet") as fleet:
        for name in ("till-1", "till-2"):
            fleet.attach(
                name,
                ALLOWED_ROOTS=str(data),
                LABELS="kind=restaurant,channel=beta",
                TYPES=f"cores={data}/cores/*.core",
            )
        yield Place(fleet, data, desk)


def test_the_daily_report(place: Place) -> None:
    yesterday = datetime.now(UTC).astimezone(ZoneInfo("Europe/Berlin")) - timedelta(days=1)
    (place.data / "sales" / f"{yesterday:%Y-%m-%d}.csv").write_text("a;b\n")
    printed = place.follow("daily-report.md")
    assert "daily-sales" in printed
    assert "Europe/Berlin" in printed


def test_the_core_dumps(place: Place) -> None:
    for number in range(3):
        (place.data / "cores" / f"{number}.core").write_bytes(bytes([number]) * 5000)
    printed = place.follow("core-dumps.md")
    assert printed.count("proven") >= 6
    assert len(list((place.desk / "beta-cores").rglob("*.core"))) == 6


def test_the_logs_by_a_deadline(place: Place) -> None:
    for name in ("app/a.log", "app/debug.log", "b.log"):
        (place.data / "log" / name).write_text(name * 100)
    printed = place.follow("logs-by-a-deadline.md")
    assert "completed" in printed
    assert re.search(r"2 +succeeded", printed)
