"""A sealed file arrives whole and opens with age, though its parts arrive in any order and its agent is killed."""

import random

import pytest

from tests.support.age import Identity, new_identity
from tests.support.fault_sites import CHUNK, FaultSite
from tests.support.strict_s3 import Fault, Kind, Operation

pytestmark = pytest.mark.slow

PARTS = 52


@pytest.fixture
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Who can open the objects of a test."""
    return new_identity(tmp_path_factory.mktemp("age"))


@pytest.mark.timeout(240)
def test_age_opens_an_object_of_52_parts_that_arrived_in_random_order_across_a_kill(
    site: FaultSite, name: str, identity: Identity
) -> None:
    agent = site.attach(name, MAX_PARALLEL_PARTS="4")
    path = site.file(name, "till.bin", PARTS * CHUNK - 100_000)
    shuffled = random.sample(range(1, PARTS + 1), PARTS // 2)
    # The first try of these parts is refused, and each is sent again after a random pause.
    site.strict.add(
        *(
            Fault(kind=Kind.ERROR, operation=Operation.UPLOAD_PART, part_number=number, key="*.age")
            for number in shuffled
        )
    )
    site.s3.stall_after(PARTS // 2 * CHUNK)
    upload_id = site.trigger(name, path, options={"encrypt_to": [identity.recipient]})
    site.until(lambda: site.s3.stalled, "the upload to stand still")
    agent.kill()
    site.s3.flow()
    agent.start()
    upload = site.ended(upload_id, 180)
    assert (upload["state"], upload["attempt"], upload["total_parts"]) == ("completed", 1, PARTS), upload
    assert upload["s3_key"].endswith("till.bin.age")
    assert identity.opened(site.stored(upload_id)) == path.read_bytes()
    arrived = [one.part_number for one in site.events(upload_id, Operation.UPLOAD_PART) if one.done]
    assert arrived != sorted(arrived, key=lambda number: number or 0)


def test_a_file_that_changed_while_the_agent_was_down_is_sealed_anew_under_another_key(
    site: FaultSite, name: str, identity: Identity
) -> None:
    agent = site.attach(name, MAX_PARALLEL_PARTS="1")
    path = site.file(name, "till.bin", 3 * CHUNK)
    site.s3.stall_after(CHUNK + CHUNK // 2)
    upload_id = site.trigger(name, path, options={"encrypt_to": [identity.recipient]})
    site.until(lambda: site.s3.stalled, "the upload to stall in the middle of a part")
    agent.kill()
    with path.open("r+b") as file:
        file.seek(CHUNK + CHUNK // 4)
        file.write(b"changed")
    site.s3.flow()
    agent.start()
    upload = site.ended(upload_id)
    assert (upload["state"], upload["attempt"]) == ("completed", 2), upload
    assert identity.opened(site.stored(upload_id)) == path.read_bytes()
