"""Numbers, instants and foreign text as a person reads them, and what is typed as key=value."""

import doctest
from types import ModuleType

import pytest

from control_plane.cli import parsing as pairs
from control_plane.cli import text
from control_plane.cli.errors import Misused


@pytest.mark.parametrize("module", [text, pairs])
def test_the_examples_of_a_module_hold(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted
    assert not results.failed


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Küche, 厨房 📷.bin", "Küche, 厨房 📷.bin"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("exe\u202etxt.gpj", "exe\\u202etxt.gpj"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
        ("two\nlines", "two\\nlines"),
        (None, "None"),
    ],
)
def test_no_control_sequence_is_shown(raw: str | None, shown: str) -> None:
    assert text.visible(raw) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**3, "5.0 GiB"), (3 * 1024**5, "3072.0 TiB")]
)
def test_a_size_has_the_unit_that_fits(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("typed", "seconds"), [("15m", 900), ("2 h", 7200), ("1w", 604_800), ("", None), ("2x", None), ("-1h", None)]
)
def test_a_duration_is_a_number_and_a_unit(typed: str, seconds: float | None) -> None:
    assert text.duration(typed) == seconds


@pytest.mark.parametrize("word", ["", "=", "=value", "key"])
def test_an_argument_that_is_not_key_value_is_refused_with_its_text(word: str) -> None:
    with pytest.raises(Misused, match="is not key=value"):
        pairs.read_key_values([word])


@pytest.mark.parametrize("when", ["tomorrow", "2025-11-01T10:00:00", "25:00"])
def test_a_deadline_without_its_offset_is_refused(when: str) -> None:
    with pytest.raises(Misused, match="is no deadline"):
        pairs.read_deadline(when)
