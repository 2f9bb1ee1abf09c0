"""The operator's page: static files that are a client of REST.

Rule: nothing is made at run time. What the page can do, anyone can do with REST: no file here is a template, and the
page calls nothing that `/openapi.json` does not name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
"""The folder that is served below /static/."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page and its files; every other answer has that of `api.gates`."""

_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
"""Named here: the machine's own table of types may have others, and a browser runs no script of another type."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page; `tag` is its ETag, the same on every replica."""

    content: bytes
    media_type: str
    tag: str


def files(folder: Path = STATIC) -> Mapping[str, PageFile]:
    """Every file by its path below `folder`, with `/`; a running server keeps those that it began with."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _file(path) for path in found}


def _file(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, _TYPES.get(path.suffix, "text/plain"), f'"{sha256(content).hexdigest()[:32]}"')
