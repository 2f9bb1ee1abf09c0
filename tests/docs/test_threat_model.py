"""The threat model names every attacker, with tests that exist, and every key, with a way to end it.

Rule: the attackers are listed here a second time, so that a row that disappears fails a test.
"""

import json
import math
import re
from pathlib import Path
from typing import Final

from benchmarks.figures import RESULTS
from benchmarks.leaks import MARK, TYPED
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
KEYS: Final = (
    "a token",
    "`JWT_SECRET`",
    "key of the OpenID provider",
    "bundle of a device",
    "password of a device",
    "key of a device",
    "password of the control plane",
    "key of the control plane that signs commands",
    "key of an operator",
    "a root key",
    "key of the object store",
    "key of the audit",
    "secret of a webhook",
    "age identity of a recipient",
    "private key of the broker's certificate",
    "the token of a batch",
    "private key of a client certificate",
    "a device, stolen",
)
ROTATED: Final = (
    "`JWT_SECRET`",
    "a token of an operator",
    "password of a device",
    "key of a device",
    "password of the control plane",
    "key that signs commands",
    "key of an operator",
    "root key",
    "credentials of the object store",
    "certificate of the broker",
    "key that signs the audit",
    "age identity",
    "secret of a webhook",
)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return cells(section)


def cells(text: str) -> list[list[str]]:
    """The cells of the one table of a text, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
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
    assert [row[0] for row in found] == list(KEYS)
    assert all(len(row) == 4 and all(row) for row in found)


def test_every_key_can_be_replaced_while_nothing_has_leaked() -> None:
    text = (PAGE.parent / "how-to" / "rotate-keys.md").read_text()
    found = cells(text)
    assert [row[0] for row in found] == list(ROTATED)
    assert all(len(row) == 3 and all(row) for row in found)


def test_a_lost_device_is_revoked_before_anything_else_is_advised() -> None:
    """To end the account alone leaves the key of the device pinned: it is heard by whatever account it gets."""
    (stolen,) = (row for row in rows("When a key leaks") if row[0] == "a device, stolen")
    theft = (PAGE.parent / "how-to" / "rotate-keys.md").read_text().partition("**After a theft")[2]
    assert [text.partition("`backhaul ")[2].split("`")[0] for text in (stolen[1], theft)] == ["device revoke NAME"] * 2


def test_the_times_are_those_of_the_stored_results_and_each_other_row_says_why_it_has_none() -> None:
    """`python -m benchmarks leaks` measures them; the worst of its rounds, rounded up to a tenth of a second."""
    figures = json.loads((RESULTS / "leaks.json").read_text())["figures"]
    assert [one["name"].removeprefix(MARK) for one in figures] == list(TYPED)
    worst: dict[str, list[str]] = {}
    for one in figures:
        worst.setdefault(one["name"].removeprefix(MARK).partition(": ")[0], []).append(
            f"{math.ceil(one['value'] * 10) / 10:.1f}"
        )
    for key, _, ends, _ in rows("When a key leaks"):
        times = re.findall(r"[Mm]easured: (\d+\.\d) s", ends)
        assert times == worst.pop(key, []), key
        assert bool(times) != ("Not measured: " in ends), key
    assert worst == {}


def test_what_was_measured_is_what_the_row_says_to_type() -> None:
    found = {row[0]: row[1] for row in rows("When a key leaks")}
    missing = [
        (key, command)
        for key, commands in TYPED.items()
        for command in commands
        if f"`{command}`" not in found[key.partition(": ")[0]]
    ]
    assert missing == []
