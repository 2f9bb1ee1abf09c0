"""URLs that run out are renewed for the parts that are missing; that is no new attempt and sends nothing twice."""

import time
from collections.abc import Iterator

import pytest

from tests.support.fault_sites import CHUNK, MIB, FaultSite, running_site
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow

LIFE = 8


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    """A site whose URLs live for eight seconds, six of which an agent wants left before it begins a part."""
    with running_site(tmp_path_factory.mktemp("brief"), {"PRESIGNED_URL_EXPIRY": str(LIFE)}) as site:
        yield site


def check_renewed(site: FaultSite, upload_id: str, size: int, in_vain: int) -> None:
    assert len(site.s3_uploads(upload_id)) == 1
    assert site.bytes_received(upload_id) <= size + in_vain * CHUNK
    stored = [one.part_number for one in site.events(upload_id, Operation.UPLOAD_PART) if one.done]
    assert len(stored) == len(set(stored)), "a finished part was sent again"


def test_a_slow_device_is_granted_again_and_again(brief: FaultSite, name: str) -> None:
    brief.healed()
    brief.attach(name, MAX_PARALLEL_PARTS="2", MAX_BYTES_PER_SECOND=str(4 * MIB))
    path = brief.file(name, "slow.bin", 8 * CHUNK)
    began = time.monotonic()
    upload_id = brief.trigger(name, path)
    assert brief.completed(upload_id, path)["attempt"] == 1
    assert time.monotonic() - began > LIFE, "no URL ran out"
    check_renewed(brief, upload_id, path.stat().st_size, in_vain=0)


def test_urls_that_ran_out_while_the_device_slept_are_renewed(brief: FaultSite, name: str) -> None:
    brief.healed()
    upload_id, path = brief.begun(name, parts=4)
    brief.agents[name].freeze()
    slept = time.monotonic()
    brief.until(lambda: time.monotonic() - slept > LIFE, "the URLs to run out")
    brief.agents[name].thaw()
    brief.s3.flow()
    assert brief.completed(upload_id, path)["attempt"] == 1
    check_renewed(brief, upload_id, path.stat().st_size, in_vain=1)
