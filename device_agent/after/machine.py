"""The steps of one file after its upload: hidden, left alone for a grace, compared, deleted or moved, reported.

Rule: pure, and one table. What a crash must not forget is in `Afterwards`, which is durable before the next work
starts; everything else is found again from the names in the folder. The file is hidden first, so that no later work
meets a new file that has taken its name.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from device_agent.transfer.records import AfterStep, Afterwards
from schemas.messages import DELETE
from schemas.values import AfterOutcome, ErrorCode, Fingerprint


class Phase(StrEnum):
    """What is to be done next."""

    HIDE = "hide"
    """Compare the file with what was sent, and rename it within its folder to its hidden name."""
    WAIT = "wait"
    """Leave it alone for the grace: a process may still have it open."""
    CHECK = "check"
    """Read the hidden file, and compare its digests with those of the parts that were sent."""
    END = "end"
    """Delete it, or rename it into the other folder, if it is as it was checked."""
    REPORT = "report"
    """Publish the receipt until the owner acknowledges it."""
    OVER = "over"


class Hidden(Struct, frozen=True):
    """The file has its hidden name."""


class GraceOver(Struct, frozen=True):
    """The grace has passed."""


class Checked(Struct, frozen=True):
    """The hidden file has the bytes that were sent; `found` is its fingerprint before and after the reading."""

    found: Fingerprint


class Differs(Struct, frozen=True):
    """The hidden file is not as it was checked: it is looked at from the beginning."""


class Ended(Struct, frozen=True):
    """The file is deleted or moved; `text` is where it is now."""

    outcome: AfterOutcome
    text: str | None = None


class FileKept(Struct, frozen=True):
    """The file stays, and is under a visible name again, which `text` has if it is another one."""

    code: ErrorCode
    text: str


class Acknowledged(Struct, frozen=True):
    """The owner has committed the receipt, or does not know the upload."""


FileEvent = Hidden | Checked | Differs | Ended | FileKept
Event = FileEvent | GraceOver | Acknowledged

_Row = tuple[Phase, Callable[[Afterwards, Event], Afterwards]]


def _same(after: Afterwards, _event: Event) -> Afterwards:
    return after


def _checked(after: Afterwards, event: Event) -> Afterwards:
    assert isinstance(event, Checked)  # noqa: S101 (for the type checker: the table gives it nothing else)
    return replace(after, step=AfterStep.ENDING, found=event.found)


def _again(after: Afterwards, _event: Event) -> Afterwards:
    return replace(after, step=AfterStep.DUE, found=None)


def _over(after: Afterwards, event: Event) -> Afterwards:
    outcome = event.outcome if isinstance(event, Ended) else AfterOutcome.KEPT
    code = event.code if isinstance(event, FileKept) else None
    text = event.text if isinstance(event, Ended | FileKept) else None
    return replace(after, step=AfterStep.REPORTED, found=None, outcome=outcome, code=code, text=text)


TABLE: Final[Mapping[tuple[Phase, type[Event]], _Row]] = {
    (Phase.HIDE, Hidden): (Phase.WAIT, _same),
    (Phase.HIDE, FileKept): (Phase.REPORT, _over),
    (Phase.WAIT, GraceOver): (Phase.CHECK, _same),
    (Phase.CHECK, Checked): (Phase.END, _checked),
    (Phase.CHECK, FileKept): (Phase.REPORT, _over),
    (Phase.END, Ended): (Phase.REPORT, _over),
    (Phase.END, Differs): (Phase.HIDE, _again),
    (Phase.END, FileKept): (Phase.REPORT, _over),
    (Phase.REPORT, Acknowledged): (Phase.OVER, _same),
}
"""The next phase and the change of the record, for each event that a phase allows; any other one changes nothing."""


def first(after: Afterwards) -> Phase:
    """Where the work begins after a close, and continues after a restart."""
    return {AfterStep.DUE: Phase.HIDE, AfterStep.ENDING: Phase.END, AfterStep.REPORTED: Phase.REPORT}[after.step]


def follow(after: Afterwards, phase: Phase, event: Event) -> tuple[Afterwards, Phase]:
    """The record and the phase after an event."""
    row = TABLE.get((phase, type(event)))
    if row is None:
        return after, phase
    next_phase, change = row
    return change(after, event), next_phase


def grace_of(after: Afterwards, grace: float) -> float:
    """Seconds for which the hidden file is left alone: a file that is moved is lost to no process."""
    return grace if after.asked == DELETE else 0.0
