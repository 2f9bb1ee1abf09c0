"""Object stores that answer late, or refuse for a while: no attempt is lost, and no byte is sent twice."""

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.fault_sites import CHUNK, MIB, FaultSite
from tests.support.strict_s3 import Operation, Quirk

WRITES: Final = frozenset({Operation.PUT_OBJECT, Operation.UPLOAD_PART})
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def polite(site: FaultSite) -> Iterator[FaultSite]:
    """The site; the object store has no bad manners after the test."""
    yield site
    site.strict.behave()


@pytest.mark.parametrize("quirk", [Quirk.VISIBLE_LATE, Quirk.REMEMBERED_404])
def test_an_object_that_is_shown_after_four_seconds_is_made_once(polite: FaultSite, name: str, quirk: Quirk) -> None:
    """The kind: attempts spent with no time between them, on what lasts a second."""
    site = polite
    site.attach(name)
    paths = {size: site.file(name, f"{size}.bin", size) for size in (2 * MIB, 2 * CHUNK)}
    site.strict.behave(quirk)
    uploads = {size: site.trigger(name, path) for size, path in paths.items()}
    for size, upload_id in uploads.items():
        assert site.completed(upload_id, paths[size])["attempt"] == 1
        assert sum(one.received for one in site.events(upload_id) if one.operation in WRITES) == size
        assert len([one for one in site.events(upload_id, Operation.DELETE_OBJECT) if one.done]) == 0


def test_an_upload_under_way_waits_for_new_credentials(polite: FaultSite, name: str) -> None:
    """The kind: the side that knows least decides that a refusal is final."""
    site = polite
    upload_id, path = site.begun(name, parts=3)
    site.strict.behave(Quirk.TOKEN_ENDED)
    site.s3.flow()
    site.until(lambda: "ExpiredToken" in str(site.upload(upload_id)["reason"]), "the reason")
    upload = site.upload(upload_id)
    assert (upload["state"] in {"queued", "dispatched", "in_progress"}, upload["attempt"]) == (True, 1)
    site.strict.behave()
    assert site.completed(upload_id, path)["attempt"] == 1


def test_an_object_without_a_token_is_a_named_finding_in_the_first_attempt(polite: FaultSite, name: str) -> None:
    site = polite
    site.attach(name)
    path = site.file(name, "large.bin", 2 * CHUNK)
    site.strict.behave(Quirk.DROPS_METADATA_OF_MULTIPART)
    upload_id = site.trigger(name, path)
    site.until(lambda: (site.upload(upload_id)["reason"] or {}).get("code") == "object_without_token", "the finding")
    upload = site.upload(upload_id)
    assert (upload["state"], upload["attempt"]) == ("completing", 1)
    assert "drops the metadata of CreateMultipartUpload" in upload["reason"]["text"]
