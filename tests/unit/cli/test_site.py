"""A site on one machine: the broker's configuration, and the report of what its object store enforces."""

import io
import os
import shlex
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import typer
from rich.console import Console

from broker.process import BrokerAddress
from control_plane.cli import main
from control_plane.cli.commands import build
from control_plane.cli.errors import Misused
from control_plane.cli.site.broker import authenticated_configuration
from control_plane.cli.site.stack import Site
from control_plane.cli.site.up import _alone_in, enforced, report

SHIPPED = Path(__file__).parents[3] / "mosquitto.conf"
DEVICES, SERVICES = BrokerAddress("192.0.2.7", 1883), BrokerAddress("127.0.0.1", 1884)


def options(text: str) -> list[str]:
    """The options that are set, in their order, without comments and blank lines."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_a_listening_site_runs_the_shipped_configuration() -> None:
    text = authenticated_configuration(Path("/srv/site"), DEVICES, SERVICES)
    for ours, theirs in (
        ("/srv/site/access/", "/etc/mosquitto/backhaul/"),
        ("/srv/site/", "/var/lib/mosquitto/"),
        ("listener 1883 192.0.2.7", "listener 1883"),
    ):
        text = text.replace(ours, theirs)
    shipped = options(SHIPPED.read_text())
    # The order matters only from the first listener on: what stands there belongs to the listener above it.
    begin = shipped.index("listener 1883")
    assert options(text)[-len(shipped[begin:]) :] == shipped[begin:]
    assert set(options(text)) == set(shipped)


@pytest.mark.parametrize("earlier", [[], [".lock", "store"]])
def test_the_data_of_a_site_is_closed_to_other_users(tmp_path: Path, earlier: list[str]) -> None:
    """An earlier version, or `mkdir`, may have left the folder open: uploaded files are in it."""
    tmp_path.chmod(0o755)
    for name in earlier:
        (tmp_path / name).touch()
    with _alone_in(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_an_open_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(Misused, match="other users can read"), _alone_in(tmp_path):
        pass
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_what_a_command_creates_belongs_to_its_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def app() -> None:
        seen.append(os.umask(0o022))

    monkeypatch.setattr(main, "build", lambda: app)
    before = os.umask(0o022)
    try:
        main.main()
    finally:
        os.umask(before)
    assert seen == [0o077]


def test_the_enforced_digests_are_described_as_text() -> None:
    probe = {"part_digests": ["md5"], "object_digests": [], "if_none_match": True, "etag_is_md5": False}
    assert enforced(probe) == "parts bound by md5; no overwriting on request"
    assert enforced({}) == enforced(None) == "it has not been probed"
    assert enforced({"part_digests": []}) == "nothing"


@pytest.mark.parametrize("authenticated", [False, True])
def test_the_report_says_how_a_device_is_enrolled(*, authenticated: bool) -> None:
    """The printed line is one that `backhaul device enroll` takes; a site without Mosquitto has no root of trust."""
    printed = _printed(a_site("mosquitto"), authenticated=authenticated)
    (line,) = [one for one in printed.splitlines() if " device enroll " in one]
    # The words before name the program, however it was started.
    words = shlex.split(line)
    words = words[words.index("device") :]
    command = typer.main.get_command(build())
    for word in words[:2]:
        command = command.commands[word]  # type: ignore[attr-defined]
    taken = command.make_context("enroll", words[2:]).params
    assert (taken["device"], taken["roots"], taken["out"]) == ("restaurant-2", ["/data"], Path("restaurant-2.json"))
    assert taken["hosts"] == ["http://127.0.0.1:9000/backups/"]
    # The signed way is the first that is offered.
    assert printed.index(" device enroll ") < printed.index("CLIENT_ID=")
    assert "device enroll" not in _printed(a_site("embedded"), authenticated=False)


def a_site(kind: str) -> Site:
    """What the report reads of a site."""
    broker = SimpleNamespace(kind=kind, addresses=(SERVICES, DEVICES), address=SERVICES)
    hosts = {"MQTT_URL": DEVICES.url, "UPLOAD_HOSTS": "http://127.0.0.1:9000/backups/"}
    store = SimpleNamespace(endpoint="http://127.0.0.1:9000")
    found = SimpleNamespace(
        directory=Path("/srv/site"),
        broker=broker,
        store=store,
        server="http://127.0.0.1:8000",
        secret=None,
        agent_settings=lambda: hosts,
    )
    return cast("Site", found)


def _printed(site: Site, *, authenticated: bool) -> str:
    console = Console(width=400, file=io.StringIO())
    console.print(report(site, {}, "http://127.0.0.1:8000/", authenticated=authenticated))
    return cast("io.StringIO", console.file).getvalue()
