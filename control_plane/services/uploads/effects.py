"""What is to be done about an upload: by a commit, or ahead of one.

Rule: ahead of its commit nothing is done but a look at the object, which changes nothing and may be taken twice. So it
may rest on what was committed last, however old that is: the success is committed together with what was seen, on the
upload as it is then (decision 10).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.errors import DomainError
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.events import Event, Succeeded
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import State, Upload, UploadKey

MOST_OPEN: Final = 4096
"""Uploads that are remembered; of any other the database is asked."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What was decided for one upload, to be done now. `upload` None: nobody knows it.

    With `ahead` nothing is committed yet: that event is to be submitted together with what comes of the duty.
    """

    key: UploadKey
    upload: Upload | None
    duties: tuple[Duty, ...]
    attempt: int = 1
    ahead: Succeeded | None = None


Perform = Callable[[Effects], None]


def ahead_of(before: Upload, after: Upload, duties: tuple[Duty, ...], event: Event) -> Effects | None:
    """The look that a success waits for, when the upload is over but for it; else None.

    Should we die before it is committed, the device says it again.
    """
    finished = before.state is not State.COMPLETING and after.state is State.COMPLETING
    if not (finished and after.one_put and isinstance(event, Succeeded)):
        return None
    look = tuple(duty for duty in duties if duty.kind is Kind.COMPLETE)
    return Effects(after.key, after, look, after.attempt, event)


def same_object(seen: Upload, now: Upload) -> bool:
    """Whether a proof for `seen` is one for `now`: the same object of the same bytes."""
    return _object_of(seen) == _object_of(now)


def _object_of(upload: Upload) -> tuple[object, ...]:
    digests = {number: part.digest for number, part in upload.parts.items()}
    return upload.s3_key, upload.object_token, upload.file_size, upload.one_put, digests


class OpenUploads:
    """Uploads that clients send in one PUT, as they were committed last."""

    def __init__(self) -> None:
        self._known: dict[UploadKey, Upload] = {}

    def committed(self, upload: Upload) -> None:
        """Remember it, or forget it when it is over."""
        self._known.pop(upload.key, None)
        if upload.one_put and upload.state is State.IN_PROGRESS:
            self._known[upload.key] = upload
        while len(self._known) > MOST_OPEN:
            self._known.pop(next(iter(self._known)))

    def ahead_of(self, key: UploadKey, event: Event) -> Effects | None:
        """The look that this event waits for; None when it waits for none, or when nothing is known."""
        known = self._known.get(key) if isinstance(event, Succeeded) else None
        if known is None:
            return None
        try:
            after, duties = apply(known, event)
        except DomainError:
            # The commit says what is wrong with it.
            return None
        return ahead_of(known, after, duties, event)
