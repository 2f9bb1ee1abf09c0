"""Searches the sections of every document, and the table of codes.

Rule: every word of the query must occur in a section or its headings. A hit in a heading counts more than one in text.
"""

import functools
import re
from dataclasses import dataclass
from typing import Final

from control_plane.domain.explanations.table import EXPLANATIONS
from control_plane.help.library import HELP, address_of, documents
from control_plane.help.render import rendered

MOST_HITS: Final = 30
MOST_LETTERS: Final = 100
"""Of a query; the rest is left out."""

WORD: Final = re.compile(r"[\w./-]+")
"""A word of a query."""

_AROUND: Final = 90
"""Letters of text shown before and after the first word that was found."""

_RECORDS: Final = "docs/decisions/"


@dataclass(frozen=True, slots=True)
class Hit:
    """One section that matches: where it is, its headings, and the text around the first word."""

    address: str
    page: str
    title: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class _Entry:
    address: str
    page: str
    title: str
    text: str
    weight: float

    def score(self, words: list[str]) -> float:
        """How well it matches; 0 unless every word occurs."""
        title, page, text = self.title.lower(), self.page.lower(), self.text.lower()
        total = 0.0
        for word in words:
            found = 20 * (word == title) + 8 * (word in title) + 3 * (word in page) + min(text.count(word), 4)
            if not found:
                return 0.0
            total += found
        return total * self.weight


def search(query: str) -> list[Hit]:
    """The sections that match, the best first, at most `MOST_HITS`."""
    words = [word.lower() for word in WORD.findall(query[:MOST_LETTERS])]
    if not words:
        return []
    scored = [(entry.score(words), entry) for entry in _entries()]
    best = sorted((pair for pair in scored if pair[0]), key=lambda pair: -pair[0])[:MOST_HITS]
    return [Hit(one.address, one.page, one.title, _excerpt(one.text, words)) for _, one in best]


@functools.cache
def _entries() -> tuple[_Entry, ...]:
    found = [
        _Entry(f"{HELP}reasons/{code}", "Reasons", code, f"{row.meaning}. {row.remedy}. {row.end}.", 1.5)
        for code, row in EXPLANATIONS.items()
    ]
    for path in documents():
        # A code's own page is above; a decision explains the past.
        if path.endswith("/reasons.md"):
            continue
        page = rendered(path)
        weight = 0.3 if path.startswith(_RECORDS) or path == "CHANGELOG.md" else 1.0
        for one in page.sections:
            mark = f"#{one.anchor}" if one.anchor else ""
            found.append(_Entry(address_of(path) + mark, page.title, one.title, one.text, weight))
    return tuple(found)


def _excerpt(text: str, words: list[str]) -> str:
    places = [place for place in (text.lower().find(word) for word in words) if place >= 0]
    if not places:
        return text[: 2 * _AROUND]
    begin = max(0, min(places) - _AROUND)
    end = min(places) + _AROUND
    return ("…" if begin else "") + text[begin:end].strip() + ("…" if end < len(text) else "")
