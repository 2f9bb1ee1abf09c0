"""An upload that the gate holds, and a deadline that is moved.

Rule: as in `machine`, whose table of handlers names these functions. A held upload keeps its state, its attempt and
what its client requested.
"""

from msgspec.structs import replace

from control_plane.domain.uploads.duties import Duty, duties
from control_plane.domain.uploads.events import DeadlineMoved, GateOpened, Held
from control_plane.domain.uploads.model import TERMINAL, State, Upload

Changed = tuple[Upload, tuple[Duty, ...]]
"""As `machine.Applied`."""


def deadline_moved(upload: Upload, event: DeadlineMoved) -> Changed:
    """The upload with its new deadline, unless it is over."""
    if upload.state in TERMINAL or upload.deadline == event.deadline:
        return upload, ()
    return replace(upload, deadline=event.deadline), ()


def held(upload: Upload, event: Held) -> Changed:
    """The upload whose grant is due again at `wake_at`. Its step timer does not run until then."""
    if not _is_asked(upload, event):
        return upload, ()
    after = replace(upload, held=True, reason=event.reason, resume_at=event.wake_at, touched_at=event.now)
    return after, duties(after)


def gate_opened(upload: Upload, event: GateOpened) -> Changed:
    """The upload of a client that can continue: its step timer runs from here."""
    if not (upload.held and _is_asked(upload, event)):
        return upload, ()
    return replace(upload, held=False, reason=None, resume_at=0.0, touched_at=event.now), ()


def _is_asked(upload: Upload, event: Held | GateOpened) -> bool:
    """Whether the upload still waits for the grant that was requested of the gate."""
    granting = upload.state is State.IN_PROGRESS and upload.opened
    return granting and (event.attempt, event.sequence) == (upload.attempt, upload.sequence)
