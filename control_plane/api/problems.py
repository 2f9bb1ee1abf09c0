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

from control_plane.domain.errors import (
    BadKey,
    BadText,
    DomainError,
    Forbidden,
    IllegalTransition,
    IllegalVerb,
    SelectorError,
)
from control_plane.domain.explanations.problems import PROBLEMS as EXPLAINED
from control_plane.domain.reasons import ProblemCode
from control_plane.presentation import reason_document
from control_plane.services.errors import (
    AccountsDown,
    AmbiguousUpload,
    BadInput,
    BrokerRefused,
    ClientRefused,
    ClientSilent,
    ClocksDiffer,
    ConditionFailed,
    ConditionMissing,
    DatabaseUnavailable,
    DeviceBarred,
    DeviceRefused,
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
    OperatorNeeded,
    Permanent,
    QuotaExceeded,
    ServiceError,
    SetChanged,
    SlowDown,
    TooManyStreams,
    Transient,
    UnknownBatch,
    UnknownBudget,
    UnknownClient,
    UnknownDelivery,
    UnknownDevice,
    UnknownEnrollment,
    UnknownGroup,
    UnknownJob,
    UnknownSchedule,
    UnknownToken,
    UnknownUpload,
    UnknownWebhook,
    UnsupportedRecords,
    UntrustedKeys,
    VersionConflict,
)
from schemas.errors import BadCommand, SchemaError

MEDIA_TYPE: Final = "application/problem+json"
TYPES: Final = "/help/reasons/"
"""Before the code in `type`: a reference to the page of the code, on this server (RFC 9457 section 3.1.1)."""

_MAX_SHOWN: Final = 200
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class Problem:
    """One answer: an HTTP status, and the detail of this time in one sentence.

    `code` is the end of `type`, by which programs distinguish problems. `title` is the same every time: without one of
    its own the problem has the meaning of its code. `more` are further members.
    """

    status: int
    code: str
    detail: str | None = None
    retry_after: float | None = None
    more: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The meaning of the code."""
        row = EXPLAINED.get(self.code)
        return HTTPStatus(self.status).phrase if row is None else row.meaning


@dataclass(frozen=True, slots=True)
class Row:
    """The answer to one error class; with `public` False the error's text is only in the log."""

    status: int
    code: ProblemCode
    public: bool = True


PROBLEMS: Final[Mapping[type[Exception], Row]] = {
    ServiceError: Row(500, ProblemCode.INTERNAL, public=False),
    Transient: Row(503, ProblemCode.UNAVAILABLE, public=False),
    DatabaseUnavailable: Row(503, ProblemCode.DATABASE_UNAVAILABLE, public=False),
    MessengerDown: Row(503, ProblemCode.BROKER_UNAVAILABLE, public=False),
    BrokerRefused: Row(503, ProblemCode.BROKER_REFUSED),
    ObjectStoreDown: Row(503, ProblemCode.STORE_UNAVAILABLE, public=False),
    ObjectStoreUnusable: Row(503, ProblemCode.STORE_UNAVAILABLE, public=False),
    ClocksDiffer: Row(503, ProblemCode.STORE_UNAVAILABLE, public=False),
    TooManyStreams: Row(503, ProblemCode.TOO_MANY_STREAMS),
    ClientSilent: Row(504, ProblemCode.CLIENT_SILENT),
    Permanent: Row(500, ProblemCode.INTERNAL, public=False),
    UnknownBudget: Row(404, ProblemCode.UNKNOWN_BUDGET),
    UnknownDevice: Row(404, ProblemCode.UNKNOWN_DEVICE),
    UnknownBatch: Row(404, ProblemCode.UNKNOWN_BATCH),
    UnknownEnrollment: Row(404, ProblemCode.UNKNOWN_ENROLLMENT),
    SlowDown: Row(429, ProblemCode.RATE_LIMITED),
    DeviceRefused: Row(409, ProblemCode.DEVICE_STATE),
    DeviceBarred: Row(409, ProblemCode.DEVICE_BARRED),
    AccountsDown: Row(503, ProblemCode.UNAVAILABLE),
    UnknownGroup: Row(404, ProblemCode.UNKNOWN_GROUP),
    UnknownClient: Row(404, ProblemCode.UNKNOWN_CLIENT),
    UnknownUpload: Row(404, ProblemCode.UNKNOWN_UPLOAD),
    UnknownSchedule: Row(404, ProblemCode.UNKNOWN_SCHEDULE),
    UnknownToken: Row(404, ProblemCode.UNKNOWN_TOKEN),
    UnknownWebhook: Row(404, ProblemCode.UNKNOWN_WEBHOOK),
    UnknownDelivery: Row(404, ProblemCode.UNKNOWN_DELIVERY),
    AmbiguousUpload: Row(409, ProblemCode.AMBIGUOUS_UPLOAD),
    NotOurs: Row(409, ProblemCode.NOT_OURS),
    UnknownJob: Row(404, ProblemCode.UNKNOWN_JOB),
    JobExists: Row(409, ProblemCode.JOB_EXISTS),
    JobRefused: Row(409, ProblemCode.JOB_STATE),
    ConditionMissing: Row(428, ProblemCode.CONDITION_MISSING),
    ConditionFailed: Row(412, ProblemCode.CONDITION_FAILED),
    SetChanged: Row(409, ProblemCode.SET_CHANGED),
    UntrustedKeys: Row(409, ProblemCode.UNTRUSTED_KEYS),
    OperatorNeeded: Row(409, ProblemCode.NEEDS_OPERATOR_SIGNATURE),
    BadInput: Row(422, ProblemCode.BAD_INPUT),
    QuotaExceeded: Row(429, ProblemCode.QUOTA_EXCEEDED),
    KeyReused: Row(422, ProblemCode.KEY_REUSED),
    KeyTaken: Row(409, ProblemCode.KEY_TAKEN),
    ClientRefused: Row(422, ProblemCode.CLIENT_REFUSED),
    ObjectStoreRefused: Row(502, ProblemCode.STORE_REFUSED, public=False),
    ObjectStoreForbids: Row(502, ProblemCode.STORE_FORBIDS, public=False),
    UnsupportedRecords: Row(500, ProblemCode.INTERNAL, public=False),
    VersionConflict: Row(409, ProblemCode.VERSION_CONFLICT),
    DomainError: Row(500, ProblemCode.INTERNAL, public=False),
    BadKey: Row(422, ProblemCode.BAD_INPUT),
    BadText: Row(422, ProblemCode.BAD_INPUT),
    Forbidden: Row(403, ProblemCode.FORBIDDEN),
    IllegalVerb: Row(409, ProblemCode.JOB_STATE),
    IllegalTransition: Row(409, ProblemCode.ILLEGAL_TRANSITION),
    SelectorError: Row(422, ProblemCode.BAD_SELECTOR),
    SchemaError: Row(422, ProblemCode.BAD_INPUT),
    BadCommand: Row(422, ProblemCode.BAD_INPUT),
}
_NOT_JSON: Final = Problem(415, ProblemCode.NOT_JSON)
_MALFORMED: Final = Problem(400, ProblemCode.MALFORMED_JSON)
INTERNAL: Final = Problem(500, ProblemCode.INTERNAL)


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
    return Problem(row.status, row.code, str(error) if row.public else None, retry_after, _more(error))


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem as an HTTP answer."""
    document = {"type": TYPES + problem.code, "title": problem.title, "status": problem.status, **(problem.more or {})}
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
            return {"state": error.state, "reason": reason_document(error.reason, error.next_wake_at)}
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
    return Problem(status.value, name, detail)


def _not_json(request: Request, error: RequestValidationError) -> bool:
    whole_body = any(tuple(detail["loc"]) == ("body",) for detail in error.errors())
    return whole_body and "json" not in request.headers.get("content-type", "")


def _invalid(error: RequestValidationError) -> Problem:
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return replace(_MALFORMED, detail=str(details[0].get("ctx", {}).get("error", "")))
    return Problem(422, ProblemCode.BAD_INPUT, _sentence(details))


def _sentence(details: Sequence[Mapping[str, Any]]) -> str:
    """The first error, and how many more there are."""
    first = details[0]
    place = ".".join(str(step) for step in first["loc"][1:]) or str(first["loc"][0])
    text = str(first["msg"]).removeprefix("Value error, ")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    sentence = f"{place}: {text[:1].lower()}{text[1:]}{more}"
    return sentence if len(sentence) <= _MAX_SHOWN else f"{sentence[:_MAX_SHOWN]}…"
