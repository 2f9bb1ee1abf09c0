"""Finds citations in a text, and reports those without a target.

Rule: pure. A citation is the name of a document, a numbered section of one, a decision, or a relative Markdown link. In
a Python file only comments and docstrings count.
"""

import ast
import io
import posixpath
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

DECISIONS: Final = "docs/decisions"
_URL: Final = re.compile(r"\bhttps?://\S+")
_DOCUMENT: Final = re.compile(r"(?<![\w/.*{-])((?:[\w.-]+/)*[\w-]+\.md)\b")
_NUMBERS: Final = r"\d+(?:\.\d+)*(?:(?:,| and) \d+(?:\.\d+)*)*"
_SECTION_OF: Final = re.compile(rf"([\w-]+\.md)(?:#[\w-]+)?\)?,? (?:sections? |§ ?)?({_NUMBERS})\b")
_OWN_SECTION: Final = re.compile(rf"(?<!\d )(?<!\.md )(?<!\.md, )(?<!\) )(?<!\), )\bsections? ({_NUMBERS})\b")
_DECISION: Final = re.compile(r"\b(?:[Dd]ecisions?|ADRs?) (\d+(?:(?:,| and| to) \d+)*)\b|\bdocs/decisions/(\d{4})\b")
_LINK: Final = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
_HEADING: Final = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
_NUMBERED: Final = re.compile(r"(\d+(?:\.\d+)*)\.? ")
_FENCED: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_MENTION: Final = re.compile(r"\.md|[Ss]ections? |§|[Dd]ecision|ADR|\]\(")
_NEW_LINE: Final = re.compile(r"\s*\n[ \t]*(?:[#*>-] ?)?")


def wrong_citations(name: str, text: str, documents: Mapping[str, str]) -> list[str]:
    """Each citation in the file `name` without a target, as a sentence; `documents` are all `*.md` by path."""
    return [f"{name}: {text}" for text in _wrong(name, text, documents)]


def _wrong(name: str, text: str, documents: Mapping[str, str]) -> Iterator[str]:
    # To parse every file takes longer than all the rest.
    if not _MENTION.search(text):
        return
    prose = "\n\n".join(_prose_of_python(text)) if name.endswith(".py") else text
    prose = _URL.sub(" ", _NEW_LINE.sub(" ", prose))
    yield from _wrong_documents(name, prose, documents)
    yield from _wrong_decisions(prose, documents)
    if name in documents:
        for numbers in _OWN_SECTION.findall(prose) if sections(text) else ():
            yield from _missing_sections(name, text, numbers)
        yield from _wrong_anchors(name, text, documents)


def _wrong_documents(name: str, prose: str, documents: Mapping[str, str]) -> Iterator[str]:
    for cited in _DOCUMENT.findall(prose):
        if not _found(name, cited, documents):
            yield f"no document {cited}"
    for cited, numbers in _SECTION_OF.findall(prose):
        for target in _found(name, cited, documents)[:1]:
            yield from _missing_sections(target, documents[target], numbers)


def _wrong_decisions(prose: str, documents: Mapping[str, str]) -> Iterator[str]:
    for numbers, path_number in _DECISION.findall(prose):
        for number in map(int, re.findall(r"\d+", numbers or path_number)):
            if not any(path.startswith(f"{DECISIONS}/{number:04}-") for path in documents):
                yield f"no decision {number}"


def _missing_sections(target: str, text: str, numbers: str) -> Iterator[str]:
    for number in re.findall(r"\d+(?:\.\d+)*", numbers):
        if number not in sections(text):
            yield f"no section {number} in {target}"


def _wrong_anchors(name: str, text: str, documents: Mapping[str, str]) -> Iterator[str]:
    for link in _LINK.findall(_FENCED.sub("", text)):
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        if anchor and anchor not in anchors(documents.get(target, "")):
            yield f"no heading for {link}"


def _found(name: str, cited: str, documents: Mapping[str, str]) -> list[str]:
    """The documents that a name may mean: beside the file, from the root, or anywhere."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(name), cited))
    exact = [path for path in (beside, cited) if path in documents]
    return exact or [path for path in documents if "/" not in cited and posixpath.basename(path) == cited]


def links(text: str) -> list[str]:
    """The targets of the relative links in a Markdown text, without their anchors."""
    return [path for path in (link.partition("#")[0] for link in _LINK.findall(_FENCED.sub("", text))) if path]


def sections(text: str) -> frozenset[str]:
    """The numbers of the numbered headings.

    >>> sorted(sections("## 1. One" + chr(10) + "### 1.2 Two"))
    ['1', '1.2']
    """
    found = (_NUMBERED.match(title) for _, title in _HEADING.findall(_FENCED.sub("", text)))
    return frozenset(match[1] for match in found if match)


def anchors(text: str) -> frozenset[str]:
    """The anchors of the headings, as GitHub makes them.

    >>> sorted(anchors("# A `b_c`, d" + chr(10) + "# A `b_c`, d"))
    ['a-b_c-d', 'a-b_c-d-1']
    """
    seen: Counter[str] = Counter()
    made = set()
    for _, title in _HEADING.findall(_FENCED.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        made.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return frozenset(made)


def _prose_of_python(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        for statement in getattr(node, "body", None) or () if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value
    comments = (one for one in tokenize.generate_tokens(io.StringIO(source).readline) if one.type == tokenize.COMMENT)
    # Joined, since a comment of several lines is one text.
    yield "\n".join(comment.string for comment in comments)
