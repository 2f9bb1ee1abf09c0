"""A file is deleted or moved after its upload by the real programs, and only when the object is proven.

Rule: the agent is killed at each call that renames, deletes or makes something durable; afterwards the file is either
where it was, and reported so, or gone with its object stored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.crash_points import Point, Tracer
from tests.support.fault_sites import FaultSite, running_site

CLIENT = "outbox"
ALLOWED = {"ALLOW_AFTER": "delete,move", "AFTER_GRACE": "0"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FaultSite]:
    with running_site(tmp_path, {"CLIENT_TIMEOUT": "5"}) as site:
        yield site


def act(site: FaultSite, upload_id: str) -> dict[str, Any]:
    """What became of the file, once the device has reported it."""

    def reported() -> bool:
        return bool(site.upload(upload_id)["after"]["outcome"] != "pending")

    site.until(reported, lambda: f"the receipt, last {site.upload(upload_id)}\n{site.log_tail()}")
    found: dict[str, Any] = site.upload(upload_id)["after"]
    return found


def test_a_proven_file_is_deleted_or_moved_and_the_receipt_reaches_rest(site: FaultSite) -> None:
    site.attach(CLIENT, **ALLOWED)
    first, second = site.file(CLIENT, "a.bin", 6 * 2**20), site.file(CLIENT, "b.bin", 1000)
    content, done = second.read_bytes(), second.parent / "done"
    done.mkdir()
    deleted = act(site, site.trigger(CLIENT, first, after="delete"))
    moved = act(site, site.trigger(CLIENT, second, after=f"move:{done}"))
    assert (deleted["outcome"], moved["outcome"]) == ("deleted", "moved"), (deleted, moved)
    assert not first.exists()
    assert (done / "b.bin").read_bytes() == content
    assert sorted(one.name for one in first.parent.iterdir()) == ["done"]


def test_a_device_that_does_not_allow_it_refuses_before_anything_is_sent(site: FaultSite) -> None:
    site.attach(CLIENT)
    path = site.file(CLIENT, "a.bin", 1000)
    upload_id = site.trigger(CLIENT, path, after="delete")
    upload = site.ended(upload_id)
    assert (upload["state"], upload["error"]) == ("rejected", "after_not_allowed")
    assert upload["after"]["outcome"] == "kept"
    assert site.bytes_received(upload_id) == 0
    assert path.exists()


def test_a_receipt_waits_for_a_control_plane_that_is_away(site: FaultSite) -> None:
    site.attach(CLIENT, **{**ALLOWED, "AFTER_GRACE": "3"})
    path = site.file(CLIENT, "a.bin", 1000)
    upload_id = site.trigger(CLIENT, path, after="delete")
    site.ended(upload_id)
    site.until(lambda: not path.exists(), "the file to be hidden")
    site.plane.kill()
    site.until(lambda: not list(path.parent.iterdir()), "the file to be deleted")
    site.restart_plane()
    assert act(site, upload_id)["outcome"] == "deleted"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("asked", ["delete", "move"])
def test_an_agent_killed_at_any_step_loses_no_file(site: FaultSite, strace: str, asked: str) -> None:
    """Of a rename strace sees the old name, of an unlink the name; the folder is made durable with fsync."""
    agent = site.attach(CLIENT, **ALLOWED)
    folder = site.file(CLIENT, "warm.bin", 10).parent
    (folder / "warm.bin").unlink()
    (folder / "done").mkdir()
    points = [("fdatasync", n) for n in range(1, 9)] + [("fsync", 1), ("fsync", 2)]
    points += [("unlinkat", 1)] if asked == "delete" else [("renameat2", 2)]
    points += [("renameat2", 1)]
    struck = 0
    for number, (call, count) in enumerate(points):
        agent.kill()
        path, log = site.file(CLIENT, f"{number}.bin", 100_000), site.directory / "strace.log"
        content = path.read_bytes()
        paths = (site.directory / CLIENT / "state" / "journal",) if call == "fdatasync" else (folder,)
        tracer = Tracer(strace, log, Point(call, paths, count))
        agent.start(*tracer.command)
        upload_id = site.trigger(CLIENT, path, after="delete" if asked == "delete" else f"move:{folder}/done")

        def over(upload_id: str = upload_id) -> bool:
            return not agent.alive or site.upload(upload_id)["after"]["outcome"] != "pending"

        site.until(over, f"{call} {count}", 240)
        struck += not agent.alive
        there = [one for one in (*folder.iterdir(), *(folder / "done").iterdir()) if one.is_file()]
        stored = site.upload(upload_id)["state"] == "completed"
        assert stored or any(one.read_bytes() == content for one in there), (call, count)
        agent.kill()
        agent.start()
        site.mqtt.cut()
        found = act(site, upload_id)
        assert found["outcome"] == ("deleted" if asked == "delete" else "moved"), (call, count, found)
        assert not path.exists()
        left = [one.name for one in folder.iterdir() if one.is_file()]
        assert not left, (call, count, left)
        if asked == "move":
            assert (folder / "done" / path.name).read_bytes() == content
    assert struck >= len(points) // 2, struck
