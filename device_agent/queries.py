"""The answers to `list_files` and `health_check`.

Rule: a listing runs on a worker, because it may read many folders; every failure becomes a response.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from device_agent import VERSION
from device_agent.errors import FileRefused
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from schemas.messages import Command, Health, ListFiles, Nothing, Response, ResponsePayload
from schemas.values import ERRORS, ErrorCode, ResponseStatus, SystemInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HealthQuery:
    """`health_check`, with a copy of the loop's counters: a worker reads no state of the loop."""

    counters: Mapping[str, int]


Query = ListFiles | HealthQuery


def answer_query(
    command: Command,
    query: Query,
    *,
    roots: Roots,
    active_uploads: int,
    system_info: Callable[[], SystemInfo],
) -> Response:
    """The response to `list_files` or `health_check`; never raises."""
    try:
        payload = _answer(query, roots, active_uploads, system_info)
    except FileRefused as refused:
        return failed_query(command, refused.code, refused.text)
    except Exception as error:
        log.exception("%s failed", command.action)
        return failed_query(command, ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
    return Response(command.message_id, command.action, ResponseStatus.SUCCESS, payload)


def _answer(query: Query, roots: Roots, active_uploads: int, system_info: Callable[[], SystemInfo]) -> ResponsePayload:
    match query:
        case ListFiles():
            return list_files(query, roots)
        case HealthQuery(counters=counters):
            return Health(VERSION, active_uploads, system_info(), dict(counters))
        case _:
            assert_never(query)


def failed_query(command: Command, code: ErrorCode, text: str) -> Response:
    """The response to a query that failed."""
    travels_as = ERRORS[code].travels_as
    return Response(command.message_id, command.action, travels_as, Nothing(), error=code, message=text)
