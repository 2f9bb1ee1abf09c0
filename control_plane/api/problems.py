"""Every failure has one shape: a problem document (RFC 9457), made by one handler.

Rule: `PROBLEMS` has a row for every error class of services, domain and schemas. A document describes the fault of the
request, and nothing of the inside: no stack trace, no query string, no value of a header.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from control_plane.domain.errors import BadKey, BadText, DomainError, IllegalTransition, IllegalVerb, SelectorError
from control_plane.presentation import instant
from control_plane.services.errors import (
    AmbiguousUpload,
    BadInput,
    BrokerRefused,
    ClientRefused,
    ClientSilent,
    ClocksDiffer,
    ConditionFailed,
    ConditionMissing,
    DatabaseUnavailable,
    JobExists,
    JobRefused,
    KeyReused,
    KeyTaken,
    MessengerDown,
    NotOurs,
    ObjectStoreDown,
    ObjectStoreForbids,
    ObjectStoreRefused,
    ObjectStoreUnusable,
    Permanent,
    QuotaExceeded,
    ServiceError,
    SetChanged,
    TooManyStreams,
    Transient,
    UnknownBudget,
    UnknownClient,
    UnknownDelivery,
    UnknownGroup,
    UnknownJob,
    UnknownSchedule,
    UnknownUpload,
    UnknownWebhook,
    UnsupportedRecords,
    VersionConflict,
)
from schemas.errors import BadCommand, SchemaError

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:backhaul:problem:"
_MAX_SHOWN: Final = 200
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer: an HTTP status, a title that is the same every time, and the detail of this time in one sentence.

    `name` is the end of `type`, by which programs distinguish problems; `more` are further members.
    """

    status: int
    name: str
    title: str
    detail: str | None = None
    retry_after: float | None = None
    more: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """The answer to one error class; with `public` False the error's text is only in the log."""

    status: int
    name: str
    title: str
    public: bool = True


PROBLEMS: Final[Mapping[type[Exception], Row]] = {
    ServiceError: Row(500, "internal", "The control plane met a fault of its own", public=False),
    Transient: Row(503, "unavailable", "Something that is needed is away", public=False),
    DatabaseUnavailable: Row(503, "database-unavailable", "The database cannot be used now", public=False),
    MessengerDown: Row(503, "broker-unavailable", "The broker cannot be reached now", public=False),
    BrokerRefused: Row(503, "broker-refused", "The broker takes no message of this size"),
    ObjectStoreDown: Row(503, "store-unavailable", "The object store cannot be used now", public=False),
    ObjectStoreUnusable: Row(503, "store-unavailable", "The object store cannot be used now", public=False),
    ClocksDiffer: Row(503, "store-unavailable", "The object store cannot be used now", public=False),
    TooManyStreams: Row(503, "too-many-streams", "There are too many event streams"),
    ClientSilent: Row(504, "client-silent", "The client did not answer in time"),
    Permanent: Row(500, "internal", "The control plane met a fault of its own", public=False),
    UnknownBudget: Row(404, "unknown-budget", "No such budget"),
    UnknownGroup: Row(404, "unknown-group", "No such group"),
    UnknownClient: Row(404, "unknown-client", "No such client"),
    UnknownUpload: Row(404, "unknown-upload", "No such upload"),
    UnknownSchedule: Row(404, "unknown-schedule", "No such schedule"),
    UnknownWebhook: Row(404, "unknown-webhook", "No such webhook"),
    UnknownDelivery: Row(404, "unknown-delivery", "No such delivery"),
    AmbiguousUpload: Row(409, "ambiguous-upload", "Several clients have an upload of this id"),
    NotOurs: Row(409, "not-ours", "The upload belongs to another owner"),
    UnknownJob: Row(404, "unknown-job", "No such job"),
    JobExists: Row(409, "job-exists", "Another job has this id"),
    JobRefused: Row(409, "job-state", "The job's state does not allow this"),
    ConditionMissing: Row(428, "condition-missing", "The request must name the version that it changes (If-Match)"),
    ConditionFailed: Row(412, "condition-failed", "The version that the request names is no longer the newest"),
    SetChanged: Row(409, "set-changed", "The clients are no longer those that were shown"),
    BadInput: Row(422, "bad-input", "The request cannot be obeyed"),
    QuotaExceeded: Row(429, "quota-exceeded", "The client has as many open uploads as it may"),
    KeyReused: Row(422, "idempotency-key-reused", "The Idempotency-Key was used for another request"),
    KeyTaken: Row(409, "key-taken", "The name is in use"),
    ClientRefused: Row(422, "client-refused", "The client refused"),
    ObjectStoreRefused: Row(502, "store-refused", "The object store refused", public=False),
    ObjectStoreForbids: Row(502, "store-forbids", "The object store forbids it to these credentials", public=False),
    UnsupportedRecords: Row(500, "internal", "The control plane met a fault of its own", public=False),
    VersionConflict: Row(409, "version-conflict", "Another request changed it first: ask again"),
    DomainError: Row(500, "internal", "The control plane met a fault of its own", public=False),
    BadKey: Row(422, "bad-input", "The request cannot be obeyed"),
    BadText: Row(422, "bad-input", "The request cannot be obeyed"),
    IllegalVerb: Row(409, "job-state", "The job's state does not allow this"),
    IllegalTransition: Row(409, "illegal-transition", "The upload's state does not allow this"),
    SelectorError: Row(422, "bad-selector", "The text is no selector"),
    SchemaError: Row(422, "bad-input", "The request cannot be obeyed"),
    BadCommand: Row(422, "bad-input", "The request cannot be obeyed"),
}
_NOT_JSON: Final = Problem(415, "not-json", "The body must be sent as Content-Type: application/json")
_MALFORMED: Final = Problem(400, "malformed-json", "The body is not JSON")
INTERNAL: Final = Problem(500, "internal", "The control plane met a fault of its own")


def problem_of(error: Exception) -> Problem:
    """The problem that answers `error`; a class without a row is an internal error."""
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _plain(error)
    row = next((PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS), None)
    if row is None:
        return INTERNAL
    retry_after = error.retry_after if isinstance(error, Transient) else None
    return Problem(row.status, row.name, row.title, str(error) if row.public else None, retry_after, _more(error))


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem as an HTTP answer."""
    document = {"type": URN + problem.name, "title": problem.title, "status": problem.status, **(problem.more or {})}
    if problem.detail:
        document["detail"] = problem.detail
    all_headers = dict(headers or {})
    if problem.retry_after is not None:
        all_headers["Retry-After"] = str(max(1, round(problem.retry_after)))
    return JSONResponse(document, problem.status, all_headers, MEDIA_TYPE)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """The one exception handler. An internal error stays in the request's state, where `Observe` logs it."""
    if isinstance(error, RequestValidationError) and _not_json(request, error):
        return respond(_NOT_JSON)
    problem = problem_of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        request.state.fault = error
    allow = {"Allow": _allowed(request)} if problem.status == HTTPStatus.METHOD_NOT_ALLOWED else None
    return respond(problem, allow or getattr(error, "headers", None))


def _allowed(request: Request) -> str:
    """Every method of the path (RFC 9110 section 15.5.6); the framework names those of one route only."""
    routes, scope = request.app.routes, request.scope
    allowed = {
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    }
    # `gates.HeadAsGet` answers HEAD.
    return ", ".join(method for method in _METHODS if method in allowed or (method == "HEAD" and "GET" in allowed))


def _more(error: Exception) -> Mapping[str, Any] | None:
    match error:
        case IllegalTransition() | IllegalVerb():
            return {"state": error.state}
        case SelectorError():
            return {"selector": error.text, "position": error.position}
        case UnknownClient():
            return {"client_ids": list(error.client_ids)}
        case ClientRefused() | ObjectStoreRefused():
            return {"code": error.code}
        case JobRefused():
            wakes = instant(error.next_wake_at)
            return {"state": error.state, "reason_code": error.reason_code, "next_wake_at": wakes}
        case ConditionFailed():
            return {"version": error.version}
        case SetChanged():
            counts = {"expected": error.expected, "found": error.found}
            return {**counts, "added": error.added, "removed": error.removed}
        case _:
            return None


def _plain(error: HTTPException) -> Problem:
    """A problem of the framework: no such path, no such method, a body that is no JSON."""
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:
        return _MALFORMED
    name = status.phrase.lower().replace(" ", "-").replace("'", "")
    detail = error.detail if error.detail != status.phrase else None
    return Problem(status.value, name, status.phrase, detail)


def _not_json(request: Request, error: RequestValidationError) -> bool:
    whole_body = any(tuple(detail["loc"]) == ("body",) for detail in error.errors())
    return whole_body and "json" not in request.headers.get("content-type", "")


def _invalid(error: RequestValidationError) -> Problem:
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return replace(_MALFORMED, detail=str(details[0].get("ctx", {}).get("error", "")))
    return Problem(422, "bad-input", "The request cannot be obeyed", _sentence(details))


def _sentence(details: Sequence[Mapping[str, Any]]) -> str:
    """The first error, and how many more there are."""
    first = details[0]
    place = ".".join(str(step) for step in first["loc"][1:]) or str(first["loc"][0])
    text = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    sentence = f"{place}: {text[:1].lower()}{text[1:]}{more}"
    return sentence if len(sentence) <= _MAX_SHOWN else f"{sentence[:_MAX_SHOWN]}…"
