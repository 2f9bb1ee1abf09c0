"""Sending one part of a simulated upload to the URL that was granted for it.

Rule: as a real agent: a refusal is tried thrice, a store that is busy or away four times, with growing pauses.
"""

import asyncio
import random
from typing import Final

from control_plane.cli.simulate.ground import Ground
from control_plane.cli.simulate.requests import Answer, RequestFailed
from control_plane.cli.simulate.upload import SimulatedUpload
from schemas.messages import Response
from schemas.values import ErrorCode, PresignedPart

_TRIES: Final = 4
_REFUSED_TRIES: Final = 3
_PAUSE: Final = 1.0
_MAY_HAVE_WON: Final = 412
_REFUSALS: Final = {403: ErrorCode.STORAGE_REFUSED, 404: ErrorCode.UPLOAD_GONE}


async def send_part(
    ground: Ground, upload: SimulatedUpload, granted: PresignedPart, good_until: float
) -> Response | None:
    """Send it; returns what is then to be said, if anything. `good_until` is when the URL dies, by the loop's clock."""
    body = upload.file.body(upload.plan.part(granted.part_number))
    failure = (ErrorCode.INTERNAL, "")
    for tries in range(1, _TRIES + 1):
        if upload.over():
            return None
        try:
            answer = await ground.requests.send("PUT", granted.url, _headers(granted), body)
        except RequestFailed as error:
            failure = (ErrorCode.STORAGE_UNAVAILABLE, str(error))
        else:
            etag = answer.headers.get("etag") if answer.fine else None
            if etag or answer.status == _MAY_HAVE_WON:
                ground.tally.puts += 1
                ground.tally.bytes_sent += len(body)
                return None if upload.over() else upload.stored(granted.part_number, etag or "")
            if asyncio.get_running_loop().time() > good_until:
                return upload.expired(granted.part_number)
            failure = _meaning(answer)
        ground.tally.errors[f"PUT: {failure[1]}"] += 1
        if failure[0] in _REFUSALS.values() and tries == _REFUSED_TRIES:
            break
        await asyncio.sleep(_PAUSE * 2**tries * random.random())  # noqa: S311 - spreads load, hides nothing
    return None if upload.over() else upload.fail(*failure)


def _headers(granted: PresignedPart) -> dict[str, str]:
    return {**granted.headers, "Content-Type": "application/octet-stream"}


def _meaning(answer: Answer) -> tuple[ErrorCode, str]:
    """What the answer to a PUT means for the upload (protocol.md section 4)."""
    code = _REFUSALS.get(answer.status, ErrorCode.STORAGE_UNAVAILABLE)
    return code, f"{answer.status} {answer.code}"
