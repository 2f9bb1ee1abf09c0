"""REST against its own OpenAPI document, by schemathesis: generated requests, with a token and without one.

Rule: a real control plane over a real database, broker and object store. The requests are the same at each run.
"""

from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from control_plane.api.auth import create_token
from tests.support.sites import PATIENCE, Fleet, running_fleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SECRET: Final = "a secret of at least thirty-two bytes"
EXAMPLES: Final = 5
"""Requests for each operation."""

ENDLESS: Final = "/events"
CHECKS: Final = [not_a_server_error, status_code_conformance, response_schema_conformance]
BOUNDED: Final = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), {"JWT_SECRET": SECRET}) as running:
        yield running


@pytest.fixture(scope="module")
def operations(fleet: Fleet) -> list[Any]:
    """Every operation of the document, but the stream that does not end."""
    document = httpx.get(f"{fleet.site.server}/openapi.json", headers=fleet.headers, timeout=PATIENCE).json()
    return [one for one in read(document) if one.path != ENDLESS]


def read(document: dict[str, Any]) -> list[Any]:
    """The operations of a document."""
    found: list[Any] = list(schemathesis.openapi.from_dict(document).get_all_operations())
    return [one.ok() for one in found]


def open_paths() -> tuple[str, ...]:
    """What needs no token: is there a server, how does a browser sign in, and how does a device ask for its bundle."""
    return ("/health", "/health/live", "/health/ready", "/session", "/enroll", "/enroll/poll")


def test_generated_requests_with_a_token_get_answers_that_the_document_has(fleet: Fleet, operations: list[Any]) -> None:
    assert len(operations) > 60
    headers = {"Authorization": f"Bearer {create_token(SECRET, 'schemathesis', 3_600)}"}
    failures, statuses = list[str](), set[int]()
    for operation in operations:

        @BOUNDED
        @given(case=operation.as_strategy())
        def answered(case: Any) -> None:  # noqa: ANN401
            answer = case.call(base_url=fleet.site.server, headers=headers, timeout=PATIENCE)
            statuses.add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        try:
            answered()
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 (each operation is reported)
            failures.append(f"{operation.label}: {error}")
    assert failures == []
    assert {200, 201, 404, 422} <= statuses


def test_an_answer_that_the_document_lacks_is_found(fleet: Fleet, operations: list[Any]) -> None:
    """Otherwise the test above shows nothing."""
    document = httpx.get(f"{fleet.site.server}/openapi.json", headers=fleet.headers, timeout=PATIENCE).json()
    document["paths"] = {"/clients": {"get": document["paths"]["/clients"]["get"]}}
    document["paths"]["/clients"]["get"]["responses"] = {"418": {"description": "none"}}
    (operation,) = read(document)
    case = operation.Case(query={})
    answer = case.call(base_url=fleet.site.server, headers=fleet.headers, timeout=PATIENCE)
    with pytest.raises(BaseException, match=r"Undocumented HTTP status code|1 distinct failure"):
        case.validate_response(answer, checks=CHECKS)


def test_generated_requests_without_a_token_are_refused(fleet: Fleet, operations: list[Any]) -> None:
    """And change nothing: no request that is not signed in reaches a use case."""
    reached = list[str]()
    for operation in operations:
        if operation.path in open_paths():
            continue

        @settings(BOUNDED, max_examples=1)
        @given(case=operation.as_strategy())
        def refused(case: Any) -> None:  # noqa: ANN401
            case.headers.pop("Authorization", None)
            answer = case.call(base_url=fleet.site.server, timeout=PATIENCE)
            assert answer.status_code == httpx.codes.UNAUTHORIZED

        try:
            refused()
        except Exception as error:  # noqa: BLE001
            reached.append(f"{operation.label}: {error}")
    assert reached == []
