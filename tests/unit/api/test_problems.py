"""Every failure has one answer: each error class of services, domain and schemas reaches its HTTP status."""

import importlib
import inspect
from collections.abc import Iterator

import pytest

from control_plane.api.problems import PROBLEMS, Row, problem_of
from control_plane.domain.errors import IllegalTransition, IllegalVerb, SelectorError
from control_plane.domain.explanations.problems import PROBLEMS as EXPLAINED
from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.model import State
from control_plane.services.errors import (
    AmbiguousUpload,
    ClientRefused,
    ClocksDiffer,
    ConditionFailed,
    DeviceBarred,
    JobRefused,
    ObjectStoreDown,
    ObjectStoreRefused,
    SetChanged,
    SlowDown,
    Transient,
    UnknownBatch,
    UnknownClient,
    UnknownDelivery,
    UnknownEnrollment,
    UnknownUpload,
)
from schemas.errors import BadCommand
from tests.support.fake_services import NOW, FakeServices, http_to, make_api

MODULES = ("control_plane.services.errors", "control_plane.domain.errors", "schemas.errors")
EXPECTED = {
    "ServiceError": 500,
    "Transient": 503,
    "DatabaseUnavailable": 503,
    "MessengerDown": 503,
    "AccountsDown": 503,
    "SlowDown": 429,
    "DeviceBarred": 409,
    "DeviceRefused": 409,
    "UnknownDevice": 404,
    "UnknownBatch": 404,
    "UnknownEnrollment": 404,
    "BrokerRefused": 503,
    "ObjectStoreDown": 503,
    "ObjectStoreUnusable": 503,
    "ClocksDiffer": 503,
    "ClientSilent": 504,
    "UnknownWebhook": 404,
    "UnknownDelivery": 404,
    "TooManyStreams": 503,
    "Permanent": 500,
    "UnknownClient": 404,
    "UnknownBudget": 404,
    "UnknownGroup": 404,
    "UnknownUpload": 404,
    "AmbiguousUpload": 409,
    "UntrustedKeys": 409,
    "OperatorNeeded": 409,
    "BadInput": 422,
    "UnknownJob": 404,
    "UnknownSchedule": 404,
    "UnknownToken": 404,
    "UnsupportedRecords": 500,
    "Forbidden": 403,
    "IllegalVerb": 409,
    "JobExists": 409,
    "JobRefused": 409,
    "ConditionMissing": 428,
    "ConditionFailed": 412,
    "SetChanged": 409,
    "NotOurs": 409,
    "KeyReused": 422,
    "KeyTaken": 409,
    "QuotaExceeded": 429,
    "ClientRefused": 422,
    "ObjectStoreRefused": 502,
    "ObjectStoreForbids": 502,
    "VersionConflict": 409,
    "DomainError": 500,
    "SelectorError": 422,
    "IllegalTransition": 409,
    "BadKey": 422,
    "BadText": 422,
    "SchemaError": 422,
    "BadCommand": 422,
}


def every_error() -> Iterator[type[Exception]]:
    """Each exception class that one of the modules defines."""
    for name in MODULES:
        module = importlib.import_module(name)
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Exception) and kind.__module__ == name:
                yield kind


def one_of(kind: type[Exception]) -> Exception:
    """An error of this class, with the arguments that its constructor needs."""
    special: dict[type[Exception], Exception] = {
        UnknownClient: UnknownClient("restaurant-9"),
        UnknownUpload: UnknownUpload("upload-9"),
        UnknownDelivery: UnknownDelivery("w", 9),
        AmbiguousUpload: AmbiguousUpload("upload-9", ["a", "b"]),
        ClocksDiffer: ClocksDiffer(3600.0),
        DeviceBarred: DeviceBarred("restaurant-9", "key_alarm"),
        SlowDown: SlowDown(10),
        UnknownBatch: UnknownBatch("9f2c4b1d7e6a5038"),
        UnknownEnrollment: UnknownEnrollment(),
        JobRefused: JobRefused("a job that is completed cannot be paused", "completed", Reason("sent", "3 files"), NOW),
        ConditionFailed: ConditionFailed(3),
        SetChanged: SetChanged(2, 3, ["c"], []),
        ClientRefused: ClientRefused("path_not_allowed", "outside"),
        IllegalVerb: IllegalVerb("paused", "completed"),
        IllegalTransition: IllegalTransition("cancelled", State.COMPLETING),
        SelectorError: SelectorError("a=b,", 4, "expected a key"),
        BadCommand: BadCommand("bad", "m", "a", "bad_request"),
    }
    return special.get(kind) or kind("a text")


def test_every_error_class_has_a_row() -> None:
    assert {kind.__name__ for kind in every_error() if kind not in PROBLEMS} == set()


@pytest.mark.parametrize("kind", [*every_error()], ids=lambda kind: kind.__name__)
async def test_every_error_class_gets_its_http_answer(kind: type[Exception]) -> None:
    services = FakeServices()
    services.fault = one_of(kind)
    async with http_to(make_api(services)) as http:
        answer = await http.get("/status/restaurant-1")
    document = answer.json()
    row: Row = PROBLEMS[kind]
    assert answer.status_code == EXPECTED[kind.__name__] == document["status"] == row.status
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["title"] == EXPLAINED[row.code].meaning
    assert document["type"] == f"/help/reasons/{row.code}"
    assert ("Retry-After" in answer.headers) == issubclass(kind, Transient)


def test_one_name_means_one_status_and_title() -> None:
    meanings = {(row.code, row.status, EXPLAINED[row.code].meaning) for row in PROBLEMS.values()}
    assert len(meanings) == len({row.code for row in PROBLEMS.values()})


async def test_an_internal_error_shows_no_details() -> None:
    services = FakeServices()
    services.fault = RuntimeError("hunter2 at /etc/secret")
    async with http_to(make_api(services)) as http:
        answer = await http.get("/clients")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text


async def test_an_unavailable_object_store_gives_retry_after_and_no_address() -> None:
    services = FakeServices()
    services.fault = ObjectStoreDown("https://me:hunter2@10.0.0.7 timed out", retry_after=17)
    async with http_to(make_api(services)) as http:
        answer = await http.get("/uploads")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "17")
    assert "10.0.0.7" not in answer.text


def test_codes_and_states_are_separate_members() -> None:
    assert problem_of(one_of(ClientRefused)).more == {"code": "path_not_allowed"}
    assert problem_of(ObjectStoreRefused("no", "AccessDenied")).more == {"code": "AccessDenied"}
    assert problem_of(one_of(IllegalTransition)).more == {"state": "completing"}
    reason = {"code": "sent", "text": "3 files", "next_wake_at": "2025-11-01T10:00:00.000Z"}
    assert problem_of(one_of(JobRefused)).more == {"state": "completed", "reason": reason}
    assert problem_of(one_of(ConditionFailed)).more == {"version": 3}
    assert problem_of(one_of(SetChanged)).more == {"expected": 2, "found": 3, "added": ["c"], "removed": []}


async def test_an_unknown_path_or_method_is_a_problem_document() -> None:
    async with http_to(make_api(FakeServices())) as http:
        nowhere = await http.get("/nowhere")
        unknown_method = await http.put("/clients/restaurant-1")
    assert (nowhere.status_code, nowhere.json()["title"]) == (404, "Not Found")
    assert (unknown_method.status_code, unknown_method.headers["Allow"]) == (405, "GET, HEAD, DELETE")
    assert {answer.headers["content-type"] for answer in (nowhere, unknown_method)} == {"application/problem+json"}
