"""The kept results as a Markdown table: all of them for docs/explanation/figures.md, ten rows for the README.

`python -m benchmarks.table FILE` writes the table of that file; without a file it prints the whole one.

Rule: a table is made from `results/` and nothing else. In a file, what stands between the two marks is replaced.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import RESULTS, Figure, cells

BEGIN: Final = re.compile(r"<!-- figures: python -m benchmarks.table [\w./-]+ -->\n")
END: Final = "<!-- end of figures -->"
ORDER: Final = (
    "agent",
    "agent-life",
    "agent-keys",
    "agent-rest",
    "agent-writes",
    "agent-package",
    "latency",
    "fleet",
    "presigning",
    "ingest",
    "clients",
    "grants",
    "jobs",
    "jobs-large",
    "streams",
    "signing",
    "sealing",
    "selection",
    "page",
    "rest-reach",
    "leaks",
)
FIRST_PAGE: Final = (
    "agent throughput, sha256, http",
    "agent CPU for 1 GiB, sha256, http",
    "agent peak, 4 parts in parallel, http",
    "agent start to online",
    "trigger to completed, 4 KiB, median",
    "uploads a minute, 10,000 devices",
    "objects sent twice",
    "control plane memory per connected client",
    "one job over 10,000 devices, POST to completed",
    "GET /jobs/{id}, 100,000 executions, p95",
)
"""The rows of the README, by their names."""

_NAMES: Final = tuple(one.name for one in fields(Figure))


def documents() -> Iterator[dict[str, Any]]:
    """The kept results, in the order of the README."""
    for name in ORDER:
        path = RESULTS / f"{name}.json"
        if path.exists():
            document: dict[str, Any] = json.loads(path.read_text())
            yield document


def markdown(names: Sequence[str] = ()) -> str:
    """Every figure that has a goal or is a floor of one that has, and what it was measured on; or those of `names`."""
    found = list(documents())
    lines = ["| figure | measured | beside | ratio | goal | met |", "|---|---:|---:|---:|---|---|"]
    for document in found:
        for given in document["figures"]:
            figure = Figure(**{name: given[name] for name in _NAMES})
            known = figure.met is not None or (figure.ratio is not None and figure.name.startswith("floor"))
            if figure.name in names if names else known:
                lines.append(f"| {figure.name} | {' | '.join(cell.strip() for cell in cells(figure))} |")
    if found:
        machine, versions = found[0]["machine"], found[0]["versions"]
        programs = f"Python {versions['python']}, Mosquitto {versions['mosquitto']}"
        lines += ["", f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {programs}."]
    return "\n".join(lines)


def replaced(text: str, names: Sequence[str] = ()) -> str:
    """The text with the table between its marks; `ValueError` when it has none."""
    begin = BEGIN.search(text)
    end = text.find(END, begin.end()) if begin else -1
    if begin is None or end < 0:
        message = f"there are no marks {BEGIN.pattern!r} and {END!r}"
        raise ValueError(message)
    return f"{text[: begin.end()]}{markdown(names)}\n{text[end:]}"


def main() -> None:
    """Print the table, or put it into the file that was named."""
    if len(sys.argv) == 1:
        sys.stdout.write(markdown() + "\n")
        return
    path = Path(sys.argv[1])
    path.write_text(replaced(path.read_text(), FIRST_PAGE if path.name == "README.md" else ()))


if __name__ == "__main__":
    main()
