"""The OpenAPI document: FastAPI's, with problem documents and the token added.

Rule: every possible answer is in it, so that a client can be generated from it.
"""

from http import HTTPStatus
from typing import Any, Final

from control_plane.api.auth import OF_DEVICES, OPEN, SESSION_PATH, take_rights
from control_plane.api.models import ProblemDocument
from control_plane.api.problems import MEDIA_TYPE

TITLE: Final = "Backhaul"
SUMMARY: Final = "Command a fleet of devices behind NAT to upload chosen files to object storage."

_SCHEME: Final = "bearer"
_BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "HS256 with `exp iat aud sub`, `aud` = `backhaul`; `scope` and `clients` narrow what it may do. "
    "`backhaul token create` prints one. The words at each call are the scopes that it needs.",
}
_NAME: Final = "ProblemDocument"
_ALWAYS: Final = (408, 413, 500, 503)
_GUARDED: Final = (403, 421, 422, 429)
_METHODS: Final = ("get", "post", "put", "patch", "delete")

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """The problems of one route, in addition to those of every route."""
    return {status: _problem(status) for status in statuses}


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_NAME}"}
    return {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}


def complete(document: dict[str, Any], *, needs_token: bool) -> dict[str, Any]:
    """Add to FastAPI's document what is common to every route; returns the same document."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas[_NAME] = ProblemDocument.model_json_schema()
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                _complete(operations[method], is_open=path in OPEN, needs_token=needs_token)
                if needs_token and path in {SESSION_PATH, *OF_DEVICES}:
                    # No token is needed there; at a session one that is given counts.
                    operations[method]["security"].insert(0, {})
    if needs_token:
        document["components"]["securitySchemes"] = {_SCHEME: _BEARER}
    return document


def _complete(operation: dict[str, Any], *, is_open: bool, needs_token: bool) -> None:
    """Add the problems of every route. FastAPI's 422 goes, since its body differs from a problem document."""
    answers = operation["responses"]
    if MEDIA_TYPE not in answers.get("422", {}).get("content", {}):
        answers.pop("422", None)
    guarded = not is_open
    for status in (*_ALWAYS, *(_GUARDED if guarded else ()), *((401,) if guarded and needs_token else ())):
        answers.setdefault(str(status), _problem(status))
    rights = take_rights(operation)
    if guarded and needs_token and rights is not None:
        operation["security"] = [{_SCHEME: scopes} for scopes in rights]
