"""The uploads that wait for a person's consent, and the person's decisions.

Rule: a decision names uploads that wait now; any other one changes nothing. The answer names what was done.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from device_agent.uploads import Uploads
from schemas.values import ErrorCode

MOST: Final = 100
"""Requests in one document, and uploads in one decision."""


class ConsentRequest(Struct, frozen=True, kw_only=True):
    """An upload that waits for a person; `path_class` is its class in the policy."""

    upload_id: str
    path: str
    path_class: str
    owner: str


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person has decided about uploads, each named by its id or by the beginning of it that is only its own."""

    verdict: Literal["approve", "deny"]
    uploads: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=MOST)]


class Decided(Struct, frozen=True, kw_only=True):
    """The requests that were decided, and a text for each name that was not."""

    done: tuple[ConsentRequest, ...] = ()
    problems: tuple[str, ...] = ()


def waiting(uploads: Uploads) -> Iterator[ConsentRequest]:
    """The uploads that wait for a person, oldest first."""
    for run in uploads:
        name = uploads.asks(run)
        if name is not None:
            order = run.transfer.order
            yield ConsentRequest(upload_id=order.upload_id, path=order.file_path, path_class=name, owner=order.owner)


def decide(uploads: Uploads, data: bytes, now: float) -> Decided:
    """Carry out a `Decision` in JSON; never raises for what it holds."""
    try:
        decision = msgspec.json.decode(data, type=Decision)
    except (msgspec.MsgspecError, RecursionError) as error:
        return Decided(problems=(f"the decision cannot be read: {error}",))
    requests, problems, done = list(waiting(uploads)), [], []
    for name in decision.uploads:
        found = _named(name, requests)
        if isinstance(found, str):
            problems.append(found)
        elif decision.verdict == "deny":
            text = f"a person on the device has denied it (class {found.path_class!r} of its policy)"
            uploads.refuse(found.upload_id, ErrorCode.PATH_NOT_ALLOWED, text, now)
            done.append(found)
        elif (failure := uploads.approve(found.upload_id)) is None:
            done.append(found)
        else:
            problems.append(f"{found.upload_id}: the approval cannot be kept: {failure}")
    return Decided(done=tuple(done), problems=tuple(problems))


def _named(name: str, requests: Iterable[ConsentRequest]) -> ConsentRequest | str:
    """The one request with this id, or with an id that begins so; a text without one."""
    found = [one for one in requests if one.upload_id.startswith(name)]
    exact = [one for one in found if one.upload_id == name]
    match exact or found:
        case [one]:
            return one
        case []:
            return f"{name}: no upload with this id waits for consent"
        case _:
            return f"{name}: {len(found)} uploads begin so; give more of the id"
