"""Markdown as HTML: headings with anchors, links that lead to pages of this server, and sections for the search.

Rule: HTML within a document is text (`html` is off), so a document cannot bring a script. Anchors are those of GitHub,
so that one link works in both places.
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from control_plane.help.library import documents, resolved

_COMMENT: Final = re.compile(r"^<!--.*?-->\n?", re.MULTILINE | re.DOTALL)
_NO_SLUG: Final = re.compile(r"[^\w\- ]")
_IN_SOURCE: Final = "in the source code"


@dataclass(frozen=True, slots=True)
class Section:
    """The text below one heading, without marks; `anchor` is "" for what stands above the first."""

    title: str
    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """One document: its title, its HTML, and its sections."""

    title: str
    html: str
    sections: tuple[Section, ...]


@functools.cache
def rendered(path: str) -> Rendered:
    """The document at `path`, which must be one of `documents()`."""
    parser = _parser()
    tokens = parser.parse(_COMMENT.sub("", documents()[path]))
    _set_anchors(tokens)
    _set_links(path, tokens)
    sections = tuple(_sections(tokens))
    title = next((one.title for one in sections if one.title), path)
    return Rendered(title, parser.renderer.render(tokens, parser.options, {}), sections)


def inline(text: str) -> str:
    """A sentence with code in it, as HTML."""
    html: str = _parser().renderInline(text)
    return html


@functools.cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _set_anchors(tokens: list[Token]) -> None:
    seen: Counter[str] = Counter()
    for token, content in itertools.pairwise(tokens):
        if token.type == "heading_open":
            slug = _NO_SLUG.sub("", _plain(content).lower()).replace(" ", "-")
            token.attrSet("id", f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1


def _set_links(path: str, tokens: list[Token]) -> None:
    """Give each link and picture its address here; what is not served becomes text with a note."""
    for token in tokens:
        lost = False
        for child in token.children or ():
            name = {"link_open": "href", "image": "src"}.get(child.type)
            if name is not None:
                target = resolved(path, str(child.attrGet(name)))
                lost = target is None and child.type == "link_open"
                if target is not None:
                    child.attrSet(name, target)
                elif lost:
                    child.tag, child.attrs = "span", {"class": "unlinked", "title": _IN_SOURCE}
            elif child.type == "link_close" and lost:
                child.tag, lost = "span", False


def _sections(tokens: list[Token]) -> Iterator[Section]:
    title, anchor = "", ""
    text: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            if title or text:
                yield Section(title, anchor, " ".join(text))
            title, anchor, text = _plain(tokens[index + 1]), str(token.attrGet("id")), []
        elif token.type in {"inline", "fence", "code_block"} and tokens[index - 1].type != "heading_open":
            text.append(_plain(token))
    yield Section(title, anchor, " ".join(text))


def _plain(token: Token) -> str:
    """The text of a token, without marks and addresses."""
    if token.children is None:
        return token.content
    return "".join(" " if one.type in {"softbreak", "hardbreak"} else one.content for one in token.children)
