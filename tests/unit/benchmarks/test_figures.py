"""A figure is judged by its ratio where it has one, else by itself; results say what they were taken on.

Rule: nothing is measured here.
"""

import json
from pathlib import Path

import pytest

from benchmarks import figures, table
from benchmarks.figures import Figure, Report, cells, median, number, percentile


@pytest.mark.parametrize(
    ("figure", "ratio", "met", "goal"),
    [
        (Figure("rate", 25_000, "/s", at_least=20_000), None, True, "≥ 20,000 /s"),
        (Figure("rate", 15_000, "/s", at_least=20_000), None, False, "≥ 20,000 /s"),
        (Figure("cost", 1.5, "s", "s peer", 2.0, at_most=0.75), 0.75, True, "≤ 0.75x"),
        (Figure("cost", 1.6, "s", "s peer", 2.0, at_most=0.75), 0.8, False, "≤ 0.75x"),
        (Figure("lost", 0, "", at_most=0), None, True, "≤ 0 "),
        (Figure("told for its own sake", 7, "ms"), None, None, ""),
    ],
)
def test_a_goal_bounds_the_ratio_if_there_is_one(
    figure: Figure, ratio: float | None, goal: str, *, met: bool | None
) -> None:
    assert (figure.ratio, figure.met, figure.goal) == (ratio, met, goal)


def test_a_row_says_what_it_is_compared_with() -> None:
    row = cells(Figure("cost", 1.0, "s", "s aws s3 cp", 2.5, at_most=0.75))
    assert row == ("1 s", "2.5 s aws s3 cp", "0.40x", "≤ 0.75x", "yes")


def test_results_name_machine_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results")
    path = Report("some", [Figure("rate", 25_000, "/s", at_least=20_000)], {"raw": [1, 2]}).write()
    document = json.loads(path.read_text())
    assert document["figures"][0]["met"] is True
    assert {"machine", "versions", "taken_at", "details", "benchmark"} <= set(document)
    assert document["machine"]["cores"] >= 1


def test_the_middle_and_the_edge() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert (median(values), percentile(values, 0.95), percentile(values, 0.0)) == (3.0, 5.0, 1.0)
    assert (number(123_456.7), number(0.01234), number(99.94)) == ("123,457", "0.0123", "99.9")


def test_the_table_is_put_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    goal, plain = Figure("rate", 25_000, "/s", at_least=20_000), Figure("told for its own sake", 7, "ms")
    Report("presigning", [goal, plain]).write()
    mark = "<!-- figures: python -m benchmarks.table README.md -->\n"
    text = f"before\n{mark}old\n{table.END}\nafter\n"
    assert table.replaced(table.replaced(text)) == table.replaced(text)
    assert "| rate | 25,000 /s |  |  | ≥ 20,000 /s | yes |" in table.replaced(text)
    assert "own sake" not in table.replaced(text)
    with pytest.raises(ValueError, match="no marks"):
        table.replaced("no marks here")
