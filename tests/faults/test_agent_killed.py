"""An agent that is killed in the middle of a part sends only the parts in flight again."""

from collections import Counter

import pytest

from tests.support.fault_sites import CHUNK, FaultSite
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow

PARTS = 6


def test_killed_mid_part_it_resumes_the_same_upload_and_sends_no_finished_part_twice(
    site: FaultSite, name: str
) -> None:
    upload_id, path = site.begun(name, parts=PARTS)
    site.agents[name].kill()
    site.s3.flow()
    site.agents[name].start()
    upload = site.completed(upload_id, path)
    assert upload["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1
    # One part was in flight; what the kernel had taken of it may have arrived, unknown to the agent.
    assert site.bytes_received(upload_id) <= path.stat().st_size + CHUNK
    sent = Counter(one.part_number for one in site.events(upload_id, Operation.UPLOAD_PART) if one.done)
    assert {number: times for number, times in sent.items() if number != 2} == dict.fromkeys([1, 3, 4, 5, 6], 1)


def test_killed_with_parts_in_flight_on_every_connection(site: FaultSite, name: str) -> None:
    in_flight = 4
    agent = site.attach(name, MAX_PARALLEL_PARTS=str(in_flight))
    path = site.file(name, "big.bin", 10 * CHUNK)
    site.s3.stall_after(4 * CHUNK)
    upload_id = site.trigger(name, path)
    site.until(lambda: site.s3.stalled, "the upload to stand still")
    agent.kill()
    site.s3.flow()
    agent.start()
    upload = site.completed(upload_id, path)
    assert upload["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1
    assert site.bytes_received(upload_id) <= path.stat().st_size + in_flight * CHUNK


def test_after_a_graceful_stop_the_upload_resumes(site: FaultSite, name: str) -> None:
    upload_id, path = site.begun(name, parts=3)
    site.agents[name].terminate()
    site.until(lambda: not site.connected(name), "its goodbye")
    assert site.upload(upload_id)["reason"]["text"] == "the client is offline"
    site.s3.flow()
    site.agents[name].start()
    assert site.completed(upload_id, path)["attempt"] == 1
    assert site.bytes_received(upload_id) <= path.stat().st_size + CHUNK
