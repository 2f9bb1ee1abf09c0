"""What is done for uploads that are closed: the work on their files, and their receipts, as one thing for the loop.

Rule: used by the agent's loop only. Everything is found again in the tombstones of the journal.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from device_agent.after.duties import AfterDone, AfterDuties
from device_agent.after.files import AfterFiles
from device_agent.after.machine import FileKept, Phase
from device_agent.after.policy import AfterPolicy
from device_agent.after.receipts import ReceiptDuties, ReceiptSigner
from device_agent.files.roots import Roots
from device_agent.state.journal import Journal
from device_agent.transfer.records import Afterwards
from schemas.messages import CloseUpload, Response
from schemas.values import ErrorCode

log = logging.getLogger(__name__)


class RunsWork(Protocol):
    """Runs `call` on a thread; `unanswered` is called when the file system does not answer."""

    def __call__(self, call: Callable[[], None], unanswered: Callable[[], None]) -> None:
        """Start it."""


class ClosedUploads:
    """The duties of closed uploads. `run` runs work on a thread, `post` takes its end; `signer` signs receipts.

    `in_use` is whether an upload that has not ended reads this file; `grace` is in seconds.
    """

    def __init__(  # noqa: PLR0913 (one keyword for each collaborator)
        self,
        journal: Journal,
        roots: Roots,
        policy: AfterPolicy,
        *,
        client_id: str,
        signer: ReceiptSigner | None,
        publish: Callable[[Response, str], None],
        in_use: Callable[[str], bool],
        run: RunsWork,
        post: Callable[[AfterDone], None],
        grace: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._post = post
        self._stopped = threading.Event()
        self._files: Final = AfterFiles(roots, self._stopped.is_set, policy.forbids)
        self._after: Final = AfterDuties(
            journal, submit=self._submit, publish=publish, in_use=in_use, grace=grace, wall=wall
        )
        self._receipts: Final = ReceiptDuties(journal, signer, client_id=client_id, publish=publish)

    def begin(self, upload_ids: Iterable[str]) -> None:
        """Uploads were closed."""
        closed = tuple(upload_ids)
        self._after.begin(closed)
        self._receipts.begin(closed)

    def done(self, done: AfterDone, now: float) -> None:
        """The work on a file has ended."""
        self._after.done(done, now)

    def acknowledged(self, upload_id: str, close: CloseUpload) -> None:
        """A close of an upload that is closed."""
        self._after.acknowledged(upload_id, close)
        self._receipts.acknowledged(upload_id, close)

    def connected(self) -> None:
        """What was not acknowledged is published again at once."""
        self._after.connected()
        self._receipts.connected()

    def work(self, now: float, *, connected: bool) -> None:
        """After a commit: do what is due."""
        self._after.work(now, connected=connected)
        self._receipts.work(now, connected=connected)

    def next_at(self, *, connected: bool) -> float | None:
        """When `work` has an effect, as far as time decides it."""
        moments = [self._after.next_at(connected=connected), self._receipts.next_at if connected else None]
        return min((one for one in moments if one is not None), default=None)

    def stop(self) -> None:
        """End a reading soon."""
        self._stopped.set()

    def _submit(self, number: int, upload_id: str, after: Afterwards, phase: Phase) -> None:
        def call() -> None:
            try:
                event = self._files.work(upload_id, after, phase)
            except Exception as error:
                log.exception("the file of upload %s could not be worked on", upload_id)
                event = FileKept(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
            self._post(AfterDone(number, upload_id, event))

        self._run(call, lambda: self._post(AfterDone(number, upload_id, None)))
