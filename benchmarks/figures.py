"""Figures: one measured number beside what it is compared with, the goal, and whether it is met.

Rule: a goal is a bound on one number, most often a ratio to a peer or a floor of the same run. Results are JSON.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe

RESULTS: Final = Path(__file__).parent / "results"
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` in `unit`, and its `ratio` to `beside` (a peer's or a floor's number) where there is one.

    `at_most` and `at_least` bound the ratio if there is one, else the value; without either it is information.
    """

    name: str
    value: float
    unit: str
    against: str = ""
    beside: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value as a share of what stands beside it."""
        return self.value / self.beside if self.beside else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        judged = self.value if self.ratio is None else self.ratio
        if self.at_most is not None:
            return judged <= self.at_most
        return None if self.at_least is None else judged >= self.at_least

    @property
    def goal(self) -> str:
        """The bound as text."""
        times = "x" if self.ratio is not None else f" {self.unit}"
        if self.at_most is not None:
            return f"≤ {number(self.at_most)}{times}"
        return "" if self.at_least is None else f"≥ {number(self.at_least)}{times}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one benchmark; `details` are the raw numbers behind the figures."""

    name: str
    figures: Sequence[Figure]
    details: Mapping[str, Any] = field(default_factory=dict)

    def write(self) -> Path:
        """Keep it under its name, with the machine and the versions."""
        RESULTS.mkdir(exist_ok=True)
        figures = [{**asdict(one), "ratio": one.ratio, "goal": one.goal, "met": one.met} for one in self.figures]
        document = {"benchmark": self.name, **describe(), "figures": figures, "details": dict(self.details)}
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False, default=str) + "\n")
        return path


def show(reports: Iterable[Report]) -> None:
    """Print them as one table."""
    table = Table("figure", "measured", "beside", "ratio", "goal", "met", title="Backhaul, measured")
    for column in table.columns[1:4]:
        column.justify = "right"
    for report in reports:
        table.add_section()
        for one in report.figures:
            table.add_row(one.name, *cells(one))
    Console(width=150).print(table)


def cells(one: Figure) -> tuple[str, str, str, str, str]:
    """Measured, beside, ratio, goal, met."""
    beside = "" if one.beside is None else f"{number(one.beside)} {one.against}"
    ratio = "" if one.ratio is None else f"{one.ratio:.2f}x"
    met = {True: "yes", False: "no", None: ""}[one.met]
    return f"{number(one.value)} {one.unit}", beside, ratio, one.goal, met


def number(value: float) -> str:
    """Three digits that matter.

    >>> number(0.5), number(12345.6), number(2.345)
    ('0.5', '12,346', '2.35')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - where digits stop to matter


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
