"""Faults of CompleteMultipartUpload: after every answer the upload is completed once, and the object is the file.

Rule: all cases run in parallel; a test checks one of them. What the object store did is read from its log.
"""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.faults.test_object_store_answers import Outcome
from tests.support.fault_sites import CHUNK, FaultSite
from tests.support.strict_s3 import Fault, Kind, Operation

# The first test of the module waits for all the uploads.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COMPLETE: Final = Operation.COMPLETE_MULTIPART_UPLOAD

FAULTS: Final[dict[str, dict[str, Any]]] = {
    "error-in-200": {"kind": Kind.ERROR_IN_200},
    "error-in-200-though-done": {"kind": Kind.ERROR_IN_200, "done": True},
    "empty-200": {"kind": Kind.EMPTY_200},
    "empty-200-though-done": {"kind": Kind.EMPTY_200, "done": True},
    "response-lost": {"kind": Kind.LOST_RESPONSE},
    "reset-before": {"kind": Kind.RESET},
    "error-500": {"kind": Kind.ERROR},
    "error-500-though-done": {"kind": Kind.ERROR, "done": True},
    "slow-down": {"kind": Kind.ERROR, "status": 503, "code": "SlowDown", "retry_after": 1},
    "slow": {"kind": Kind.SLOW, "seconds": 1.5},
    "no-such-upload": {"kind": Kind.ERROR, "status": 404, "code": "NoSuchUpload"},
    "no-such-upload-though-done": {"kind": Kind.ERROR, "status": 404, "code": "NoSuchUpload", "done": True},
    "success-without-effect": {"kind": Kind.PRETEND},
    "page-of-an-ingress": {"kind": Kind.PAGE, "status": 404, "times": 2},
    "key-revoked-for-a-while": {"kind": Kind.ERROR, "status": 403, "code": "InvalidAccessKeyId", "times": 2},
}


@pytest.fixture(scope="module")
def outcomes(shared_site: FaultSite) -> Iterator[dict[str, Outcome]]:
    """One upload for every faulty answer to a Complete, by case."""
    site = shared_site
    site.reset()
    client_id = "completing"
    site.attach(client_id)
    paths = {case: site.file(client_id, case, CHUNK + 7) for case in FAULTS}
    # The time of day precedes the file name in a key: with a digit before it, `slow` does not match `error-slow`.
    site.strict.add(*(Fault(operation=COMPLETE, key=f"*[0-9]-{case}", **fields) for case, fields in FAULTS.items()))
    uploads = {case: site.trigger(client_id, path) for case, path in paths.items()}
    ended = {case: site.ended(upload_id) for case, upload_id in uploads.items()}
    yield {
        case: Outcome(
            upload,
            upload["state"] == "completed" and site.stored(upload["upload_id"]) == paths[case].read_bytes(),
            site.events(upload["upload_id"]),
        )
        for case, upload in ended.items()
    }
    site.reset()


@pytest.mark.parametrize("case", FAULTS)
def test_a_completion_in_doubt_completes_once_in_the_same_attempt(outcomes: dict[str, Outcome], case: str) -> None:
    outcome = outcomes[case]
    assert any(one.fault for one in outcome.events), "no request met the fault"
    assert (outcome.upload["state"], outcome.upload["error"], outcome.upload["attempt"]) == ("completed", None, 1)
    assert outcome.equal
    assert sum(one.done for one in outcome.events if one.operation == COMPLETE) == 1


def test_a_completion_in_doubt_sends_no_part_again(outcomes: dict[str, Outcome]) -> None:
    sent = {case: sum(one.operation == Operation.UPLOAD_PART for one in outcomes[case].events) for case in FAULTS}
    assert sent == dict.fromkeys(FAULTS, 2)


def test_a_cancel_during_the_completion_is_refused(site: FaultSite, name: str) -> None:
    site.attach(name)
    path = site.file(name, "late.bin", CHUNK + 1)
    site.strict.add(Fault(kind=Kind.HELD, operation=COMPLETE, key=f"*/{name}/*"))
    upload_id = site.trigger(name, path)
    site.until(lambda: site.upload(upload_id)["state"] == "completing", "the completion")
    assert site.post(f"/uploads/{upload_id}/cancel").status_code == 409
    site.strict.clear()
    site.completed(upload_id, path)
    assert not [one for one in site.events(upload_id) if one.operation == Operation.ABORT_MULTIPART_UPLOAD and one.done]
