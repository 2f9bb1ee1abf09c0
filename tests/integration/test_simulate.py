"""Simulated devices against a real broker, a control plane and an S3 server that checks signatures.

Rule: the report of the command is compared with the answers of the control plane.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.site.stack import Site, SitePorts, running_site
from schemas.values import WILL_DELAY
from tests.support.patience import came_true

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), SitePorts()) as started:
        yield started


def simulate(site: Site, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json", "--server", site.server)
    where = ("--mqtt-url", site.agent_settings()["MQTT_URL"])
    return subprocess.run([*command, *where, *options], capture_output=True, text=True, timeout=60, check=False)


def document(finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "devices", "size", "parts"),
    [("small-{}", 30, 4096, 1), ("empty-{}", 2, 0, 1), ("large-{}", 2, 12_000_000, 3)],
)
def test_every_device_uploads_once(site: Site, name: str, devices: int, size: int, parts: int) -> None:
    options = ("--devices", str(devices), "--file-size", str(size), "--username", name, "--trigger")
    report = document(simulate(site, *options))
    assert report["outcomes"] == {"completed": devices}
    assert (report["triggered"], report["refused"], report["errors"]) == (devices, 0, {})
    assert (report["puts"], report["bytes_sent"]) == (devices * parts, devices * size)
    with ControlPlane(site.server) as plane:
        uploads = [upload for upload in plane.uploads()["uploads"] if upload["client_id"].startswith(name[:-2])]
        clients = [client for client in plane.clients()["clients"] if client["client_id"].startswith(name[:-2])]
    assert {(upload["state"], upload["file_size"], upload["attempt"]) for upload in uploads} == {("completed", size, 1)}
    assert (len(uploads), len(clients)) == (devices, devices)


@pytest.mark.slow
def test_a_share_of_the_devices_fails_every_upload_and_a_share_the_first_one(site: Site) -> None:
    options = ("--devices", "10", "--username", "failing-{}", "--failing", "0.2", "--failing-once", "0.3")
    report = document(simulate(site, *options, "--trigger", "--rounds", "2"))
    # Of two uploads of each device: two devices fail both, three devices fail the first.
    assert report["outcomes"] == {"completed": 5 * 2 + 3, "failed": 2 * 2 + 3}
    with ControlPlane(site.server) as plane:
        uploads = [one for one in plane.uploads()["uploads"] if one["client_id"].startswith("failing-")]
    assert {one["error"] for one in uploads if one["state"] == "failed"} == {"source_unreadable"}


@pytest.mark.slow
def test_devices_that_stop_publish_offline_at_once(site: Site) -> None:
    report = document(simulate(site, "--devices", "3", "--username", "leaving-{}", "--duration", "0.5"))
    assert report["connected"] == 3
    with ControlPlane(site.server) as plane:

        def seen() -> dict[str, bool]:
            clients = plane.clients()["clients"]
            return {one["client_id"]: one["connected"] for one in clients if one["client_id"].startswith("leaving-")}

        # Earlier than their wills, which would have the same effect.
        offline = dict.fromkeys(("leaving-1", "leaving-2", "leaving-3"), False)
        assert came_true(lambda: seen() == offline, WILL_DELAY / 2), seen()


def test_an_unreachable_broker_is_reported_with_exit_code_3(site: Site) -> None:
    refused = simulate(site, "--devices", "1", "--mqtt-url", "mqtt://127.0.0.1:1", "--patience", "1")
    assert refused.returncode == 3
    assert "only 0 of 1 devices are connected" in refused.stderr


@pytest.mark.parametrize("wrong", ["a/b-{}", "cli-{}", "{"])
def test_an_invalid_device_name_is_refused(site: Site, wrong: str) -> None:
    refused = simulate(site, "--username", wrong)
    assert refused.returncode == 2
    assert "--username" in refused.stderr
