"""Every document, section and decision that the project cites exists, and so does the target of every relative link.

Rule: the checker is tested on small texts first, which proves that it can fail.
"""

from typing import Final

import pytest

from tests.docs.citations import links, wrong_citations
from tests.docs.test_house_rules import ROOT, tracked_texts

DATA: Final = (".json", ".txt", ".svg")
"""File types without prose."""

DOCUMENTS: Final = {
    "docs/protocol.md": "# Protocol\n\n## 1. Topics\n\n### 1.2 Roots and `ids`\n",
    "docs/decisions/0003-one-address.md": "# 3. One address\n",
    "README.md": "# Title\n",
}


@pytest.mark.parametrize(
    ("name", "text", "wrong"),
    [
        ("a.py", '"""See nowhere.md."""\n', ["no document nowhere.md"]),
        ("a.py", "x = 1  # protocol.md section 2\n", ["no section 2 in docs/protocol.md"]),
        ("a.py", '"""A rule (protocol.md\nsection 1.3)."""\n', ["no section 1.3 in docs/protocol.md"]),
        ("a.py", "# protocol.md 1.2, 1.9\n", ["no section 1.9 in docs/protocol.md"]),
        ("a.py", "# protocol.md §4\n", ["no section 4 in docs/protocol.md"]),
        ("a.py", "# a rule of\n# decision 7\n", ["no decision 7"]),
        ("Makefile", "# Why: docs/decisions/0009.\n", ["no decision 9"]),
        ("a.yml", "# ADR 4\n", ["no decision 4"]),
        ("docs/protocol.md", "## 1. Topics\nSee section 5.\n", ["no section 5 in docs/protocol.md"]),
        ("README.md", "[here](docs/protocol.md#2-queues)\n", ["no heading for docs/protocol.md#2-queues"]),
        ("README.md", "# Title\n[up](#titel)\n", ["no heading for #titel"]),
        ("docs/protocol.md", "[back](../READ.md)\n", ["no document READ.md"]),
        ("docs/protocol.md", "## 1. A\n[up](../README.md), section 9\n", ["no section 9 in README.md"]),
    ],
)
def test_a_wrong_citation_is_reported(name: str, text: str, wrong: list[str]) -> None:
    found = wrong_citations(name, text, {**DOCUMENTS, name: text} if name in DOCUMENTS else DOCUMENTS)
    assert [one.removeprefix(f"{name}: ").replace("../", "") for one in found] == wrong


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""protocol.md section 1, protocol.md 1.2, decision 3, docs/decisions/0003, README.md."""\n'),
        ("a.py", 'TEXT = "nowhere.md section 9"\n'),
        ("a.py", "# RFC 9110 section 15.5.6; MQTT 5.0 section 3.9.3\n"),
        ("README.md", "# Title\n[a](docs/protocol.md#12-roots-and-ids) [b](#title) https://example.org/other.md\n"),
        ("docs/protocol.md", "## 1. Topics\nSection 1; MQTT 5.0 section 3.1.3; [up](../README.md).\n"),
    ],
)
def test_a_right_citation_is_not_reported(name: str, text: str) -> None:
    assert wrong_citations(name, text, {**DOCUMENTS, name: text} if name in DOCUMENTS else DOCUMENTS) == []


@pytest.mark.timeout(120)
def test_every_citation_of_the_project_has_a_target() -> None:
    texts = dict(tracked_texts())
    documents = {name: text for name, text in texts.items() if name.endswith(".md")}
    prose = {name: text for name, text in texts.items() if not name.endswith(DATA)}
    assert [wrong for name, text in prose.items() for wrong in wrong_citations(name, text, documents)] == []
    assert len(documents) > len(DOCUMENTS)


def test_every_relative_link_has_a_file() -> None:
    broken = [
        f"{name}: {target}"
        for name, text in tracked_texts()
        if name.endswith(".md")
        for target in links(text)
        if not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert broken == []
