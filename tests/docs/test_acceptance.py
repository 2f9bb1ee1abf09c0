"""The acceptance list names tests that exist; every fault has a test or a reason, every promise and threat a test.

Rule: the rows are listed here a second time, so that a row that disappears from the document fails a test.
"""

import ast
import functools
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "tests" / "ACCEPTANCE.md"
PROMISED: Final = ROOT / "docs" / "reliability.md"
NODE: Final = re.compile(r"^- `(tests/[\w/]+\.py)::(\w+)`$")
UNTESTED: Final = re.compile(r"^Not tested (?:here|as a promise): .{20}")

FAULTS: Final = (
    "Agent kill -9 mid part",
    "Reboot or power loss",
    "Agent frozen beyond its keepalive",
    "Broker restart, persistence on",
    "Broker restart, no or corrupt persistence",
    "Broker disk full",
    "Broker with limits of its own",
    "Broker that ends each connection",
    "Broker frozen or half-open",
    "Control plane crash mid-upload",
    "Two replicas",
    "Duplicate QoS 1",
    "Out of order, replayed",
    "Queue overflow at the broker",
    "Takeover by the same id",
    "State folder of a device went back",
    "Message typed by hand",
    "Stored messages",
    "S3 500, 503 SlowDown",
    "S3 slow or stalled",
    "Reset or truncated PUT",
    "Complete in doubt",
    "Complete concurrent with abort or sweeper",
    "Object visible late",
    "Metadata dropped",
    "Object store that behaves in its own way",
    "Least privilege at the object store",
    "Probe killed or hindered",
    "Slow object store",
    "URL expired or key revoked",
    "Session token at its end, policy that refuses devices",
    "Clock skew of the agent",
    "Clock skew of the control plane",
    "Clock jumps",
    "Clock of the control plane set",
    "Conditions that come back",
    "Crash of either side around a receipt",
    "File grows, changes, is truncated or replaced",
    "What the policy of a device denies",
    "A person on the device decides",
    "Root replaced, renamed or unmounted",
    "File system that does not answer",
    "File that changes within one tick",
    "Metadata changes and no byte",
    "File without its size",
    "Copies fill the disk",
    "Name that is not UTF-8",
    "Costly listing",
    "File that cannot be read",
    "File deleted while uploading",
    "Agent disk full",
    "A thread of the agent dies",
    "Loop of the agent that is stuck, or waits for a disk",
    "Package of the agent replaced, removed or of another Python",
    "Settings that no message can carry",
    "SQLite locked",
    "Database disk full, PostgreSQL failover",
    "Poison payload",
    "A device that floods",
    "A device that lies about what it was asked",
    "Oversized publish",
    "Reader of the log that stalls",
    "Log of a site that grows",
    "End of a program by signals",
    "Proxy in front of REST",
    "Slow REST client",
    "A token that may more than it needs, or is stolen",
    "A token for some clients only",
    "A web page in an operator's browser",
    "A flag that the environment overrules",
    "A token of one control plane, another server",
    "A printed next step in another shell",
    "Closed or full standard streams of a command",
    "A secret in arguments, in errors, in log lines",
    "Who did what in REST",
    "Slow reader of the event stream",
    "Database restored from an old backup",
    "Reconnect storm",
    "DNS failure, captive portal, TLS expiry, proxy 407",
    "Firewall, HTTP proxy, private authority, IPv6 only",
    "State folder removed, missing or failing",
    "Device suspended for hours",
    "Memory card that wears out",
    "A byte rots in the object store",
)
PROMISES: Final = tuple(f"P{number}" for number in (*range(1, 27), 29, 32, 33, 40, 48))
THREATS: Final = (
    "a device publishes or subscribes under another's topics",
    "client id or session of another device",
    "names such as `+`, `#`, `a/b`",
    "broker passwords at rest",
    "a password in clear",
    "TLS downgrade",
    "a stolen presigned URL",
    "an agent that lies",
    "path traversal, links, FIFOs, devices",
    "rename above a root",
    "keys and passwords below an allowed folder",
    "a file that only a person on the device may give away",
    "the agent's own journal, state or environment file",
    "upload URL to an internal address",
    "JWT misuse",
    "a web page in an operator's browser",
    "a cookie or a code of a browser that is stolen, late, guessed or used twice",
    "who did what in REST",
    "REST abuse",
    "a password that the reader of this repository knows",
    "a secret on a command line, or in an error's text",
    "another owner's upload in REST",
    "a module planted in the folder of the caller",
    "other users of the machine",
    "the control plane's role at Amazon S3",
    "a package or an image that changed",
)
"""The first column of the table of threats in docs/reliability.md."""


@functools.cache
def rows() -> dict[str, list[str]]:
    """The lines below each heading of the third level."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("### "):
            name = line.removeprefix("### ")
            found[name] = []
        elif name and line and not line.startswith("#"):
            found[name].append(line)
    return found


def named_by(row: str) -> list[tuple[str, str]]:
    """The files and functions that a row names."""
    return [(match[1], match[2]) for line in rows()[row] if (match := NODE.fullmatch(line))]


@functools.cache
def defined(path: str) -> frozenset[str]:
    """The functions of a test file; none when it is not there."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(), filename=path)
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions)


def test_every_row_of_the_catalogue_is_present() -> None:
    assert [name for name in FAULTS if name not in rows()] == []


def test_every_row_of_the_document_is_listed_here() -> None:
    """A row that is listed nowhere else could disappear."""
    section = DOCUMENT.read_text().partition("## Faults\n")[2].partition("\n## ")[0]
    assert sorted(line.removeprefix("### ") for line in section.splitlines() if line.startswith("### ")) == sorted(
        FAULTS
    )


def test_every_promise_is_present() -> None:
    """A row that is not listed here could disappear."""
    assert sorted(name.split()[0] for name in rows() if re.match(r"P\d+ ", name)) == sorted(PROMISES)


def test_every_promise_of_the_document_is_listed_here() -> None:
    """A promise that is listed nowhere else would have no test."""
    promised = re.findall(r"^\| \*\*(P\d+) ", PROMISED.read_text(), re.MULTILINE)
    assert sorted(promised) == sorted(PROMISES)


def test_every_threat_of_the_document_has_tests() -> None:
    section = PROMISED.read_text().partition("\n## 3. Security\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert [line.strip("|").split("|")[0].strip() for line in lines[2:]] == list(THREATS)
    assert [name.removeprefix("Threat: ") for name in rows() if name.startswith("Threat: ")] == list(THREATS)
    assert [name for name in THREATS if not named_by(f"Threat: {name}")] == []


def test_every_row_has_a_test_or_a_reason() -> None:
    bare = [name for name, lines in rows().items() if not named_by(name) and not any(map(UNTESTED.match, lines))]
    assert bare == []


def test_every_line_that_looks_like_a_test_is_one() -> None:
    lines = [line for found in rows().values() for line in found if line.startswith("-")]
    assert [line for line in lines if not NODE.fullmatch(line)] == []


def test_every_test_that_is_named_exists() -> None:
    named = {test for name in rows() for test in named_by(name)}
    assert sorted(f"{path}::{test}" for path, test in named if test not in defined(path)) == []
    assert len(named) > len(FAULTS)
