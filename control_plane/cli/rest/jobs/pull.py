"""Fetches the proven files of a job into a folder: in parallel, resumed, each checked against its digest.

Rule: a name that a device chose never leads out of the folder, neither by `..` nor by a link. A file has its name only
once its content agrees; until then it is below `.part`, where no file of a client has its place.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from control_plane.cli.errors import CliError, Failed
from control_plane.cli.rest.client import ControlPlane, read_object
from control_plane.cli.rest.jobs.calls import job_path
from control_plane.cli.text import visible
from control_plane.domain.jobs.contents import ContentCheck
from control_plane.services.jobs.results.formats import DownloadList, ResultFormat

Read = Callable[[str, int], Iterator[bytes]]
Line = dict[str, Any]

UNFINISHED: Final = ".part"
"""The folder of what is not fetched as a whole. No client id begins with a dot."""

_BLOCK: Final = 1024 * 1024


@dataclass(slots=True)
class Pulled:
    """What was done so far. `unchecked` files have no digest: only their size was compared."""

    fetched: int = 0
    present: int = 0
    unchecked: int = 0
    bytes: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """The reason for each place that failed."""

    @property
    def files(self) -> int:
        """How many files were looked at."""
        return self.fetched + self.present + len(self.failed)

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "files": self.files,
            "fetched": self.fetched,
            "present": self.present,
            "unchecked": self.unchecked,
            "bytes": self.bytes,
            "failed": self.failed,
        }


class Puller:
    """Fetches files with several threads. `progress` is called after each block and each file."""

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        *,
        parallel: int,
        read: Read = read_object,
        progress: Callable[[Pulled], None] = lambda _: None,
    ) -> None:
        self._plane = plane
        self._folder = folder
        self._parallel = parallel
        self._read = read
        self._progress = progress
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.done = Pulled()

    def run(self, job_id: str) -> Pulled:
        """Fetch what is missing; `Failed` when the folder cannot be made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            text = f"{self._folder}: {error.strerror}"
            raise Failed(text) from error
        root = self._folder.resolve()
        unfinished = root / UNFINISHED
        places = DownloadList(ResultFormat.CURL)
        lines = (json.loads(line) for line in self._plane.lines(f"{job_path(job_id)}/results", {"format": "jsonl"}))
        proven = (line for line in lines if line.get("outcome") == "proven" and line.get("upload_id"))
        with ThreadPoolExecutor(self._parallel, "pull") as threads:
            try:
                self._fetch_all(
                    threads, root, ((line, places.place(line["client_id"], line["path"])) for line in proven)
                )
            finally:
                self._stop.set()
        with suppress(OSError):
            # It stays while it holds anything.
            unfinished.rmdir()
        return self.done

    def _fetch_all(self, threads: ThreadPoolExecutor, root: Path, wanted: Iterable[tuple[Line, str]]) -> None:
        """At most a few files wait for a thread: a job may have a million."""
        running: set[Future[None]] = set()
        for line, place in wanted:
            running.add(threads.submit(self._one, root, line, place))
            if len(running) >= 2 * self._parallel:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    one.result()
        for one in running:
            one.result()

    def _one(self, root: Path, line: Line, place: str) -> None:
        try:
            fetched = self._fetch(line, _within(root, place), _within(root, unfinished_place(place)))
        except (CliError, OSError) as error:
            why = visible(error)
            self._note(lambda done: done.failed.update({place: why}))
            return
        self._note(lambda done: _count(done, line, fetched=fetched))

    def _fetch(self, line: Line, target: Path, unfinished: Path) -> bool:
        """Whether anything had to be fetched."""
        size, digest = int(line["bytes"] or 0), line.get("digest")
        if target.is_file() and target.stat().st_size == size and self._agrees(target, digest):
            return False
        for path in (target, unfinished):
            path.parent.mkdir(parents=True, exist_ok=True)
        resumed = unfinished.exists()
        while True:
            self._append(line, unfinished, size)
            if unfinished.stat().st_size == size and self._agrees(unfinished, digest):
                unfinished.replace(target)
                return True
            unfinished.unlink()
            if not resumed:
                message = "what was fetched is not the object: size or digest differs"
                raise Failed(message)
            # What an earlier command left there was not the beginning of this object.
            resumed = False

    def _append(self, line: Line, unfinished: Path, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(unfinished, flags, 0o600), "ab") as file:
            start = file.seek(0, os.SEEK_END)
            if start > size:
                file.truncate(0)
                start = 0
            if start == size and size:
                return
            url = self._plane.url(line["upload_id"], line["client_id"])["url"]
            for block in self._read(url, start):
                if self._stop.is_set():
                    message = "stopped"
                    raise Failed(message)
                file.write(block)
                self._note(lambda done, block=block: setattr(done, "bytes", done.bytes + len(block)))  # type: ignore[misc]

    def _agrees(self, path: Path, digest: str | None) -> bool:
        check = ContentCheck.of(digest or "")
        if check is None:
            return True
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                check.update(block)
        return check.agrees()

    def _note(self, change: Callable[[Pulled], object]) -> None:
        with self._lock:
            change(self.done)
            self._progress(self.done)


def _count(done: Pulled, line: Line, *, fetched: bool) -> None:
    done.fetched += fetched
    done.present += not fetched
    done.unchecked += ContentCheck.of(line.get("digest") or "") is None


def unfinished_place(place: str) -> str:
    """Where the file of this place is until it is fetched as a whole; the next command continues there."""
    return f"{UNFINISHED}/{hashlib.sha256(place.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _within(root: Path, place: str) -> Path:
    """The place below the folder; `Failed` when a link there leads out of it."""
    target = root / place
    if not target.parent.resolve().is_relative_to(root) or target.is_symlink():
        message = "a link leads out of the folder"
        raise Failed(message)
    return target
