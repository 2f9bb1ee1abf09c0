"""The how-to documents, followed word for word: on a site with agents, with the files in place that each assumes.

Rule: a document's JSON is the file that its text names; its commands run in their order, in one folder. `/data` is
replaced by the folder of the agents: no test writes below `/data`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import httpx
import pytest

from broker.server import free_port
from tests.support.sites import Fleet, running_fleet, serve

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

    def follow(self, document: str, places: Mapping[str, str] | None = None) -> str:
        """What the commands of a document print, with `places` put in; a command that fails ends it."""
        text = (HOW_TO / document).read_text().replace("/data/", f"{self.data}/")
        for written, real in (places or {}).items():
            text = text.replace(written, real)
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
        site = self.fleet.site
        mine = {"PATH": path, "BACKHAUL_URL": site.server, "MQTT_URL": site.broker.address.url, "COLUMNS": "160"}
        env = {**os.environ, **mine}
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
    today = datetime.now(UTC).astimezone(ZoneInfo("Europe/Berlin"))
    # Today's too: it is yesterday's when midnight passes before the page is followed to its end.
    for day in (today - timedelta(days=1), today):
        (place.data / "sales" / f"{day:%Y-%m-%d}.csv").write_text("a;b\n")
    printed = place.follow("daily-report.md")
    assert "daily-sales" in printed
    assert "Europe/Berlin" in printed


def test_the_core_dumps(place: Place) -> None:
    for number in range(3):
        (place.data / "cores" / f"{number}.core").write_bytes(bytes([number]) * 5000)
    printed = place.follow("core-dumps.md")
    assert printed.count("proven") >= 6
    assert len(list((place.desk / "beta-cores").rglob("*.core"))) == 6


def test_the_logs_of_a_sick_device(place: Place) -> None:
    for name in ("app/a.log", "b.log"):
        (place.data / "log" / name).write_text(name * 100)
    printed = place.follow("logs-of-a-sick-device.md")
    assert "proven by" in printed or "completed" in printed
    assert sorted(path.name for path in (place.desk / "sick").rglob("*.log")) == ["a.log", "b.log"]


def test_a_backup_of_a_running_site_has_its_uploads_and_can_be_started(place: Place) -> None:
    file = place.data / "sales" / "a.csv"
    file.write_text("a;b\n")
    upload_id = place.fleet.trigger("till-1", file)
    assert place.fleet.ended(upload_id)["state"] == "completed"
    live = Path(place.fleet.plane_settings["DATABASE_URL"].removeprefix("sqlite:///"))
    place.follow("back-up.md", {"site/control-plane/backhaul.db": str(live)})
    restored = {**place.fleet.plane_settings, "DATABASE_URL": f"sqlite:///{place.desk / 'backup.db'}"}
    port = free_port()
    with serve(place.desk, {**restored, "SERVER_PORT": str(port)}):
        place.fleet.until(lambda: answers(f"http://127.0.0.1:{port}/health"), "the restored control plane")
        found = httpx.get(f"http://127.0.0.1:{port}/uploads/{upload_id}", timeout=60).json()
    assert (found["state"], found["proof"]) == ("completed", place.fleet.ended(upload_id)["proof"])


def test_new_keys(place: Place) -> None:
    place.follow("rotate-keys.md")
    assert len((place.desk / "token").read_text().split(".")) == 3
    assert place.follow("give-rights.md").strip().count(".") == 2


def test_the_size(place: Place) -> None:
    assert "20" in place.follow("size-it.md")


def answers(url: str) -> bool:
    """Whether a server answers."""
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def test_the_logs_by_a_deadline(place: Place) -> None:
    for name in ("app/a.log", "app/debug.log", "b.log"):
        (place.data / "log" / name).write_text(name * 100)
    printed = place.follow("logs-by-a-deadline.md")
    assert "completed" in printed
    assert re.search(r"2 +succeeded", printed)
