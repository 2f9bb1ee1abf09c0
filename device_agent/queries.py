"""Answers to questions about the device: its files and its health.

Rule: runs on a worker, for a listing may walk many folders; whatever goes wrong is an answer too.
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
    """`health_check`, with what the loop had counted when it came: a worker does not look into the loop's state."""

    counters: Mapping[str, int]


def answer_query(
    command: Command,
    query: ListFiles | HealthQuery,
    *,
    roots: Roots,
    active_uploads: int,
    system_info: Callable[[], SystemInfo],
) -> Response:
    """The response to `list_files` or `health_check`; never raises."""
    try:
        payload = _answer(query, roots, active_uploads, system_info)
    except FileRefused as refused:
        return _failure(command, refused.code, refused.text)
    except Exception as error:
        log.exception("%s failed", command.action)
        return _failure(command, ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
    return Response(command.message_id, command.action, ResponseStatus.SUCCESS, payload)


def _answer(
    query: ListFiles | HealthQuery, roots: Roots, active_uploads: int, system_info: Callable[[], SystemInfo]
) -> ResponsePayload:
    match query:
        case ListFiles():
            return list_files(query, roots)
        case HealthQuery(counters=counters):
            return Health(VERSION, active_uploads, system_info(), dict(counters))
        case _:
            assert_never(query)


def _failure(command: Command, code: ErrorCode, text: str) -> Response:
    travels_as = ERRORS[code].travels_as
    return Response(command.message_id, command.action, travels_as, Nothing(), error=code, message=text)
