"""What a person meets in a browser: the operator's page at `/` with its files, and `/docs`, the calls as one page.

Rule: these answers hold nothing of the fleet and nothing of another host, so they need no token. The page is static
files; their policy allows scripts and styles from here only, and none inside a document. `/docs` has no script, and its
policy allows one style by its digest.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from control_plane import web
from control_plane.api.documents import SUMMARY, TITLE
from control_plane.api.tokens.reach import router_of_calls

router = router_of_calls(include_in_schema=False)

_PLACES: Final[Mapping[str, str]] = {
    "/docs": "every call, as a page",
    "/openapi.json": "every call, for programs (OpenAPI)",
    "/clients": "the clients",
    "/uploads": "the uploads, newest first",
    "/jobs": "the jobs, newest first",
    "/health": "whether this process answers",
    "/health/ready": "whether broker, database and object store can be used",
    "/metrics": "counters, for Prometheus",
}
_STYLE: Final = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td{vertical-align:top;padding:.1rem .8rem .1rem 0}code{font-size:.95em}"
    "section{border-top:1px solid #bbb;margin-top:1.5rem}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}"
)
_FILES: Final = web.files()
_FILE_HEADERS: Final = {"Content-Security-Policy": web.POLICY, "Cache-Control": "no-cache"}
"""A browser keeps the files and checks each time whether they changed: a new version is there at once."""

_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/")
async def root(request: Request) -> Response:
    """The page for a browser; for a program, what is there, as JSON."""
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"name": TITLE, "summary": SUMMARY, "paths": dict(_PLACES)})
    return _file("index.html", request)


@router.get("/static/{path:path}")
async def static_file(path: str, request: Request) -> Response:
    """A file of the page; 304 when the browser has it."""
    return _file(path, request)


def _file(path: str, request: Request) -> Response:
    found = _FILES.get(path)
    if found is None:
        raise HTTPException(404)
    headers = {**_FILE_HEADERS, "ETag": found.tag}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The OpenAPI document as one page."""
    document: dict[str, Any] = request.app.openapi()
    return _page("".join(_sections(document)))


def _page(body: str) -> HTMLResponse:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{TITLE}</title>'
    text = (
        f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body><h1>{TITLE}</h1>{body}</body>'
    )
    return HTMLResponse(f"{text}</html>", headers={"Content-Security-Policy": _POLICY})


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    """One section for each call."""
    if "securitySchemes" in document["components"]:
        yield "<p>Calls need a bearer token: <code>Authorization: Bearer TOKEN</code>.</p>"
    calls = [(path, method, call) for path, each in document["paths"].items() for method, call in each.items()]
    links = [
        (f'<a href="#{call["operationId"]}"><code>{method.upper()} {escape(path)}</code></a>', escape(call["summary"]))
        for path, method, call in calls
    ]
    yield _table(links)
    for path, method, call in calls:
        yield f'<section id="{call["operationId"]}"><h2><code>{method.upper()} {escape(path)}</code></h2>'
        yield f"<p><strong>{escape(call['summary'])}.</strong> {escape(call.get('description', ''))}</p>"
        yield _table([_parameter(one) for one in call.get("parameters", ())])
        if body := call.get("requestBody"):
            members = _members(document, next(iter(body["content"].values()))["schema"])
            yield f"<h3>Body</h3>{_table([_member(name, schema) for name, schema in members.items()])}"
        answers = [(f"<code>{code}</code>", escape(one["description"])) for code, one in call["responses"].items()]
        yield f"<h3>Answers</h3>{_table(answers)}</section>"


def _parameter(one: Mapping[str, Any]) -> tuple[str, str]:
    need = "required" if one.get("required") else "may be left out"
    return _member(f"{one['name']} ({one['in']}, {need})", {**one["schema"], "description": one.get("description", "")})


def _member(name: str, schema: Mapping[str, Any]) -> tuple[str, str]:
    kinds = [one.get("type", one.get("$ref", "").rpartition("/")[2]) for one in schema.get("anyOf", [schema])]
    kind = " or ".join(filter(None, kinds))
    return f"<code>{escape(name)}</code>", escape(" ".join(filter(None, (kind, schema.get("description", "")))))


def _members(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The members of the object that a schema is, or refers to."""
    for one in schema.get("anyOf", [schema]):
        name = one.get("$ref", "").rpartition("/")[2]
        found = document["components"]["schemas"].get(name, one)
        if members := found.get("properties"):
            return dict(members)
    return {}


def _table(rows: list[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><td>{name}</td><td>{text}</td></tr>" for name, text in rows) + "</table>"
