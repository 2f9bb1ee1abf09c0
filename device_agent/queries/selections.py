"""Selections of files on their way: which are being made, who waits for an answer, and what becomes of it.

Rule: used by the agent's loop only; the walk and the reading of a page run on workers. A selection has the id of the
command that made it, so the same command again finds it, if it has the same scope: a key that is limited to some paths
reads no selection of a key with others. A command is answered within `PATIENCE`, by a page or by `complete` false; a
failure that nothing waits for is kept for the next command.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import Struct, field

from device_agent.errors import FileRefused
from device_agent.files.roots import Roots
from device_agent.files.selecting import choose_files
from device_agent.state.selections import KeptSelections
from schemas.messages import Command, SelectFiles, Selection
from schemas.values import ErrorCode

PATIENCE: Final = 2.0
"""Seconds that a command waits for its selection before it is answered with `complete` false."""

MAX_WALKS: Final = 16
"""Walks that run or wait, and failures that no command has requested yet; of each."""

log = logging.getLogger(__name__)


class Name(NamedTuple):
    """What a selection is found by: its id, and the scope of who asks (empty: every path)."""

    selection: str
    scope: str = ""


class SelectionMissing(Struct, frozen=True):
    """A command of this scope requests a selection that is not kept."""

    command: Command
    request: SelectFiles
    scope: str = ""


class WalkEnded(Struct, frozen=True):
    """A selection is kept; or `code` and `text` are the reason why it is not."""

    name: Name
    code: ErrorCode | None = None
    text: str = ""


Post = Callable[[SelectionMissing | WalkEnded], None]


class _Walk(Struct):
    """A selection that is being made; after `answer_at` nothing waits for its end."""

    job_id: str
    answer_at: float
    waiting: dict[str, tuple[Command, SelectFiles]] = field(default_factory=dict)


class Selections:
    """Makes selections, one at a time.

    `submit` runs a call on the worker of walks, and its second call when a file system does not answer; `read` starts
    the reading of a page, False when too many queries wait; `fail` and `answer` publish.
    """

    def __init__(
        self,
        kept: KeptSelections,
        roots: Roots,
        *,
        submit: Callable[[Callable[[], None], Callable[[], None]], None],
        post: Post,
        read: Callable[[Command, SelectFiles, Callable[[], Selection | None], str], bool],
        answer: Callable[[Command, Selection], None],
        fail: Callable[[Command, ErrorCode, str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._roots = roots
        self._submit = submit
        self._post = post
        self._read = read
        self._answer = answer
        self._fail = fail
        self._wall = wall
        self._stopped = threading.Event()
        self._walks: dict[Name, _Walk] = {}
        self._failures: dict[Name, tuple[ErrorCode, str]] = {}

    def ask(self, command: Command, request: SelectFiles, scope: str = "") -> bool:
        """Answer with a page, or begin a walk; False when too many commands wait.

        `scope` names the paths that its signer may read, empty for every path.
        """
        for selection in filter(None, (request.selection, command.message_id)):
            name = Name(selection, scope)
            if failure := self._failures.pop(name, None):
                self._fail(command, *failure)
                return True
            if walk := self._walks.get(name):
                self._wait(name, walk, command, request)
                return True
        return self._read(command, request, lambda: self._page(command.message_id, request, scope), scope)

    def missing(self, command: Command, request: SelectFiles, now: float, scope: str = "") -> None:
        """There is no such selection of this scope: make it, under the id of the command."""
        name = Name(command.message_id, scope)
        if name in self._walks:
            return
        if len(self._walks) >= MAX_WALKS:
            self._fail(command, ErrorCode.BUSY, "too many selections wait to be made")
            return
        self._walks[name] = _Walk(request.job_id, now + PATIENCE, {name.selection: (command, request)})

        def unanswered() -> None:
            text = "source_unresponsive: a file system of the device does not answer"
            self.ended(WalkEnded(name, ErrorCode.INTERNAL, text))

        self._submit(lambda: self._post(self._make(name, request)), unanswered)

    def ended(self, end: WalkEnded) -> None:
        """A walk has ended: read the pages that are waited for, or report its failure."""
        walk = self._walks.pop(end.name, None)
        if walk is None:
            return
        if end.code is not None and not walk.waiting:
            self._failures[end.name] = (end.code, end.text)
            while len(self._failures) > MAX_WALKS:
                del self._failures[next(iter(self._failures))]
        for command, request in walk.waiting.values():
            if end.code is not None:
                self._fail(command, end.code, end.text)
            else:
                self._read_made(command, request, end.name)

    def tick(self, now: float) -> None:
        """Answer the commands that have waited long enough."""
        for name, walk in self._walks.items():
            if walk.waiting and now >= walk.answer_at:
                for command, _ in walk.waiting.values():
                    self._answer(command, Selection(walk.job_id, name.selection, complete=False))
                walk.waiting.clear()

    @property
    def next_at(self) -> float | None:
        """When `tick` has an effect."""
        return min((walk.answer_at for walk in self._walks.values() if walk.waiting), default=None)

    def stop(self) -> None:
        """End every walk soon."""
        self._stopped.set()

    def _wait(self, name: Name, walk: _Walk, command: Command, request: SelectFiles) -> None:
        if not walk.waiting:
            self._answer(command, Selection(walk.job_id, name.selection, complete=False))
        elif len(walk.waiting) < MAX_WALKS:
            walk.waiting[command.message_id] = (command, request)

    def _read_made(self, command: Command, request: SelectFiles, name: Name) -> None:
        def page() -> Selection:
            offset = _offset(request, name.selection)
            found = self._kept.page(name.selection, offset, request.limit, name.scope)
            if found is None:
                raise FileRefused(ErrorCode.INTERNAL, "the selection was made, and cannot be read")
            return found

        if not self._read(command, request, page, name.scope):
            self._fail(command, ErrorCode.BUSY, "too many queries wait for an answer")

    def _page(self, made_by: str, request: SelectFiles, scope: str) -> Selection | None:
        """A page of the selection that is named, else of the one that this command made before; of this scope."""
        for selection in filter(None, (request.selection, made_by)):
            if found := self._kept.page(selection, _offset(request, selection), request.limit, scope):
                return found
        return None

    def _make(self, name: Name, request: SelectFiles) -> WalkEnded:
        selection = name.selection
        began, now_ns = time.monotonic(), int(self._wall() * 1_000_000_000)
        try:
            chosen = choose_files(request, self._roots, now_ns=now_ns, stopped=self._stopped.is_set)
            head = Selection(request.job_id, selection, True, chosen.files, chosen.bytes, chosen.left_out)  # noqa: FBT003
            self._kept.keep(selection, head, chosen.entries(), name.scope)
        except FileRefused as refused:
            return WalkEnded(name, refused.code, refused.text)
        except OSError as error:
            return WalkEnded(name, ErrorCode.NO_SPACE, f"a selection cannot be kept: {error}")
        except Exception as error:
            log.exception("selection %s failed", selection)
            return WalkEnded(name, ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
        spent = time.monotonic() - began
        text = "selection %s: %d files of %d bytes match, %d are left out, in %.1f s"
        log.info(text, selection, chosen.files, chosen.bytes, chosen.left_out, spent)
        return WalkEnded(name)


def _offset(request: SelectFiles, selection: str) -> int:
    """A selection that was made again is read from its beginning."""
    return request.offset if request.selection in {None, selection} else 0
