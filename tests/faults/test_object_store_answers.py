"""Faults of the object store for parts and objects: only stored bytes count, and the upload completes.

Rule: all cases run in parallel on one agent, each with another fault; a test checks one of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.support.fault_sites import CHUNK, MIB, FaultSite
from tests.support.strict_s3 import Fault, Kind, Operation, StoreEvent

# The first test of the module waits for all the uploads.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PART: Final = Operation.UPLOAD_PART
PUT: Final = Operation.PUT_OBJECT

FAULTS: Final[dict[str, dict[str, Any]]] = {
    "error-500": {"kind": Kind.ERROR, "times": 2},
    "slow-down": {"kind": Kind.ERROR, "status": 503, "code": "SlowDown", "retry_after": 1},
    "request-timeout": {"kind": Kind.ERROR, "status": 400, "code": "RequestTimeout"},
    "stalled": {"kind": Kind.STALL, "at_byte": MIB, "seconds": 0.5},
    "reset": {"kind": Kind.RESET, "at_byte": MIB},
    "reset-at-once": {"kind": Kind.RESET, "times": 2},
    "response-lost": {"kind": Kind.LOST_RESPONSE},
    "no-etag": {"kind": Kind.NO_ETAG},
    "success-without-effect": {"kind": Kind.PRETEND},
    "corrupted-in-transit": {"kind": Kind.CORRUPT_RECEIVED, "at_byte": 1000},
    "slow": {"kind": Kind.SLOW, "bytes_per_second": 8 * MIB, "seconds": 0.2},
    "forbidden-once": {"kind": Kind.ERROR, "status": 403, "code": "AccessDenied"},
}
SIZES: Final = {PART: CHUNK + 7, PUT: 2 * MIB}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One upload at its end: as REST shows it, whether the object equals the file, the requests for its key."""

    upload: dict[str, Any]
    equal: bool
    events: list[StoreEvent]


@pytest.fixture(scope="module")
def outcomes(shared_site: FaultSite) -> Iterator[dict[str, Outcome]]:
    """One upload for every fault of a PUT of a part, and for every fault of a PUT of an object."""
    site = shared_site
    site.reset()
    client_id = "spoiled"
    site.attach(client_id)
    paths = {}
    for operation, size in SIZES.items():
        for case, fields in FAULTS.items():
            file_name = f"{operation}-{case}"
            paths[file_name] = site.file(client_id, file_name, size)
            number = 1 if operation is PART else None
            site.strict.add(Fault(operation=operation, part_number=number, key=f"*-{file_name}", **fields))
    uploads = {file_name: site.trigger(client_id, path) for file_name, path in paths.items()}
    ended = {file_name: site.ended(upload_id) for file_name, upload_id in uploads.items()}
    yield {
        file_name: Outcome(
            upload,
            upload["state"] == "completed" and site.stored(upload["upload_id"]) == paths[file_name].read_bytes(),
            site.events(upload["upload_id"]),
        )
        for file_name, upload in ended.items()
    }
    site.reset()


@pytest.mark.parametrize("operation", [PART, PUT])
@pytest.mark.parametrize("case", FAULTS)
def test_the_upload_ends_completed_and_equal_in_its_first_attempt(
    outcomes: dict[str, Outcome], operation: Operation, case: str
) -> None:
    outcome = outcomes[f"{operation}-{case}"]
    assert any(one.fault for one in outcome.events), "no request met the fault"
    assert (outcome.upload["state"], outcome.upload["error"], outcome.upload["attempt"]) == ("completed", None, 1)
    assert outcome.equal
    assert outcome.upload["proof"] == "checksum"
    made = [one for one in outcome.events if one.done and one.operation in {Operation.COMPLETE_MULTIPART_UPLOAD, PUT}]
    # A PUT of an object is repeated when its answer is lost; that makes the same object again.
    assert len(made) == 1 or operation == PUT


def test_the_agent_respects_retry_after(outcomes: dict[str, Outcome]) -> None:
    events = [one for one in outcomes[f"{PART}-slow-down"].events if one.operation == PART and one.part_number == 1]
    refused, taken = events[0], events[-1]
    assert (refused.status, taken.status) == (503, 200)
    assert taken.at - refused.at >= 1


def test_a_part_that_was_taken_whole_is_not_sent_again(outcomes: dict[str, Outcome]) -> None:
    for case in FAULTS:
        second = [one for one in outcomes[f"{PART}-{case}"].events if one.operation == PART and one.part_number == 2]
        assert [one.done for one in second] == [True]
