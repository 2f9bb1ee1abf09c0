"""`/help`: the documents as pages, a page for each code, and a search over them.

Rule: as in `pages`: nothing of the fleet, so no token; no script; the page's policy and styles. A text of the caller is
escaped before it is shown.
"""

import re
from html import escape
from typing import Annotated, Final

from fastapi import Query, Response
from fastapi.responses import HTMLResponse

from control_plane import web
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.explanations.table import CHAPTERS, explained
from control_plane.help.library import HELP, INDEX, addresses, images
from control_plane.help.render import inline, rendered
from control_plane.help.search import MOST_LETTERS, WORD, Hit, search

router = router_of_calls(include_in_schema=False)

_HEADERS: Final = {"Content-Security-Policy": web.POLICY, "Cache-Control": "no-cache"}
_LIST: Final = f"{HELP}reference/reasons"


@router.get("/help")
@router.get("/help/")
def index() -> Response:
    """The list of documents."""
    return _document(INDEX)


@router.get("/help/search")
def found(q: Annotated[str, Query(max_length=1_000)] = "") -> Response:
    """The sections that match a query."""
    query = q[:MOST_LETTERS]
    hits = search(query)
    body = "".join(_hit(hit, query) for hit in hits)
    note = f"{len(hits)} found" if hits else "Nothing found. Each word must occur; try fewer or shorter ones."
    count = f'<p class="quiet">{note if query.strip() else "Type words above: each must occur."}</p>'
    return _page("Search", f"<h1>Search</h1>{count}{body}", query=query)


@router.get("/help/reasons")
def reasons() -> Response:
    """Every code, with a link to its page."""
    body = "".join(
        f"<h2>{escape(title)}</h2><dl>"
        + "".join(f"<dt>{_code(code)}</dt><dd>{inline(row.meaning)}.</dd>" for code, row in rows.items())
        + "</dl>"
        for title, rows in CHAPTERS.items()
    )
    return _page("Reasons", f"<h1>Reasons</h1>{body}")


@router.get("/help/reasons/{code}")
def reason(code: str) -> Response:
    """What one code means, what to do, and what ends it."""
    row = explained(code)
    if row is None:
        text = "This version has no such code. A newer program may have given it: its own /help explains it."
        return _page(code, f"<h1><code>{escape(code)}</code></h1><p>{text}</p>{_all_codes()}", status=404)
    facts = (
        ("What to do", inline(row.remedy)),
        ("What ends it", inline(row.end)),
        ("Where it is shown", escape(", ".join(row.places).capitalize())),
    )
    parts = "".join(f"<h2>{name}</h2><p>{text}.</p>" for name, text in facts)
    body = f'<h1><code>{escape(code)}</code></h1><p class="lead">{inline(row.meaning)}.</p>{parts}{_all_codes()}'
    return _page(code, body)


@router.get("/help/{path:path}")
def document(path: str) -> Response:
    """A document, or a picture of one."""
    if picture := images().get(path):
        content, media_type = picture
        return Response(content, media_type=media_type, headers=_HEADERS)
    known = addresses().get(f"{HELP}{path.removesuffix('.md')}")
    if known is None:
        text = f'No such document. <a href="{HELP}">All documents</a>'
        return _page("Not found", f"<h1>Not found</h1><p>{text}</p>", status=404)
    return _document(known)


def _document(path: str) -> HTMLResponse:
    page = rendered(path)
    return _page(page.title, page.html)


def _code(code: str) -> str:
    return f'<a href="{HELP}reasons/{escape(code)}"><code>{escape(code)}</code></a>'


def _all_codes() -> str:
    return f'<p class="quiet"><a href="{_LIST}">Every code</a></p>'


def _hit(hit: Hit, query: str) -> str:
    title = hit.title if hit.title == hit.page else f"{hit.page}: {hit.title}"
    return (
        f'<section class="hit"><h2><a href="{escape(hit.address)}">{escape(title)}</a></h2>'
        f"<p>{_marked(hit.excerpt, query)}</p></section>"
    )


def _marked(text: str, query: str) -> str:
    """The text, escaped, with the words of the query marked."""
    words = sorted(set(WORD.findall(query)), key=len, reverse=True)
    if not words:
        return escape(text)
    pattern = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)
    parts, last = [], 0
    for match in pattern.finditer(text):
        parts += [escape(text[last : match.start()]), f"<mark>{escape(match[0])}</mark>"]
        last = match.end()
    return "".join(parts) + escape(text[last:])


def _page(title: str, body: str, *, query: str = "", status: int = 200) -> HTMLResponse:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)} · Backhaul help</title>"
        '<link rel="icon" href="/static/mark.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/static/app.css"><link rel="stylesheet" href="/static/styles/help.css">'
    )
    bar = (
        '<a class="skip" href="#text">Skip to the text</a>'
        '<header class="help-bar"><a class="brand" href="/">Backhaul</a>'
        f'<nav aria-label="Help"><a href="/">Fleet</a> <a href="{HELP}">Documents</a>'
        f' <a href="{HELP}reasons">Reasons</a>'
        ' <a href="/docs">REST calls</a></nav>'
        f'<form action="{HELP}search" role="search"><label class="hidden" for="q">Search the documents</label>'
        f'<input id="q" name="q" type="search" placeholder="Search" value="{escape(query)}" maxlength="{MOST_LETTERS}">'
        "<button>Search</button></form></header>"
    )
    text = f'<!doctype html><html lang="en"><head>{head}</head><body class="help">{bar}'
    return HTMLResponse(f'{text}<main id="text" class="help-text">{body}</main></body></html>', status, _HEADERS)
