"""The threat model names every attacker, with tests that exist, and every key, with a way to end it.

Rule: the attackers are listed here a second time, so that a row that disappears fails a test.
"""

import re
from pathlib import Path
from typing import Final

from tests.docs.test_acceptance import defined

PAGE: Final = Path(__file__).parents[2] / "docs" / "threat-model.md"
NAMED: Final = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ATTACKERS: Final = (
    "stolen device",
    "lying agent",
    "local user of a device",
    "the network",
    "broker operator",
    "leaked token",
    "leaked key",
    "compromised control plane",
    "store operator",
    "thief of a batch token",
    "thief of a presigned URL",
    "thief of a backup",
    "web page in the operator's browser",
    "supplier",
)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_attacker_has_a_row_with_what_is_left() -> None:
    found = rows("Attackers")
    assert [row[0].strip("*") for row in found] == list(ATTACKERS)
    assert all(len(row) == 4 and all(row) for row in found)


def test_every_row_names_tests_that_exist() -> None:
    found = {row[0]: NAMED.findall(row[2]) for row in rows("Attackers")}
    assert [who for who, tests in found.items() if not tests] == []
    named = {test for tests in found.values() for test in tests}
    assert sorted(f"{path}::{test}" for path, test in named if test not in defined(path)) == []


def test_every_key_can_be_ended() -> None:
    found = rows("When a key leaks")
    assert len(found) >= 8
    assert all(len(row) == 4 and all(row) for row in found)
