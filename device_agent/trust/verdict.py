"""What becomes of a signed command, and what the device has of the upload that it is about.

Rule: pure. An unsigned agent imports this and nothing else about keys.
"""

from enum import Enum, auto

from msgspec import Struct

from device_agent.transfer.records import Afterwards, Order, ReceiptDue
from schemas.errors import SchemaError
from schemas.messages import AboutUpload, CancelUpload, CloseUpload, CommandPayload, DownloadFile


class Unverified(SchemaError):
    """A message is not signed by a trusted key, or not by one that may sign it."""


class Verdict(Enum):
    """What becomes of a command of a key that may sign it."""

    OBEY = auto()
    REPEAT = auto()
    """It was received before: it is answered from the state, and changes nothing."""
    STALE = auto()
    """Its session is not accepted: it has to be signed anew."""


class Known(Struct, frozen=True):
    """What the device has of the upload that a command is about; None and False where it has nothing.

    `order` is that of an open upload, `after` what is left to do with the file of a closed one, `closed` whether there
    is a tombstone. `path` is the file that a `download_file` is for, `patterns` those of the file type that a
    `select_files` is for.
    """

    order: Order | None = None
    after: Afterwards | ReceiptDue | None = None
    closed: bool = False
    path: str | None = None
    patterns: tuple[str, ...] = ()

    def is_repeated_by(self, payload: CommandPayload) -> bool:
        """Whether a command of a session that is over can only be a late copy of one that had its effect."""
        if isinstance(payload, DownloadFile):
            at_hand = self.order is not None and payload.about_attempt <= self.order.attempt
            return at_hand or (self.order is None and self.closed)
        return isinstance(payload, CancelUpload | CloseUpload) and (self.order is not None or self.closed)


def upload_named(payload: CommandPayload, message_id: str) -> str | None:
    """The upload that a command is about; None for a query, and for one that names none."""
    if not isinstance(payload, AboutUpload):
        return None
    return payload.about or (message_id if isinstance(payload, DownloadFile) else None)
