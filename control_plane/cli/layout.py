"""Rows and facts for a person: tables where they fit, a block for each row where the terminal is narrow.

Rule: an id, which a person may copy, is never shortened or folded in a table; other cells fold. Text from outside
passes `visible`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from control_plane.cli.text import visible

Row = Mapping[str, Any]
Cell = Callable[[Row], object]

_LEAST: Final = 12
"""Columns that a cell which folds needs to be readable."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `wide` ones are shown with `-o wide` only, `whole` ones do not fold, `right` ones hold numbers."""

    title: str
    cell: Cell
    wide: bool = False
    whole: bool = False
    right: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows in columns."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    wide: bool = False

    def widened(self) -> "Listing":
        """With the columns of `-o wide`."""
        return replace(self, wide=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A table if its columns have room, else a block for each row."""
        shown = [column for column in self.columns if self.wide or not column.wide]
        cells = [[text_of(column.cell(row)) for column in shown] for row in self.rows]
        if cells and _least(shown, cells) > options.max_width:
            yield Group(*_blocks(shown, cells))
            return
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for column in shown:
            drawn.add_column(
                column.title,
                overflow="fold",
                no_wrap=column.whole,
                justify="right" if column.right else "left",
            )
        for line in cells:
            drawn.add_row(*line)
        yield drawn


def _least(columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> int:
    """The columns of the terminal that the table needs."""
    widths = []
    for column, texts in zip(columns, zip(*cells, strict=True), strict=True):
        longest = max(max(map(cell_len, text.plain.split("\n")), default=0) for text in texts)
        widths.append(max(cell_len(column.title), longest if column.whole else min(longest, _LEAST)))
    return sum(widths) + len(widths)


def _blocks(columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> list[RenderableType]:
    blocks: list[RenderableType] = []
    for line in cells:
        pairs = (
            (column.title, text) for column, text in zip(columns, line, strict=True) if text.plain not in ("-", "")
        )
        blocks += ["", facts(*pairs)]
    return blocks[1:]


def facts(*pairs: tuple[str, object]) -> Table:
    """One thing, a line for each known fact."""
    shown = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            text = text_of(value).copy()
            # Here an id folds too: it would be cut at the edge of a narrow terminal.
            text.no_wrap = False
            shown.add_row(name, text)
    return shown


def text_of(value: object) -> Text:
    """Any value as text that folds; text that is laid out already stays as it is."""
    return value if isinstance(value, Text) else cell(value)


def id_cell(value: object) -> Text:
    """An id, which a person may copy: it does not fold."""
    return Text(dash(value), no_wrap=True)


def cell(value: object) -> Text:
    """Any text, which folds."""
    return Text(dash(value), overflow="fold")


def dash(value: object) -> str:
    """The value on one line; `-` for what is not known."""
    return "-" if value is None else visible(value)


def raw_listing(rows: Iterable[Row], names: Sequence[str]) -> Listing:
    """Members of rows as they are, a column for each."""
    return Listing([Column(name, lambda row, name=name: _raw(row.get(name))) for name in names], list(rows))  # type: ignore[misc]


def _raw(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case dict():
            return " ".join(f"{key}={one}" for key, one in sorted(value.items())) or None
        case list():
            return ", ".join(map(str, value)) or None
        case _:
            return str(value)
