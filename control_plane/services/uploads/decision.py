"""What a commit decided, and what it changed.

Rule: a decision is acted on after its commit. The one exception is a deferred success: its object is looked at first,
which changes nothing and may be repeated, and then the success is committed together with its proof (decision 10).
"""

from collections.abc import Callable
from dataclasses import dataclass

from control_plane.domain.changes import Change
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.events import Event, Succeeded
from control_plane.domain.uploads.model import State, Upload, UploadKey


@dataclass(frozen=True, slots=True)
class Decision:
    """The duties of one upload to perform now.

    `upload` is None when no upload has this key: then the client is released from it. With `deferred` that event is not
    committed yet: it is to be committed together with the result of the duty.
    """

    key: UploadKey
    upload: Upload | None
    duties: tuple[Duty, ...]
    attempt: int = 1
    deferred: Succeeded | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction of the writer came to."""

    decisions: tuple[Decision, ...]
    changes: tuple[Change, ...]


Listener = Callable[[Commit], None]
"""Called after each commit, on the event loop; it must not block and must not raise."""


def deferred_success(before: Upload, after: Upload, duties: tuple[Duty, ...], event: Event) -> Decision | None:
    """The decision that defers `event`: a success that completes an object which was PUT whole; else None.

    Nothing is lost when the process ends before it is committed: the client gets no answer, and reports it again.
    """
    finished = before.state is not State.COMPLETING and after.state is State.COMPLETING
    if not (finished and after.one_put and isinstance(event, Succeeded)):
        return None
    completion = tuple(duty for duty in duties if duty.kind is Kind.COMPLETE)
    return Decision(after.key, after, completion, after.attempt, event)


def same_object(seen: Upload, now: Upload) -> bool:
    """Whether a proof for `seen` also proves `now`: the same object with the same digests."""
    return _object_of(seen) == _object_of(now)


def _object_of(upload: Upload) -> tuple[object, ...]:
    digests = {number: part.digest for number, part in upload.parts.items()}
    return upload.s3_key, upload.object_token, upload.file_size, upload.one_put, digests
