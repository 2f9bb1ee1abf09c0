"""Sending one part of a simulated upload to its granted URL.

Rule: as a real agent does: three tries after a refusal, four when the object store is busy or unreachable, with
growing pauses.
"""

import asyncio
import random
from typing import Final

from control_plane.cli.simulate.environment import Environment
from control_plane.cli.simulate.http_pool import HttpAnswer, RequestFailed
from control_plane.cli.simulate.upload import SimulatedUpload
from schemas.messages import Response
from schemas.values import ErrorCode, PresignedPart

_TRIES: Final = 4
_REFUSED_TRIES: Final = 3
_PAUSE: Final = 1.0
_MAY_HAVE_WON: Final = 412
_REFUSALS: Final = {403: ErrorCode.STORAGE_REFUSED, 404: ErrorCode.UPLOAD_GONE}


async def send_part(
    environment: Environment, upload: SimulatedUpload, granted: PresignedPart, expires_at: float
) -> Response | None:
    """Send it; returns the response to publish, if any. `expires_at`: when the URL expires, by the loop's clock."""
    body = upload.file.body(upload.plan.part(granted.part_number))
    failure = (ErrorCode.INTERNAL, "")
    for tries in range(1, _TRIES + 1):
        if upload.over():
            return None
        try:
            answer = await environment.http.send("PUT", granted.url, _headers(granted), body)
        except RequestFailed as error:
            failure = (ErrorCode.STORAGE_UNAVAILABLE, str(error))
        else:
            etag = answer.headers.get("etag") if answer.success else None
            if etag or answer.status == _MAY_HAVE_WON:
                environment.counters.puts += 1
                environment.counters.bytes_sent += len(body)
                return None if upload.over() else upload.stored(granted.part_number, etag or "")
            if asyncio.get_running_loop().time() > expires_at:
                return upload.expired(granted.part_number)
            failure = _failure_of(answer)
        environment.counters.errors[f"PUT: {failure[1]}"] += 1
        if failure[0] in _REFUSALS.values() and tries == _REFUSED_TRIES:
            break
        await asyncio.sleep(_PAUSE * 2**tries * random.random())  # noqa: S311 - spreads load, hides nothing
    return None if upload.over() else upload.fail(*failure)


def _headers(granted: PresignedPart) -> dict[str, str]:
    return {**granted.headers, "Content-Type": "application/octet-stream"}


def _failure_of(answer: HttpAnswer) -> tuple[ErrorCode, str]:
    """The error code and text of a refused PUT (protocol.md section 4)."""
    code = _REFUSALS.get(answer.status, ErrorCode.STORAGE_UNAVAILABLE)
    return code, f"{answer.status} {answer.code}"
