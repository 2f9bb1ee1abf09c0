"""The answers to `list_files`, `select_files` and `health_check`.

Rule: what reads folders or files runs on a worker; every failure becomes a response.
"""

import logging
from collections.abc import Callable, Mapping
from typing import assert_never

from msgspec import Struct

from device_agent import VERSION
from device_agent.errors import FileRefused
from device_agent.files.listing import list_files
from device_agent.files.roots import Roots
from schemas.messages import Command, Health, ListFiles, Nothing, Response, ResponsePayload, SelectFiles, Selection
from schemas.values import ERRORS, ErrorCode, ResponseStatus, SystemInfo

log = logging.getLogger(__name__)


class HealthQuery(Struct, frozen=True):
    """`health_check`, with a copy of the loop's counters: a worker reads no state of the loop."""

    counters: Mapping[str, int]


DeviceQuery = ListFiles | HealthQuery
Query = DeviceQuery | SelectFiles


def answer_query(
    command: Command,
    query: DeviceQuery,
    *,
    roots: Roots,
    active_uploads: int,
    system_info: Callable[[], SystemInfo],
) -> Response:
    """The response to `list_files` or `health_check`; never raises."""
    return answer_with(command, lambda: _answer(query, roots, active_uploads, system_info))


def answer_with(command: Command, payload_of: Callable[[], ResponsePayload]) -> Response:
    """The response with this payload, or with the reason why there is none; never raises."""
    try:
        payload = payload_of()
    except FileRefused as refused:
        return failed_query(command, refused.code, refused.text)
    except Exception as error:
        log.exception("%s failed", command.action)
        return failed_query(command, ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")
    return Response(command.message_id, command.action, ResponseStatus.SUCCESS, payload)


def _answer(
    query: DeviceQuery, roots: Roots, active_uploads: int, system_info: Callable[[], SystemInfo]
) -> ResponsePayload:
    match query:
        case ListFiles():
            return list_files(query, roots)
        case HealthQuery(counters=counters):
            return Health(VERSION, active_uploads, system_info(), dict(counters))
        case _:
            assert_never(query)


def failed_query(command: Command, code: ErrorCode, text: str) -> Response:
    """The response to a query that failed."""
    request = command.payload
    payload = Selection(request.job_id) if isinstance(request, SelectFiles) else Nothing()
    return Response(command.message_id, command.action, ERRORS[code].travels_as, payload, error=code, message=text)
