"""The screens of `backhaul top`.

Rule: they draw what the feed holds and pass keys to the model; no text is markup, as it may come from a device.
"""

import asyncio
import signal
from datetime import UTC, datetime
from typing import ClassVar, Final

from rich.console import Group
from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static, Tabs
from textual.widgets import Tab as TabLabel

from control_plane.cli.errors import CliError, Misused
from control_plane.cli.rest.watching import REDRAW
from control_plane.cli.text import visible
from control_plane.cli.top import model
from control_plane.cli.top.feed import Connect, Feed
from control_plane.cli.top.model import FILTERS, Following, Row, Tab, Verb

_STREAM: Final = {Following.LIVE: "green", Following.CONNECTING: "yellow", Following.LOST: "red"}

_CSS: Final = """
#top { height: 2; }
Tabs { width: 36; }
#place { width: 1fr; height: 1; padding: 0 1; }
#stream { width: 1fr; height: 1; padding: 0 1; text-align: right; }
Details #stream { width: auto; max-width: 60%; }
Rows { height: 1fr; scrollbar-size-horizontal: 0; }
Rows > .datatable--cursor { text-style: reverse; }
Rows > .datatable--header { text-style: bold; }
#summary { height: 1; padding: 0 1; }
#filter { height: 3; border: round ansi_blue; }
#facts { padding: 0 1; }
Ask { align: center middle; }
#question { width: 64; max-width: 90%; height: auto; padding: 1 2; border: round ansi_yellow; }
"""


class Changed(Message):
    """The feed holds something new."""


class Rows(DataTable[Text]):
    """The rows of a list."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "open")]


class Ask(ModalScreen[bool]):
    """A question before something is done; only `y` is yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,enter,q", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The question, and the keys."""
        yield Static(Text.assemble(self._text, "\n\n", ("y", "bold"), " yes    ", ("n", "bold"), " no"), id="question")

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001 - Textual calls it with the binding's value
        """Close with the answer."""
        self.dismiss(answer)


class Details(Screen[None]):
    """Everything about one row, as long as it is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,backspace", "back", "back"),
        Binding("p", "app.act('p')", "pause/resume"),
        Binding("c", "app.act('c')", "cancel"),
        Binding("r", "app.act('r')", "retry"),
        Binding("q", "app.quit", "quit"),
    ]

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def compose(self) -> ComposeResult:
        """The state of the stream, the facts, the keys."""
        yield Horizontal(Static(id="place"), Static(id="stream"), id="top")
        yield VerticalScroll(Static(id="facts"))
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Draw for the first time, and scroll by keys."""
        self.query_one(VerticalScroll).focus()
        self.draw()

    def draw(self) -> None:
        """Draw what the feed holds."""
        opened = self._feed.opened
        if opened is None:
            return
        tab, row = opened
        self.query_one("#place", Static).update(Text(model.title_of(tab, row), style="bold", overflow="ellipsis"))
        self.query_one("#stream", Static).update(stream_text(self._feed))
        problem = self._feed.opened_problem
        notes = [Text(problem, style="red"), Text()] if problem else []
        self.query_one("#facts", Static).update(Group(*notes, model.details(tab, row, datetime.now(UTC))))

    def action_back(self) -> None:
        """Return to the list."""
        self._feed.close()
        self.dismiss(None)


class Top(App[None]):
    """The lists, one tab each."""

    ENABLE_COMMAND_PALETTE = False
    CSS = _CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "look_at('uploads')", "uploads", show=False),
        Binding("2", "look_at('jobs')", "jobs", show=False),
        Binding("3", "look_at('clients')", "clients", show=False),
        Binding("tab", "next(1)", "next list", priority=True),
        Binding("shift+tab", "next(-1)", "list before", show=False, priority=True),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("p", "act('p')", "pause/resume"),
        Binding("c", "act('c')", "cancel"),
        Binding("r", "act('r')", "retry"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "interrupt", "interrupt", show=False, priority=True),
    ]

    def __init__(self, connect: Connect, server: str, *, agreed: bool = False, acts: bool = True) -> None:
        """`agreed` means without a question; without `acts` nothing is done, since no question may be put."""
        # The colours of the terminal; without them, or with NO_COLOR, Textual would draw in grey.
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.interrupted = False
        self.feed = Feed(connect, self._changed)
        self._server = server
        self._agreed = agreed
        self._acts = acts
        self._looked_at = Tab.UPLOADS
        self._columns: tuple[Tab, tuple[int, ...]] | None = None

    def compose(self) -> ComposeResult:
        """Tabs, the list, how many there are, the filter, the keys."""
        yield Horizontal(
            Tabs(*(TabLabel(f"{at} {tab}", id=str(tab)) for at, tab in enumerate(Tab, 1))),
            Static(id="stream"),
            id="top",
        )
        yield Rows(cursor_type="row")
        yield Static(id="summary")
        yield Input(id="filter")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self.title = f"backhaul top {visible(self._server)}"
        self.query_one(Input).display = False
        self.query_one(Tabs).can_focus = False
        self.query_one(Rows).focus()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self.action_interrupt)
        self.set_interval(REDRAW, self.draw)
        self.feed.start()
        self.draw()

    def _changed(self) -> None:
        """Draw soon; the feed calls it in its own thread."""
        self.post_message(Changed())

    def on_unmount(self) -> None:
        """Read nothing more."""
        self.feed.stop()

    @on(Changed)
    def draw(self) -> None:
        """Draw what the feed holds."""
        screen = self.screen
        if isinstance(screen, Details):
            screen.draw()
        if not self.is_running:
            return
        lists = self.screen_stack[0]
        page = self.feed.pages[self._looked_at]
        table = lists.query_one(Rows)
        shown = model.shown(self._looked_at, page, max(40, self.size.width - 2), datetime.now(UTC))
        self._fill(table, shown)
        lists.query_one("#stream", Static).update(stream_text(self.feed))
        text = model.summary(self._looked_at, page, len(shown.keys))
        if page.typed:
            text += f"  filter: {visible(page.typed)}"
        style = "red" if page.problem else "yellow" if page.cut else ""
        lists.query_one("#summary", Static).update(Text(text, style=style, overflow="ellipsis", no_wrap=True))

    def _fill(self, table: Rows, shown: model.Shown) -> None:
        """Put the rows into the table; the cursor stays on its row, or at its place where the row is gone."""
        at = table.cursor_row
        key = self._key_at(table, at)
        scrolled = table.scroll_y
        wanted = (self._looked_at, tuple(shown.widths))
        if wanted != self._columns:
            table.clear(columns=True)
            for head, width in zip(model.columns(self._looked_at), shown.widths, strict=True):
                table.add_column(Text(head.title), width=width)
            self._columns = wanted
        else:
            table.clear()
        for name, line in zip(shown.keys, shown.cells, strict=True):
            table.add_row(*line, key=name)
        if shown.keys:
            row = shown.keys.index(key) if key in shown.keys else min(max(at, 0), len(shown.keys) - 1)
            table.scroll_y = scrolled
            table.move_cursor(row=row, animate=False, scroll=True)

    @staticmethod
    def _key_at(table: Rows, at: int) -> str | None:
        return table.ordered_rows[at].key.value if 0 <= at < table.row_count else None

    def _chosen(self) -> tuple[Tab, Row] | None:
        """The row that a key is about: the opened one, or the one under the cursor."""
        if isinstance(self.screen, Details):
            return self.feed.opened
        table = self.screen.query_one(Rows)
        key = self._key_at(table, table.cursor_row)
        rows = (row for row in self.feed.pages[self._looked_at].rows if model.key_of(self._looked_at, row) == key)
        row = next(rows, None)
        return None if row is None else (self._looked_at, row)

    @on(Rows.RowSelected)
    def open_row(self) -> None:
        """Show everything about the row under the cursor."""
        chosen = self._chosen()
        if chosen is not None:
            self.feed.open(*chosen)
            self.push_screen(Details(self.feed))

    @on(Tabs.TabActivated)
    def tab_chosen(self, event: Tabs.TabActivated) -> None:
        """Show the list of this tab."""
        if event.tab.id:
            self._looked_at = Tab(event.tab.id)
            self.query_one(Input).display = False
            self.query_one(Rows).focus()
            self.feed.look_at(self._looked_at)
            self.draw()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - as Textual's
        """The keys of the lists do nothing while a question or details are shown."""
        lists_only = action in ("look_at", "next", "filter")
        return not (lists_only and len(self.screen_stack) > 1) and not (action == "act" and self._asking)

    @property
    def _asking(self) -> bool:
        return isinstance(self.screen, Ask)

    def action_look_at(self, name: str) -> None:
        """Show another list."""
        self.query_one(Tabs).active = name

    def action_next(self, step: int) -> None:
        """Show the list beside it."""
        tabs = list(Tab)
        self.query_one(Tabs).active = str(tabs[(tabs.index(self._looked_at) + step) % len(tabs)])

    def action_filter(self) -> None:
        """Type a filter."""
        box = self.query_one(Input)
        box.value = self.feed.pages[self._looked_at].typed
        names = " ".join(f"{name}=" for name in FILTERS[self._looked_at])
        box.placeholder = f"words of a row, or {names}; Enter keeps it, Esc removes it"
        box.display = True
        box.focus()

    @on(Input.Submitted)
    def filter_kept(self, event: Input.Submitted) -> None:
        """Apply the filter and return to the list."""
        self._narrow(event.value)

    def on_key(self, event: object) -> None:
        """Esc in the filter, or in the list with one, removes it."""
        if getattr(event, "key", "") == "escape" and len(self.screen_stack) == 1:
            self._narrow("")

    def _narrow(self, typed: str) -> None:
        try:
            self.feed.narrow(self._looked_at, typed)
        except Misused as error:
            self._tell(str(error), failed=True)
            return
        self.query_one(Input).display = False
        self.query_one(Rows).focus()
        self.draw()

    def action_act(self, key: str) -> None:
        """Ask, then do what the key means for the row."""
        chosen = self._chosen()
        if chosen is None:
            return
        tab, row = chosen
        try:
            verb = model.verb_of(tab, key, row)
        except Misused as error:
            self._tell(str(error), failed=True)
            return
        if not self._acts and not self._agreed:
            self._tell("--no-input asks nothing, so nothing is done: add --yes", failed=True)
        elif self._agreed:
            self._begin(tab, verb, row)
        else:
            self.push_screen(
                Ask(model.question(tab, verb, row)), lambda yes: self._begin(tab, verb, row) if yes else None
            )

    def _begin(self, tab: Tab, verb: Verb, row: Row) -> None:
        def work() -> None:
            try:
                self.feed.act(tab, verb, row)
            except CliError as error:
                self.call_from_thread(self._tell, str(error), failed=True)
            else:
                self.call_from_thread(self._tell, f"{verb}: {model.title_of(tab, row)}")

        self.run_worker(work, thread=True, exit_on_error=False)

    def _tell(self, text: str, *, failed: bool = False) -> None:
        self.notify(visible(text), severity="error" if failed else "information", markup=False)

    def action_interrupt(self) -> None:
        """Ctrl-C: end with its exit code."""
        self.interrupted = True
        self.exit()


def stream_text(feed: Feed) -> Text:
    """Whether changes arrive; while they do not, why."""
    text = Text(f"● {feed.stream}", style=_STREAM[feed.stream], no_wrap=True, overflow="ellipsis")
    if feed.stream is Following.LOST:
        text.append(f", connecting again: {feed.trouble}" if feed.trouble else ", connecting again")
    return text
