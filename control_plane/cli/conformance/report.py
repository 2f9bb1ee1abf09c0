"""The report of a run: for a person, as JSON, as JUnit.

Rule: pure. What an agent sent is untrusted text, and passes `visible` before it reaches a terminal.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Group, RenderableType
from rich.text import Text

from control_plane.cli.conformance.catalogue import Check
from control_plane.cli.conformance.runner import CheckResult, CheckVerdict
from control_plane.cli.text import visible

_MARKS = {
    CheckVerdict.PASSED: ("ok", "green"),
    CheckVerdict.FAILED: ("WRONG", "bold red"),
    CheckVerdict.SKIPPED: ("skip", "dim"),
}
_PROTOCOL = "docs/protocol.md"


def place(check: Check) -> str:
    """Where the protocol states it."""
    return check.section if check.section[0].isalpha() else f"section {check.section}"


def document(client_id: str, results: Sequence[CheckResult]) -> dict[str, Any]:
    """The report as JSON."""
    counts = Counter(result.verdict for result in results)
    return {
        "client_id": client_id,
        "conforms": not counts[CheckVerdict.FAILED],
        **{str(verdict): counts[verdict] for verdict in CheckVerdict},
        "checks": [_entry(result) for result in results],
    }


def _entry(result: CheckResult) -> dict[str, Any]:
    check = result.check
    entry: dict[str, Any] = {
        "id": check.identifier,
        "section": check.section,
        "title": check.title,
        "verdict": str(result.verdict),
        "seconds": result.seconds,
    }
    if result.verdict is CheckVerdict.FAILED:
        entry |= {"expected": result.expected, "seen": result.seen, "remedy": check.remedy}
    if result.verdict is CheckVerdict.SKIPPED:
        entry["reason"] = result.reason
    return entry


def line(result: CheckResult) -> Text:
    """One check on one line."""
    word, style = _MARKS[result.verdict]
    return Text.assemble((f"{word:<6}", style), f"{result.check.identifier:<28} ", (result.check.title, "dim"))


def view(client_id: str, results: Sequence[CheckResult]) -> RenderableType:
    """The whole report: what is wrong section by section, what was skipped and why, the sums."""
    failed = [result for result in results if result.verdict is CheckVerdict.FAILED]
    skipped = [result for result in results if result.verdict is CheckVerdict.SKIPPED]
    parts: list[RenderableType] = []
    for section in dict.fromkeys(result.check.section for result in failed):
        here = [result for result in failed if result.check.section == section]
        parts += ["", Text(f"{_PROTOCOL}, {place(here[0].check)}", style="bold")]
        for result in here:
            parts += _failure(result)
    if skipped:
        parts += ["", Text("Skipped", style="bold")]
        parts += [Text(f"  {one.check.identifier}: {visible(one.reason)}") for one in skipped]
    sums = f"{len(results)} checks: {len(results) - len(failed) - len(skipped)} passed, {len(failed)} failed, "
    verdict = f"{client_id} conforms." if not failed else f"{client_id} does not conform."
    style = "bold green" if not failed else "bold red"
    return Group(*parts, "", Text.assemble(f"{sums}{len(skipped)} skipped. ", (verdict, style)))


def _failure(result: CheckResult) -> list[RenderableType]:
    check = result.check
    rows = (("expected", result.expected), ("seen", result.seen), ("remedy", check.remedy))
    head = Text.assemble(("  ✗ ", "red"), (check.identifier, "bold"), f"  {check.title}")
    return [head, *(Text.assemble((f"    {name:<10}", "dim"), _indented(text)) for name, text in rows)]


def _indented(text: str | None) -> str:
    return f"\n{'':14}".join(visible(one) for one in (text or "").splitlines())


def junit(client_id: str, results: Iterable[CheckResult]) -> str:
    """The report as JUnit XML: one test case for each check."""
    found = list(results)
    counts = Counter(result.verdict for result in found)
    suite = ET.Element(
        "testsuite",
        name=f"backhaul conformance {client_id}",
        tests=str(len(found)),
        failures=str(counts[CheckVerdict.FAILED]),
        skipped=str(counts[CheckVerdict.SKIPPED]),
    )
    for result in found:
        check = result.check
        name, time = check.identifier, f"{result.seconds:.3f}"
        case = ET.SubElement(suite, "testcase", classname=f"section {check.section}", name=name, time=time)
        if result.verdict is CheckVerdict.FAILED:
            failure = ET.SubElement(case, "failure", message=visible(f"expected {result.expected}"))
            failure.text = f"seen: {visible(result.seen)}\nremedy: {check.remedy}"
        if result.verdict is CheckVerdict.SKIPPED:
            ET.SubElement(case, "skipped", message=visible(result.reason))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
