"""Two replicas of the control plane on one database and one broker: both receive everything, all happens once."""

import itertools
from collections.abc import Iterator

import httpx
import pytest

from broker.server import free_port
from tests.support.fault_sites import CHUNK, SERVE, FaultSite, SiteProcess
from tests.support.strict_s3 import Fault, Kind, Operation

pytestmark = pytest.mark.slow


@pytest.fixture
def second(site: FaultSite) -> Iterator[SiteProcess]:
    """A second control plane with the database and the broker of the first."""
    settings = {**site.plane.settings, "SERVER_PORT": str(free_port())}
    with SiteProcess(SERVE, settings, site.directory / "second" / "plane.log") as plane:
        site.until(lambda: answers(plane), "the second control plane")
        yield plane


def server_of(plane: SiteProcess) -> str:
    return f"http://127.0.0.1:{plane.settings['SERVER_PORT']}"


def answers(plane: SiteProcess) -> bool:
    try:
        return httpx.get(f"{server_of(plane)}/health/ready", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def state_at(plane: SiteProcess, upload_id: str) -> str:
    return str(httpx.get(f"{server_of(plane)}/uploads/{upload_id}", timeout=60).json()["state"])


def check_happened_once(site: FaultSite, upload_id: str) -> None:
    events = site.events(upload_id)
    made = [one for one in events if one.done and one.operation == Operation.COMPLETE_MULTIPART_UPLOAD]
    assert len(made) == 1
    created = sum(one.operation == Operation.CREATE_MULTIPART_UPLOAD for one in events)
    aborted = sum(one.done and one.operation == Operation.ABORT_MULTIPART_UPLOAD for one in events)
    assert created == 1 + aborted, "a replica that lost a race did not abort its multipart upload"
    assert len(site.s3_uploads(upload_id)) == 1


def test_uploads_triggered_at_either_replica_complete_once(site: FaultSite, second: SiteProcess, name: str) -> None:
    site.attach(name)
    paths = [site.file(name, f"{number}.bin", CHUNK + 1 + number) for number in range(8)]
    servers = itertools.cycle((site.server, server_of(second)))
    uploads = {}
    for path, server in zip(paths, servers, strict=False):
        answer = httpx.post(f"{server}/trigger-download/{name}", json={"file_path": str(path)}, timeout=60)
        uploads[str(answer.json()["upload_id"])] = path
    for upload_id, path in uploads.items():
        assert site.completed(upload_id, path)["attempt"] == 1
        check_happened_once(site, upload_id)


def test_a_replica_that_was_frozen_past_the_end_changes_nothing(
    site: FaultSite, second: SiteProcess, name: str
) -> None:
    upload_id, path = site.begun(name, parts=3)
    # Triggered at the first replica, completed by the second.
    site.plane.freeze()
    site.s3.flow()
    site.until(lambda: state_at(second, upload_id) == "completed", "the other to complete it")
    site.plane.thaw()
    again = site.file(name, "again.bin", CHUNK + 1)
    site.completed(site.trigger(name, again), again)
    assert site.completed(upload_id, path)["attempt"] == 1
    check_happened_once(site, upload_id)


def test_an_upload_of_a_killed_replica_completes_at_the_other(site: FaultSite, second: SiteProcess, name: str) -> None:
    upload_id, path = site.begun(name, parts=3)
    # Triggered at the first replica, which is dead when the upload ends.
    site.plane.kill()
    site.s3.flow()
    site.until(lambda: state_at(second, upload_id) == "completed", "the other to complete it")
    site.restart_plane()
    assert site.completed(upload_id, path)["attempt"] == 1
    check_happened_once(site, upload_id)


def test_a_completion_of_a_killed_replica_ends_at_the_other(site: FaultSite, second: SiteProcess, name: str) -> None:
    """Both receive the success; the replica that commits it completes the upload, under a lease of half a minute."""
    second.freeze()
    site.attach(name)
    path = site.file(name, "big.bin", CHUNK + 1)
    complete = Operation.COMPLETE_MULTIPART_UPLOAD
    site.strict.add(Fault(kind=Kind.HELD, operation=complete, key=f"*/{name}/*"))
    upload_id = site.trigger(name, path)
    site.until(lambda: site.upload(upload_id)["state"] == "completing", "the completion")
    site.plane.kill()
    site.strict.clear()
    second.thaw()
    site.until(lambda: state_at(second, upload_id) == "completed", "the other to settle it")
    site.restart_plane()
    assert site.completed(upload_id, path)["attempt"] == 1
    check_happened_once(site, upload_id)
