"""What each command prints with `--json`, and which call of REST it makes: a contract for the programs of operators.

Rule: REST answers with the examples of its OpenAPI document; the documents are kept in `cli_documents.json`. After a
change that is meant, `python -m tests.contract.test_cli_documents` writes them anew.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import typer
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.cli.rest.client import ControlPlane
from tests.docs.cli_fields import openapi
from tests.docs.test_cli_calls import COMMANDS
from tests.support.rest_by_example import ExampleRest

GOLDEN: Final = Path(__file__).parent / "cli_documents.json"
LINES: Final = {
    "upload trigger": "restaurant-1 /data/a.bin -m order=7 -o priority=3",
    "upload list": "--client restaurant-1 --state queued --error file_not_found --job j --reason client_offline",
    "upload show": "u1",
    "upload cancel": "u1",
    "upload cancel-many": "-l site=berlin",
    "upload retry": "u1",
    "upload url": "u1",
    "receipt": "u1",
    "verify": "u1",
    "upload timeline": "u1 --client restaurant-1",
    "client status": "restaurant-1",
    "client list": "-l site=berlin --state connected --id till-*",
    "client show": "restaurant-1",
    "client history": "restaurant-1 --hours 24",
    "client add": "restaurant-1 --label site=berlin",
    "client forget": "restaurant-1",
    "client files": "restaurant-1 /data/* --digest --folders",
    "client label": "restaurant-1 site=berlin ring-",
    "client label-many": "-l site=berlin ring=beta old-",
    "group list": "",
    "group create": "beta till-* -l ring=beta",
    "group show": "beta",
    "group set": "beta till-1",
    "group delete": "beta",
    "budget list": "",
    "budget show": "site=berlin",
    "budget set": "site=berlin 2MiB",
    "budget delete": "site=berlin",
    "job create": "-c till-* -p /data/* --id j",
    "job list": "--state running --schedule s",
    "job show": "j",
    "job set": "j priority=5",
    "job pause": "j",
    "job resume": "j",
    "job cancel": "j",
    "job extend": "j 12h",
    "job approve": "j",
    "job reject": "j -c till-1",
    "job retry": "j --state failed",
    "job add": "j -c till-9",
    "job executions": "j --state failed --reason no_match -c till-1",
    "job files": "j --client till-1 --outcome failed --undecided",
    "job manifest": "j",
    "schedule create": "--id s --cron 0_3_*_*_* -c till-* -p /data/*",
    "schedule list": "",
    "schedule show": "s",
    "schedule rm": "s",
    "schedule pause": "s --note why",
    "schedule resume": "s",
    "schedule skip-next": "s",
    "schedule run-now": "s",
    "schedule backfill": "s --from 2026-11-20 --to 2026-11-21",
    "schedule preview": "s",
    "schedule runs": "s --status fired --kind tick",
    "schedule coverage": "s",
    "token list": "",
    "token show": "t",
    "token revoke": "t",
    "device enroll": "d --out -",
    "device rotate": "d --out -",
    "device list": "",
    "device show": "d",
    "device requests": "",
    "device approve": "4F7K-2QXM --name d --fingerprint d8a1c9b20f3e4d5c6b7a8899aabbccdd",
    "device reject": "4F7K-2QXM",
    "device batch create": "--name till-{n} --count 2 --expires 30d --out -",
    "device batch list": "",
    "device batch revoke": "9f2c4b1d7e6a5038",
    "device revoke": "d",
    "device accept-key": "d --fingerprint d8a1c9b20f3e4d5c6b7a8899aabbccdd",
    "device forget": "d",
    "keys published": "",
    "keys publish": f"--folder {Path(__file__).parent / 'keys'}",
    "webhook add": "https://example.com/hook",
    "webhook list": "",
    "webhook show": "w",
    "webhook set": "w --url https://example.com/other",
    "webhook rm": "w",
    "webhook deliveries": "w --state dead",
    "webhook replay": "w 7",
    "audit list": "--act upload.trigger",
    "health live": "",
    "health ready": "",
    "health details": "",
    "fleet show": "",
    "fleet history": "--hours 2",
    "page": "",
    "whoami": "",
}
"""A line for each command that answers with one document."""

APP: Final = typer.Typer()
"""A name for the command that `installed` built."""

STREAMS: Final = {"audit export": "", "job results": "j", "health metrics": "", "events": ""}
"""These print lines, as REST sends them."""


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ExampleRest:
    """REST by example; the user has no contexts."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("BACKHAUL_URL", "BACKHAUL_TOKEN", "BACKHAUL_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    return installed(monkeypatch)


def installed(monkeypatch: pytest.MonkeyPatch) -> ExampleRest:
    """In place of the calls of every `ControlPlane`."""
    rest = ExampleRest()
    command = typer.main.get_command(build())
    # The runner would build the tree for each line.
    monkeypatch.setattr("typer.testing._get_command", lambda _app: command)
    for name in ("call", "lines", "delete", "readiness"):
        method = getattr(rest, name)
        monkeypatch.setattr(ControlPlane, name, lambda plane, *given, m=method, **named: m(plane, *given, **named))
    return rest


def output(name: str, *more: str) -> str:
    """What the line of a command prints."""
    words = [word.replace("_", " ") if name == "schedule create" else word for word in LINES[name].split()]
    ended = CliRunner().invoke(APP, [*name.split(), *words, *more])
    assert ended.exit_code == 0, f"{name}: {ended.output} {ended.exception}"
    return ended.stdout


def documents() -> dict[str, Any]:
    """The document of each command."""
    return {name: json.loads(output(name, "--json")) for name in LINES}


def test_every_command_prints_the_documents_that_it_always_printed(rest: ExampleRest) -> None:
    found = documents()
    golden = json.loads(GOLDEN.read_text())
    assert sorted(found) == sorted(golden)
    for name, document in found.items():
        assert document == golden[name], name
    assert rest.calls


def test_every_command_makes_the_call_that_it_is_said_to_make(rest: ExampleRest) -> None:
    assert {*LINES, *STREAMS} == set(COMMANDS.values())
    made: set[str] = set()
    for name in LINES:
        rest.calls.clear()
        output(name, "--json")
        made |= (called := {operation for operation, _ in rest.calls})
        assert called & {operation for operation, command in COMMANDS.items() if command == name}, name
    for words in (["client", "label", "c", "a=b", "--replace"], ["schedule", "create", "--replace", "--id", "s",
                  "--every", "6h", "-c", "x", "-p", "/a"], ["webhook", "replay", "w", "--dead"]):  # fmt: skip
        rest.calls.clear()
        assert CliRunner().invoke(APP, words).exit_code == 0
        made |= {operation for operation, _ in rest.calls}
    # `client label` takes a label off by a change, too.
    left = {operation for operation, command in COMMANDS.items() if command not in STREAMS} - made
    assert left == {"dropLabel"}


def test_a_command_whose_call_answers_with_nothing_succeeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty answer is none of a foreign server: what was done must not end with an error."""
    empty = {
        operation["operationId"]
        for calls in openapi()["paths"].values()
        for operation in calls.values()
        if {status for status in operation["responses"] if status.startswith("2")} == {"204"}
    }
    names = {COMMANDS[operation] for operation in empty & set(COMMANDS)}
    assert {"device batch revoke", "device reject", "device forget"} <= names
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def send(_: ControlPlane, method: str, path: str, **_given: object) -> httpx.Response:
        return httpx.Response(204, request=httpx.Request(method, f"http://127.0.0.1{path}"))

    monkeypatch.setattr(ControlPlane, "_send", send)
    failed, app = {}, build()
    for name in sorted(names):
        ended = CliRunner().invoke(
            app, ["--yes", "--server", "http://127.0.0.1:9", *name.split(), *LINES[name].split()]
        )
        if ended.exit_code:
            failed[name] = ended.output
    assert failed == {}


def test_a_device_of_a_batch_is_approved_under_the_name_that_its_batch_proposes(rest: ExampleRest) -> None:
    words = ["device", "approve", "4F7K-2QXM", "--fingerprint", "d8a1c9b20f3e4d5c6b7a8899aabbccdd"]
    assert CliRunner().invoke(APP, words).exit_code == 0
    assert CliRunner().invoke(APP, [*words, "--name", "another"]).exit_code == 0
    assert [body["client_id"] for name, body in rest.calls if name == "approveEnrollment"] == ["till-007", "another"]


def test_the_token_of_a_batch_goes_into_a_new_file_of_its_owner_and_nowhere_else(
    rest: ExampleRest, tmp_path: Path
) -> None:
    serials, out = tmp_path / "serials.txt", tmp_path / "token.txt"
    serials.write_text("A1\nA2\n")
    words = ["device", "batch", "create", "--name", "till-{serial}", "--expires", "30d", "--serials", str(serials)]
    ended = CliRunner().invoke(APP, [*words, "--out", str(out)])
    assert (ended.exit_code, out.read_text(), out.stat().st_mode & 0o777) == (0, "…\n", 0o600)
    assert "…" not in ended.output
    (body,) = [body for name, body in rest.calls if name == "createBatch"]
    assert (body["count"], body["serials"], body["expires_in"], body["auto"]) == (2, ["A1", "A2"], 30 * 86_400, False)
    # A second time nothing is made: the token could not be stored.
    assert CliRunner().invoke(APP, [*words, "--out", str(out)]).exit_code == 2
    assert len(rest.calls) == 1


def test_every_form_of_every_list_has_its_rows(rest: ExampleRest) -> None:
    for name in ("upload list", "client list", "job files", "webhook deliveries", "schedule runs", "budget list"):
        (rows,) = (value for key, value in json.loads(output(name, "--json")).items() if isinstance(value, list))
        assert [json.loads(line) for line in output(name, "-o", "jsonl").splitlines()] == rows
        table = list(csv.DictReader(io.StringIO(output(name, "-o", "csv"))))
        assert len(table) == len(rows)
        assert set(table[0]) >= set(rows[0])
        assert len(output(name, "-o", "name").splitlines()) == len(rows)
        fields = output(name, "--fields").split()
        assert fields == list(table[0])
        chosen = output(name, "-o", "jsonl", "--fields", fields[1]).splitlines()
        assert [json.loads(line) for line in chosen] == [{fields[1]: row.get(fields[1])} for row in rows]
        narrow, wide = output(name), output(name, "-o", "wide")
        assert len(narrow.splitlines()[0]) <= len(wide.splitlines()[0])
    assert rest.calls


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        installed(patch)
        GOLDEN.write_text(json.dumps(documents(), indent=1, ensure_ascii=False, sort_keys=True) + "\n")
