"""The kept results as a Markdown table, for the README: `python -m benchmarks.table [FILE]`.

Rule: the table is made from `results/` and nothing else. In a file, what stands between the two marks is replaced.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import RESULTS, Figure, cells

BEGIN: Final = "<!-- figures: python -m benchmarks.table README.md -->"
END: Final = "<!-- end of figures -->"
ORDER: Final = (
    "agent",
    "agent-life",
    "latency",
    "fleet",
    "presigning",
    "ingest",
    "clients",
    "grants",
    "jobs",
    "jobs-large",
    "events",
    "selection",
)
_NAMES: Final = tuple(one.name for one in fields(Figure))


def documents() -> Iterator[dict[str, Any]]:
    """The kept results, in the order of the README."""
    for name in ORDER:
        path = RESULTS / f"{name}.json"
        if path.exists():
            document: dict[str, Any] = json.loads(path.read_text())
            yield document


def markdown() -> str:
    """Every figure that has a goal or is a floor of one that has, and what it was measured on."""
    found = list(documents())
    lines = ["| figure | measured | beside | ratio | goal | met |", "|---|---:|---:|---:|---|---|"]
    for document in found:
        for given in document["figures"]:
            figure = Figure(**{name: given[name] for name in _NAMES})
            if figure.met is not None or (figure.ratio is not None and figure.name.startswith("floor")):
                lines.append(f"| {figure.name} | {' | '.join(cell.strip() for cell in cells(figure))} |")
    if found:
        machine, versions = found[0]["machine"], found[0]["versions"]
        programs = f"Python {versions['python']}, Mosquitto {versions['mosquitto']}"
        lines += ["", f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {programs}."]
    return "\n".join(lines)


def replaced(text: str) -> str:
    """The text with the table between its marks; `ValueError` when it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"there are no marks {BEGIN} and {END}"
        raise ValueError(message)
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def main() -> None:
    """Print the table, or put it into the file that was named."""
    if len(sys.argv) == 1:
        sys.stdout.write(markdown() + "\n")
        return
    path = Path(sys.argv[1])
    path.write_text(replaced(path.read_text()))


if __name__ == "__main__":
    main()
