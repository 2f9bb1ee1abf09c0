"""A killed control plane loses no trigger that it answered, and no part is sent again."""

import json
import sqlite3
import threading
from pathlib import Path

import httpx
import pytest

from tests.support.fault_sites import CHUNK, FaultSite
from tests.support.strict_s3 import Fault, Kind, Operation

pytestmark = pytest.mark.slow


def test_parts_stored_while_the_control_plane_is_dead_count(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=6)
    key = site.upload(upload_id)["s3_key"]
    site.plane.kill()
    site.s3.flow()
    parts = Operation.UPLOAD_PART
    # The URLs cover the whole file: the agent needs no control plane to send the rest.
    site.until(
        lambda: sum(one.done for one in site.strict.events() if one.key == key and one.operation == parts) == 6,
        "every part, while the control plane is dead",
    )
    site.restart_plane()
    # Agents publish a hello within half a minute of the birth message; on a new connection at once.
    site.mqtt.cut()
    upload = site.completed(upload_id, path)
    assert upload["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1
    assert site.bytes_received(upload_id) == path.stat().st_size


def test_every_answered_trigger_survives_a_kill(site: FaultSite, name: str) -> None:
    site.attach(name).terminate()
    path = site.file(name, "small.bin", 1000)
    answered: list[str] = []

    def trigger() -> None:
        body = {"file_path": str(path)}
        try:
            while True:
                answer = httpx.post(f"{site.server}/trigger-download/{name}", json=body, timeout=5)
                if answer.status_code == httpx.codes.OK:
                    answered.append(str(answer.json()["upload_id"]))
        except (httpx.TransportError, json.JSONDecodeError):
            return

    callers = [threading.Thread(target=trigger) for _ in range(4)]
    for caller in callers:
        caller.start()
    site.until(lambda: len(answered) >= 10, "answers")
    site.plane.kill()
    for caller in callers:
        caller.join()
    assert set(answered) <= stored_uploads(site)
    site.restart_plane()
    site.agents[name].start()
    for upload_id in answered:
        assert site.ended(upload_id)["state"] == "completed"


def stored_uploads(site: FaultSite) -> set[str]:
    """The upload ids in the database file that the killed process left."""
    path = Path(site.plane.settings["DATABASE_URL"].removeprefix("sqlite:///"))
    with sqlite3.connect(path) as database:
        found = {str(row[0]) for row in database.execute("SELECT upload_id FROM uploads")}
    database.close()
    return found


def test_a_kill_during_a_completion_completes_once(site: FaultSite, name: str) -> None:
    complete = Operation.COMPLETE_MULTIPART_UPLOAD
    site.attach(name)
    path = site.file(name, "big.bin", CHUNK + 1)
    site.strict.add(Fault(kind=Kind.HELD, operation=complete, key=f"*/{name}/*"))
    upload_id = site.trigger(name, path)
    site.until(lambda: site.upload(upload_id)["state"] == "completing", "the completion")
    site.plane.kill()
    site.strict.clear()
    site.restart_plane()
    # The lease of a completion is 30 s; after that a control plane may claim it again.
    site.ended(upload_id, 60)
    upload = site.completed(upload_id, path)
    assert upload["attempt"] == 1
    assert sum(one.done for one in site.events(upload_id, complete)) == 1
