"""Jobs on the command line, against a real control plane and real agents.

Rule: one site for the module; every test has a job of its own.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.cli.site.stack import BUCKET
from tests.support.screen import BACKHAUL, backhaul, run_in_terminal
from tests.support.sites import MIB, Fleet, running_fleet

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

CONTENTS: Final[Mapping[str, bytes]] = {
    "sales.csv": b"a;b;c\n" * 1000,
    "empty.csv": b"",
    "Küche 'x'.csv": b"one",
    "large.csv": bytes(range(256)) * (6 * MIB // 256),
}
TILLS: Final = ("till-1", "till-2")


@dataclass(frozen=True)
class Shop:
    """A site, and the folder of the agents' files."""

    fleet: Fleet
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What the command line needs."""
        return {"BACKHAUL_URL": self.fleet.site.server}

    def run(self, *arguments: str, code: int = 0, text: str | None = None) -> dict[str, Any]:
        """The document of a command with `--json`."""
        ended = backhaul(*arguments, "--json", env=self.env, patience=150, text=text)
        assert ended.returncode == code, ended.stderr or ended.stdout
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    def globs(self, name: str = "*.csv") -> list[str]:
        """The option for these files."""
        return ["--path", f"{self.folder}/{name}"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A site with two agents that may read one folder."""
    files = tmp_path_factory.mktemp("files")
    for file, content in CONTENTS.items():
        (files / file).write_bytes(content)
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        for name in TILLS:
            fleet.attach(name, ALLOWED_ROOTS=str(files), LABELS="site=berlin")
        yield Shop(fleet, files)


def fetched(folder: Path, client_id: str, source: Path) -> dict[str, bytes]:
    """The files of one client below `folder`, by name."""
    place = folder / client_id / str(source).lstrip("/")
    return {path.name: path.read_bytes() for path in place.iterdir()}


def report_of(shop: Shop, job_id: str) -> httpx.Response:
    """The report of the first run of a job, as the object store answers."""
    store = shop.fleet.site.store
    settings = S3Settings(
        bucket=BUCKET,
        endpoint=store.endpoint,
        access_key=store.credentials.access_key,
        secret_key=store.credentials.secret_key,
    )
    return httpx.get(S3ObjectStore(settings).presign_get(f"uploads/{job_id}/report-1.jsonl", 60))


def test_the_files_of_a_fleet_are_requested_waited_for_and_fetched(shop: Shop, tmp_path: Path) -> None:
    """Each file of each client, byte for byte; a second fetch finds all of them."""
    job = shop.run("job", "create", "--id", "all", "-l", "site=berlin", *shop.globs(), "--wait", "--timeout", "2m")
    assert (job["state"], job["outcome"], job["clients"]) == ("completed", "all", 2)
    assert (job["totals"]["files"], job["totals"]["proven"]) == (8, 8)
    folder = tmp_path / "fetched"
    done = shop.run("job", "pull", "all", str(folder))
    assert (done["fetched"], done["failed"], done["unchecked"]) == (8, {}, 0)
    for name in TILLS:
        assert fetched(folder, name, shop.folder) == CONTENTS
    assert shop.run("job", "pull", "all", str(folder))["present"] == 8


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_download_list_needs_nothing_of_this_project(shop: Shop, tmp_path: Path) -> None:
    """Its user runs curl, and nothing else."""
    shop.run("job", "create", "--id", "curl", "-c", "till-1", *shop.globs(), "--wait", "--timeout", "2m")
    listed = backhaul("job", "results", "curl", "--format", "curl", env=shop.env)
    (tmp_path / "list").write_text(listed.stdout)
    ended = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", "--config", "list"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert fetched(tmp_path, "till-1", shop.folder) == CONTENTS


def test_a_job_is_read_from_a_file_or_from_standard_input(shop: Shop, tmp_path: Path) -> None:
    """An option replaces what the file has; a dry run makes nothing."""
    body = {"targets": {"clients": ["till-*"]}, "files": {"paths": ["/x"]}, "reason": "from a file"}
    file = tmp_path / "job.json"
    file.write_text(json.dumps(body))
    tried = shop.run("job", "create", "-f", str(file), *shop.globs(), "--dry-run")
    assert (tried["clients"], tried["spec"]["reason"]) == (2, "from a file")
    made = shop.run("job", "create", "-f", "-", *shop.globs("sales.csv"), "--id", "stdin", text=json.dumps(body))
    assert made["spec"]["files"]["paths"] == [f"{shop.folder}/sales.csv"]
    assert shop.run("job", "watch", "stdin", "--timeout", "2m")["outcome"] == "all"


def test_the_exit_code_tells_how_a_job_ended(shop: Shop) -> None:
    """1: none. 124: not over in time; the job goes on, and is cancelled."""
    options = ("-c", "till-1", *shop.globs("sales.csv"))
    body = {"files": {"min_files": 5}}
    job = shop.run("job", "create", "--id", "none", "-f", "-", *options, "--wait", code=1, text=json.dumps(body))
    assert (job["outcome"], job["executions"]["failed"]) == ("none", 1)
    waits = {"windows": [{"cron": "0 0 1 1 *", "for": "1m"}]}
    ended = backhaul(
        *("job", "create", "--id", "late", "-f", "-", *options, "--wait", "--timeout", "1s"),
        env=shop.env,
        text=json.dumps(waits),
    )
    assert ended.returncode == 124, ended.stderr
    assert "it continues" in ended.stderr
    assert shop.run("job", "cancel", "late")["job"]["state"] in {"cancelling", "cancelled"}
    assert shop.run("job", "watch", "late", "--timeout", "1m", code=1)["state"] == "cancelled"


def test_what_a_job_would_send_is_approved(shop: Shop) -> None:
    """The manifest, the approval, and the refusal of one client."""
    text = json.dumps({"approval": "always"})
    shop.run("job", "create", "--id", "ask", "-f", "-", "-c", "till-*", *shop.globs(), text=text)
    shop.fleet.until(lambda: shop.run("job", "manifest", "ask")["waiting"] == 2, "both clients to be listed")
    assert shop.run("job", "manifest", "ask")["totals"]["files"] == 8
    assert shop.run("job", "reject", "ask", "-c", "till-2")["acted_on"] == 1
    assert shop.run("job", "approve", "ask")["acted_on"] == 1
    job = shop.run("job", "watch", "ask", "--timeout", "2m", code=5)
    assert (job["executions"]["succeeded"], job["executions"]["rejected"]) == (1, 1)


def test_what_failed_is_repeated(shop: Shop) -> None:
    """As soon as the file is there."""
    source = shop.folder / "later.log"
    text = json.dumps({"files": {"paths": [str(source)], "min_files": 1}})
    shop.run(
        "job", "create", "--id", "again", "-f", "-", "-c", "till-1", "--wait", "--timeout", "1m", code=1, text=text
    )
    source.write_bytes(b"now it is")
    try:
        job = shop.run("job", "retry", "again", "--wait", "--timeout", "2m")
    finally:
        source.unlink()
    assert (job["outcome"], job["run"], job["totals"]["proven"]) == ("all", 2, 1)


def test_a_job_is_shown_on_a_terminal_of_80_columns(shop: Shop) -> None:
    """The bar, the list, the details."""
    command = (*BACKHAUL, "--server", shop.fleet.site.server, "job")
    shown = run_in_terminal((*command, "create", "--id", "seen", "-c", "till-1", *shop.globs(), "--wait"), columns=80)
    assert shown.exit_code == 0, shown.text
    assert "1/1" in shown.text
    assert "completed (all)" in shown.text
    listed = run_in_terminal((*command, "list"), columns=80)
    assert "seen" in listed.text
    assert max(map(len, listed.text.splitlines())) <= 80


def test_a_report_of_the_run_is_beside_the_objects(shop: Shop) -> None:
    """A line for each file, written after the end."""
    shop.run("job", "create", "--id", "report", "-c", "till-1", *shop.globs(), "--wait", "--timeout", "2m")
    shop.fleet.until(lambda: report_of(shop, "report").status_code == httpx.codes.OK, "the report to be written")
    lines = [json.loads(line) for line in report_of(shop, "report").text.splitlines()]
    assert [line["outcome"] for line in lines] == ["proven"] * len(CONTENTS)
    results = backhaul("job", "results", "report", env=shop.env).stdout
    assert [json.loads(line) for line in results.splitlines()] == lines
