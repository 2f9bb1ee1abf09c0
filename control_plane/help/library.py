"""The documents as files: where they are, how a path becomes an address, and what a relative link means.

Rule: no other file is read or served than those below the folder of the documents. An address has no `.md`.
"""

import functools
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HELP: Final = "/help/"
INDEX: Final = "docs/README.md"
_PACKAGED: Final = Path(__file__).parent / "documents"
_CHECKOUT: Final = Path(__file__).parents[2]
_OF_PROJECT: Final = ("README.md", "CHANGELOG.md", "SECURITY.md")
_IMAGES: Final = {".png": "image/png", ".svg": "image/svg+xml"}


def root() -> Path:
    """The folder that holds `docs`: within the installed package, or the checkout that it was installed from."""
    return _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


@functools.cache
def documents() -> Mapping[str, str]:
    """The text of every document, by its path from the root, such as `docs/jobs.md`."""
    here = root()
    paths = [*(here / name for name in _OF_PROJECT), *sorted((here / "docs").rglob("*.md"))]
    return {path.relative_to(here).as_posix(): path.read_text() for path in paths if path.is_file()}


@functools.cache
def images() -> Mapping[str, tuple[bytes, str]]:
    """Every picture with its media type, by its path below `docs`."""
    here = root() / "docs"
    found = sorted(path for path in here.rglob("*") if path.suffix in _IMAGES)
    return {path.relative_to(here).as_posix(): (path.read_bytes(), _IMAGES[path.suffix]) for path in found}


def address_of(path: str) -> str:
    """Where a document is served.

    >>> address_of("docs/how-to/back-up.md"), address_of("docs/README.md"), address_of("README.md")
    ('/help/how-to/back-up', '/help/', '/help/project/README')
    """
    if path == INDEX:
        return HELP
    below = path.removeprefix("docs/") if path.startswith("docs/") else f"project/{path}"
    return HELP + below.removesuffix("/README.md").removesuffix(".md")


@functools.cache
def addresses() -> Mapping[str, str]:
    """The path of every document, by its address."""
    return {address_of(path): path for path in documents()}


def resolved(path: str, target: str) -> str | None:
    """What a link in the document `path` leads to on this server; None for a file that is not served.

    Links to other hosts and to places in the same document stay as they are.
    """
    if "://" in target or target.startswith(("#", "mailto:", "/")):
        return target
    name, mark, anchor = target.partition("#")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
    if found.removeprefix("docs/") in images() and found.startswith("docs/"):
        return HELP + found.removeprefix("docs/")
    for one in (found, f"{found}/README.md"):
        if one in documents():
            return address_of(one) + mark + anchor
    return None
