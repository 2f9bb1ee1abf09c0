"""Expired URLs are renewed for the missing parts, in the same attempt, and no finished part is sent again."""

import time
from collections.abc import Iterator

import pytest

from tests.support.fault_sites import CHUNK, MIB, FaultSite, running_site
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow

LIFE = 8


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    """A site whose URLs expire after eight seconds; an agent begins a part only with six seconds left."""
    with running_site(tmp_path_factory.mktemp("brief"), {"PRESIGNED_URL_EXPIRY": str(LIFE)}) as site:
        yield site


def check_renewed(site: FaultSite, upload_id: str, size: int, repeated: int) -> None:
    assert len(site.s3_uploads(upload_id)) == 1
    assert site.bytes_received(upload_id) <= size + repeated * CHUNK
    stored = [one.part_number for one in site.events(upload_id, Operation.UPLOAD_PART) if one.done]
    assert len(stored) == len(set(stored)), "a finished part was sent again"


def test_expired_urls_of_a_slow_device_are_renewed(brief: FaultSite, name: str) -> None:
    brief.reset()
    brief.attach(name, MAX_PARALLEL_PARTS="2", MAX_BYTES_PER_SECOND=str(4 * MIB))
    path = brief.file(name, "slow.bin", 8 * CHUNK)
    began = time.monotonic()
    upload_id = brief.trigger(name, path)
    assert brief.completed(upload_id, path)["attempt"] == 1
    assert time.monotonic() - began > LIFE, "no URL expired"
    check_renewed(brief, upload_id, path.stat().st_size, repeated=0)


def test_urls_that_expired_during_a_freeze_are_renewed(brief: FaultSite, name: str) -> None:
    brief.reset()
    upload_id, path = brief.begun(name, parts=4)
    brief.agents[name].freeze()
    frozen_at = time.monotonic()
    brief.until(lambda: time.monotonic() - frozen_at > LIFE, "the URLs to expire")
    brief.agents[name].thaw()
    brief.s3.flow()
    assert brief.completed(upload_id, path)["attempt"] == 1
    check_renewed(brief, upload_id, path.stat().st_size, repeated=1)
