"""Two control planes on one database and one broker: both hear everything, and still everything happens once."""

import itertools
from collections.abc import Iterator

import httpx
import pytest

from broker.server import free_port
from tests.support.fault_sites import CHUNK, SERVE, FaultSite, Victim
from tests.support.strict_s3 import Fault, Kind, Operation

pytestmark = pytest.mark.slow


@pytest.fixture
def second(site: FaultSite) -> Iterator[Victim]:
    """Another control plane beside the site's."""
    settings = {**site.plane.settings, "SERVER_PORT": str(free_port())}
    with Victim(SERVE, settings, site.directory / "second" / "plane.log") as plane:
        site.until(lambda: answers(plane), "the second control plane")
        yield plane


def server_of(plane: Victim) -> str:
    return f"http://127.0.0.1:{plane.settings['SERVER_PORT']}"


def answers(plane: Victim) -> bool:
    try:
        return httpx.get(f"{server_of(plane)}/health/ready", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def state_at(plane: Victim, upload_id: str) -> str:
    return str(httpx.get(f"{server_of(plane)}/uploads/{upload_id}", timeout=20).json()["state"])


def check_happened_once(site: FaultSite, upload_id: str) -> None:
    events = site.events(upload_id)
    made = [one for one in events if one.done and one.operation == Operation.COMPLETE_MULTIPART_UPLOAD]
    assert len(made) == 1
    created = sum(one.operation == Operation.CREATE_MULTIPART_UPLOAD for one in events)
    aborted = sum(one.done and one.operation == Operation.ABORT_MULTIPART_UPLOAD for one in events)
    assert created == 1 + aborted, "the loser of a race leaves its multipart upload behind"
    assert len(site.s3_uploads(upload_id)) == 1


def test_uploads_asked_of_either_are_done_once(site: FaultSite, second: Victim, name: str) -> None:
    site.attach(name)
    paths = [site.file(name, f"{number}.bin", CHUNK + 1 + number) for number in range(8)]
    servers = itertools.cycle((site.server, server_of(second)))
    uploads = {}
    for path, server in zip(paths, servers, strict=False):
        answer = httpx.post(f"{server}/trigger-download/{name}", json={"file_path": str(path)}, timeout=20)
        uploads[str(answer.json()["upload_id"])] = path
    for upload_id, path in uploads.items():
        assert site.completed(upload_id, path)["attempt"] == 1
        check_happened_once(site, upload_id)


def test_one_that_slept_through_the_end_changes_nothing_when_it_wakes(
    site: FaultSite, second: Victim, name: str
) -> None:
    upload_id, path = site.begun(name, parts=3)
    # Asked of the site's own, finished by the other.
    site.plane.freeze()
    site.s3.flow()

    site.until(lambda: state_at(second, upload_id) == "completed", "the other to complete it")
    site.plane.thaw()
    again = site.file(name, "again.bin", CHUNK + 1)
    site.completed(site.trigger(name, again), again)
    assert site.completed(upload_id, path)["attempt"] == 1
    check_happened_once(site, upload_id)


def test_one_that_dies_leaves_its_uploads_to_the_other(site: FaultSite, second: Victim, name: str) -> None:
    upload_id, path = site.begun(name, parts=3)
    # Asked of the site's own, which never sees the end of it.
    site.plane.kill()
    site.s3.flow()
    site.until(lambda: state_at(second, upload_id) == "completed", "the other to complete it")
    site.restart_plane()
    assert site.completed(upload_id, path)["attempt"] == 1
    check_happened_once(site, upload_id)


@pytest.mark.slow
def test_one_that_dies_in_the_middle_of_a_completion_leaves_it_to_the_other(
    site: FaultSite, second: Victim, name: str
) -> None:
    """Both hear that every part is stored; whoever writes it down completes, and has half a minute for it."""
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
