"""The command line against a real control plane and a real agent."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from control_plane.cli.commands import build
from tests.support.screen import BACKHAUL, backhaul, run_in_terminal
from tests.support.sites import MIB, Fleet, running_fleet, sha256_of

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the agent may read."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[Fleet]:
    """A site with one agent, `restaurant-1`."""
    default = files / "Küche, Tür.bin"
    default.write_bytes(os.urandom(7 * MIB))
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.attach("restaurant-1", default, ALLOWED_ROOTS=str(files), LABELS="site=berlin")
        yield fleet


def reported(fleet: Fleet, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The document of a command with `--json`."""
    ended = backhaul(*arguments, "--json", env={"BACKHAUL_URL": fleet.site.server}, patience=60)
    assert ended.returncode == code, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_a_file_is_triggered_waited_for_and_read_back(fleet: Fleet, files: Path) -> None:
    ended = reported(
        fleet, "trigger", "restaurant-1", "--wait", "-m", "order=7", "-o", "priority=3", "--deadline", "2h"
    )
    assert (ended["status"], ended["metadata"]) == ("completed", {"order": "7"})
    assert fleet.stored_sha256(ended["upload_id"]) == sha256_of(files / "Küche, Tür.bin")
    assert reported(fleet, "url", ended["upload_id"])["url"].startswith(fleet.site.store.endpoint)
    assert reported(fleet, "uploads", ended["upload_id"])["state"] == "completed"
    assert reported(fleet, "upload", ended["upload_id"], "--client", "restaurant-1")["state"] == "completed"


def test_without_json_the_error_is_text(fleet: Fleet) -> None:
    command = (*BACKHAUL, "--server", fleet.site.server, "trigger", "restaurant-1", "--wait")
    screen = run_in_terminal(command, columns=80, patience=60)
    assert screen.exit_code == 0, screen.text
    assert "proven by" in screen.text
    assert "Küche, Tür.bin" in screen.text


def test_a_refused_file_exits_with_1_and_the_devices_text(fleet: Fleet) -> None:
    ended = reported(fleet, "trigger", "restaurant-1", "/etc/passwd", "--wait", code=1)
    assert (ended["state"], ended["error"]) == ("rejected", "path_not_allowed")


def test_clients_and_their_files_are_listed(fleet: Fleet, files: Path) -> None:
    assert [one["client_id"] for one in reported(fleet, "clients", "--selector", "site=berlin")["clients"]] == [
        "restaurant-1"
    ]
    assert reported(fleet, "clients", "-l", "site!=berlin")["clients"] == []
    assert reported(fleet, "status", "restaurant-1")["connected"] is True
    listed = reported(fleet, "files", "restaurant-1", f"{files}/*")["files"]
    assert [one["path"] for one in listed] == [str(files / "Küche, Tür.bin")]


def test_the_fleet_is_described_from_the_command_line(fleet: Fleet, tmp_path: Path) -> None:
    """In this process: only the control plane and the agent are others."""

    def ran(*arguments: str) -> dict[str, Any]:
        ended = CliRunner().invoke(build(), ["--server", fleet.site.server, *arguments, "--json"])
        assert ended.exit_code == 0, ended.output
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    table = tmp_path / "fleet.csv"
    table.write_text('id,labels,note\nrestaurant-1,ring=beta,\nrestaurant-7,"site=berlin,ring=beta",opens in May\n')
    assert ran("client", "add", "--file", str(table)) == {"clients": 2, "created": 1, "changed": 1}
    assert ran("client", "show", "restaurant-1")["labels"] == {"site": "berlin", "ring": "beta"}
    assert ran("client", "add", "restaurant-8", "--label", "site=berlin")["state"] == "never_seen"
    assert ran("client", "label", "restaurant-8", "ring=beta", "site-")["set_labels"] == {"ring": "beta"}
    assert ran("client", "label", "restaurant-8", "site=paris", "--replace")["set_labels"] == {"site": "paris"}
    beta = [row["client_id"] for row in ran("clients", "-l", "ring=beta")["clients"]]
    assert beta == ["restaurant-1", "restaurant-7"]
    assert [row["client_id"] for row in ran("clients", "--state", "never_seen")["clients"]][-1] == "restaurant-8"
    assert ran("group", "create", "beta", "restaurant-8", "-l", "ring=beta", "--note", "first")["count"] == 3
    assert ran("group", "set", "beta", "restaurant-*", "-l", "ring=beta")["note"] == ""
    assert [row["name"] for row in ran("group", "list")["groups"]] == ["beta"]
    assert ran("group", "show", "beta")["clients"] == ["restaurant-*"]
    assert ran("group", "delete", "beta")["deleted"] is True
    assert [ran("client", "forget", name)["forgotten"] for name in ("restaurant-7", "restaurant-8")] == [True, True]
    assert ran("client", "label", "restaurant-1", "--replace")["labels"] == {"site": "berlin"}


@pytest.mark.slow
def test_the_same_key_is_the_same_upload(fleet: Fleet) -> None:
    first, again = (reported(fleet, "trigger", "restaurant-1", "--idempotency-key", "once") for _ in range(2))
    assert first["upload_id"] == again["upload_id"]


@pytest.mark.slow
def test_an_upload_is_cancelled_and_tried_again(fleet: Fleet) -> None:
    # Half a minute: several programs are started before it is over.
    slow = reported(fleet, "trigger", "restaurant-1", "-o", "max_bytes_per_second=250000")
    fleet.until(lambda: fleet.get(f"/uploads/{slow['upload_id']}")["state"] == "in_progress", "the upload to begin")
    assert reported(fleet, "status", "restaurant-1")["current_upload"]["upload_id"] == slow["upload_id"]
    assert reported(fleet, "cancel", slow["upload_id"])["status"] == "cancelled"
    assert reported(fleet, "cancel", slow["upload_id"], code=1)["status"] == 409
    assert reported(fleet, "uploads", "--status", "cancelled")["uploads"][0]["upload_id"] == slow["upload_id"]
    again = reported(fleet, "retry", slow["upload_id"])
    assert again["upload_id"] != slow["upload_id"]
    assert reported(fleet, "cancel", again["upload_id"])["status"] == "cancelled"


@pytest.mark.slow
def test_an_unknown_client_exits_with_1(fleet: Fleet) -> None:
    assert reported(fleet, "trigger", "nobody", code=1)["type"] == "/help/reasons/unknown-client"


@pytest.mark.slow
def test_an_upload_to_an_offline_client_shows_its_reason(fleet: Fleet, files: Path) -> None:
    agent = fleet.attach("restaurant-2", files / "Küche, Tür.bin", ALLOWED_ROOTS=str(files))
    agent.stop()
    fleet.until(lambda: not fleet.connected("restaurant-2"), "the agent to be offline")
    command = (*BACKHAUL, "--server", fleet.site.server, "trigger", "restaurant-2", "--wait")
    reason = "the client is offline, next try"
    screen = run_in_terminal(command, columns=80, patience=60, interrupt_at=reason)
    assert reason in screen.text
    assert "the upload continues" in screen.text
