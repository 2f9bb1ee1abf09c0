"""What a lying device answers in place of a true selection: each answer decodes, and its content is wrong.

Rule: one device, one kind of lie or any, drawn for each answer.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from msgspec.structs import replace

from schemas.codec import decode_response, encode
from schemas.messages import FileEntry, Response, Selection
from schemas.values import Action, ErrorCode, ResponseStatus

_HUGE: Final = 2**50

Lie = Callable[[Selection], Selection]


def _foreign_path(true: Selection) -> Selection:
    return replace(true, entries=(FileEntry("/etc/shadow", 1, 0), *true.entries))


def _too_large(true: Selection) -> Selection:
    return replace(true, entries=tuple(replace(one, size=_HUGE) for one in true.entries))


def _twice(true: Selection) -> Selection:
    return replace(true, entries=(*true.entries, *true.entries))


def _endless(true: Selection) -> Selection:
    return replace(true, next=true.offset)


def _far_next(true: Selection) -> Selection:
    return replace(true, next=_HUGE)


def _many(true: Selection) -> Selection:
    return replace(true, files=_HUGE, bytes=_HUGE, left_out=_HUGE)


def _of_another_job(true: Selection) -> Selection:
    return replace(true, job_id="another-job")


def _never_complete(true: Selection) -> Selection:
    return replace(true, complete=False, entries=(), next=None)


def _backwards(true: Selection) -> Selection:
    return replace(true, entries=tuple(reversed(true.entries)))


def _from_elsewhere(true: Selection) -> Selection:
    return replace(true, offset=true.offset + 3)


LIES: Final[tuple[Lie, ...]] = (
    _foreign_path,
    _too_large,
    _twice,
    _endless,
    _far_next,
    _many,
    _of_another_job,
    _never_complete,
    _backwards,
    _from_elsewhere,
)


def distorted(chance: Random, data: bytes) -> list[bytes]:
    """The responses that a lying device publishes in place of this one; others than selections stay."""
    response = decode_response(data)
    if response.action != Action.SELECT_FILES or not isinstance(response.payload, Selection):
        return [data]
    if chance.random() < 0.1:
        return [encode(_refused(response))]
    lie = chance.choice(LIES)
    lied = encode(replace(response, payload=lie(response.payload)))
    return [lied, lied] if chance.random() < 0.2 else [lied]


def _refused(response: Response) -> Response:
    return replace(response, status=ResponseStatus.ERROR, error=ErrorCode.INTERNAL, message="no reason")
