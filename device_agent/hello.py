"""Hello: which uploads the agent still has, in pages that fit a message.

Rule: pure.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from device_agent.transfer_state import Transfer
from schemas.codec import GRANT_FILL_SIZE
from schemas.messages import ActiveUpload, Hello, Response
from schemas.values import Action, ResponseStatus

_ROOM: Final = GRANT_FILL_SIZE - 1024
_encoder: Final = msgspec.json.Encoder()


def active_upload(transfer: Transfer) -> ActiveUpload:
    """One upload's entry."""
    order, ending = transfer.order, transfer.ending
    status = ResponseStatus.IN_PROGRESS if ending is None else ending.status
    return ActiveUpload(order.upload_id, order.attempt, transfer.sequence, status, order.owner)


def hello_pages(message_id: str, install_id: str, transfers: Iterable[Transfer]) -> Iterator[Response]:
    """Hello as one or more responses under 96 KiB each; all but the last say that more follow."""
    pages: list[list[ActiveUpload]] = [[]]
    size = 0
    for transfer in transfers:
        entry = active_upload(transfer)
        length = len(_encoder.encode(entry)) + 1
        if size + length > _ROOM:
            pages.append([])
            size = 0
        size += length
        pages[-1].append(entry)
    for number, page in enumerate(pages, 1):
        yield Response(
            message_id=message_id if number == 1 else f"{message_id}.{number}",
            action=Action.HELLO,
            status=ResponseStatus.SUCCESS,
            payload=Hello(install_id, tuple(page), number < len(pages)),
        )
