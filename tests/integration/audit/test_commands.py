"""`backhaul audit` against a running control plane: the commands of audit.md are typed as they stand."""

import asyncio
import json
import shlex
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.database import SqlDatabase
from control_plane.api.server import server_config
from control_plane.cli.commands import build
from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.audit.notes import NoteSigner
from control_plane.observability import Metrics
from control_plane.services.audit.denials import Denials
from control_plane.services.audit.keeper import AuditKeeper
from control_plane.services.audit.recording import record
from control_plane.services.audit.service import AuditService
from control_plane.services.gate.budgets import BudgetService
from control_plane.settings import Settings
from schemas.signing.ed25519 import Signer
from tests.support.engine_guide import blocks
from tests.support.fake_services import SILENT, FakeServices, api_over
from tests.support.loop_thread import LoopThread

GUIDE: Final = Path(__file__).parents[3] / "docs" / "how-to" / "audit.md"
SIGNER: Final = NoteSigner("backhaul/fleet/v1", Signer(bytes(range(32))))


class Site:
    """A server in a thread, over a database of its own; `sign` makes checkpoints at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = LoopThread("server")
        self.loop.start()
        self.database = SqlDatabase.open(f"sqlite:///{directory / 'backhaul.db'}", patience=5)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.notes: list[str] = []
        self.loop.call(self._begin())

    async def _begin(self) -> None:
        clock, silent = SystemClock(), Metrics(SILENT)
        self.keeper = AuditKeeper(
            self.database, clock, self._log, signer=SIGNER, origin="backhaul/fleet/v1/audit", kept_for=1e6
        )
        api = api_over(
            FakeServices(),
            Settings.load({}),
            silent,
            audit=AuditService(self.database, clock, SIGNER.verifier.text),
            budgets=BudgetService(database=self.database, clock=clock),
            denials=Denials(self.database, clock, silent),
        )
        self.server = uvicorn.Server(server_config(api, "127.0.0.1", 0))
        self.serving = asyncio.create_task(self.server.serve([self.listening]))

    def _log(self, event: str, facts: Mapping[str, Any]) -> None:
        if event == "audit.checkpoint":
            self.notes.append(str(facts["note"]))

    async def _end(self) -> None:
        self.server.should_exit = True
        await self.serving
        await self.database.close()

    def stop(self) -> None:
        self.loop.call(self._end())
        self.loop.stop()
        self.listening.close()

    def type(self, line: str) -> Result:
        """Run a command as the document has it; `>` writes a file."""
        words, _, file = line.partition(" > ")
        ended = CliRunner().invoke(build(), ["--server", self.url, *shlex.split(words)[1:]])
        if file:
            Path(file).write_text(ended.stdout)
        return ended

    def run(self, line: str) -> str:
        ended = self.type(line)
        assert ended.exit_code == 0, ended.output
        return ended.stdout


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    one = Site(tmp_path)
    one.run("backhaul budget set site=berlin 1000000 --why 'ticket 4711'")
    one.run("backhaul budget set site=paris 2000000")
    one.loop.call(one.keeper.sign())
    yield one
    one.stop()


def test_the_commands_of_the_document_work_as_they_stand(site: Site) -> None:
    (site.directory / "000000000042.note").write_text(site.notes[-1])
    text = GUIDE.read_text().replace("backhaul/fleet/v1+1a2b3c4d+AQ…", SIGNER.verifier.text)
    printed = [site.run(line) for block in blocks(text) for line in block.splitlines()]
    assert "budget:site=berlin" in printed[0]
    assert "3 records are whole, 2 of them signed" in printed[-1]


def test_who_did_it_and_why_are_in_the_list(site: Site) -> None:
    rows = json.loads(site.run("backhaul audit list --json"))["records"]
    assert [(row["act"], row["subject"], row["reason"]) for row in rows] == [
        ("budget.put", "anonymous", None),
        ("budget.put", "anonymous", "ticket 4711"),
    ]
    assert "ticket 4711" in site.run("backhaul audit list -o wide --limit 2")


def test_an_export_that_was_changed_ends_with_1_and_the_record_is_named(site: Site) -> None:
    site.run("backhaul audit export > audit.jsonl")
    text = Path("audit.jsonl").read_text()
    Path("changed.jsonl").write_text(text.replace("site=berlin", "site=london"))
    Path("shorter.jsonl").write_text("".join(text.splitlines(keepends=True)[::2]))
    for file, problem in (("changed", "record 1 was changed"), ("shorter", "records 2 to 2 are missing")):
        ended = site.type(f"backhaul audit verify {file}.jsonl --key {SIGNER.verifier.text}")
        assert ended.exit_code == 1
        assert problem in " ".join(ended.output.split())
    assert site.type("backhaul audit verify audit.jsonl --key nonsense").exit_code == 2
    Path("other.jsonl").write_text("no export")
    assert "line 1 is no line of an export" in site.type("backhaul audit verify other.jsonl").output


def test_records_that_were_deleted_before_their_time_are_missing(site: Site) -> None:
    """A chain that begins after a checkpoint looks pruned: HISTORY_DAYS decides whether it may be."""
    site.run("backhaul audit export > audit.jsonl")
    lines = Path("audit.jsonl").read_text().splitlines(keepends=True)
    Path("rest.jsonl").write_text("".join(line for line in lines if "budget.put" not in line))
    verify = f"backhaul audit verify rest.jsonl --key {SIGNER.verifier.text}"
    assert "the records up to 2 are not there" in " ".join(site.run(verify).split())
    ended = site.type(f"{verify} --history-days 90")
    assert ended.exit_code == 1
    assert "the records up to 2 are not there" in " ".join(ended.output.split())
    assert site.type("backhaul audit verify --history-days 90 --since 2026-01-01T00:00:00Z").exit_code == 2


def test_a_character_that_ends_a_line_elsewhere_ends_none_of_an_export(site: Site) -> None:
    """The path of a denied request is in a record, so a caller without a token chooses such characters."""
    detail = {"path": "/a\u2028b\u0085c\u2029"}
    site.loop.call(site.database.write(lambda records: record(records, Principal(""), Act.REQUEST, 1e9, detail=detail)))
    site.run("backhaul audit export > audit.jsonl")
    assert "4 records are whole" in site.run(f"backhaul audit verify audit.jsonl --key {SIGNER.verifier.text}")
    assert "5 records are whole" in site.run(f"backhaul audit verify --key {SIGNER.verifier.text}")


def test_a_check_without_a_file_reads_the_control_plane(site: Site) -> None:
    found = json.loads(site.run(f"backhaul audit verify --key {SIGNER.verifier.text} --json"))
    assert (found["sound"], found["records"]) == (True, 3)
    assert [one["signed"] for one in found["chains"]] == [2]
