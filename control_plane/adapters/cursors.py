"""Where the next page begins, as opaque text that callers send back.

Rule: a cursor names the last row of its page, not an offset, so inserted and deleted rows shift nothing.
"""

from base64 import b64decode, urlsafe_b64encode
from typing import Annotated, Final, TypeVar

import msgspec

from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Page

T = TypeVar("T")
UploadPosition = tuple[float, str, str]
"""`created_at`, `client_id` and `upload_id` of an upload."""

_uploads: Final = msgspec.json.Decoder(UploadPosition)
Row = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number that a database keeps."""

_clients: Final = msgspec.json.Decoder(tuple[str])


def encode_cursor(position: tuple[object, ...]) -> str:
    """The cursor after this row, in characters that a URL does not quote."""
    return urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def upload_position(page: Page) -> UploadPosition | None:
    """The upload after which the page begins; `BadInput` when the cursor is malformed."""
    return None if page.cursor is None else decode_cursor(page.cursor, _uploads)


def client_position(page: Page) -> str | None:
    """The client id after which the page begins; `BadInput` when the cursor is malformed."""
    return None if page.cursor is None else decode_cursor(page.cursor, _clients)[0]


def check_limit(page: Page) -> None:
    """`BadInput` when the page has no room: its cursor would never advance."""
    if page.limit < 1:
        message = f"a page of {page.limit} rows is empty: set limit to at least 1"
        raise BadInput(message)


def decode_cursor(cursor: str, decoder: msgspec.json.Decoder[T]) -> T:
    """The position that a cursor holds; `BadInput` when the cursor is malformed."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        text = b64decode(padded, altchars=b"-_", validate=True)
        # No row has a NUL, and PostgreSQL takes none.
        return decoder.decode(b"" if rb"\u0000" in text else text)
    except (ValueError, msgspec.MsgspecError) as error:
        message = "the cursor is not one that this API gave: take `cursor` from the page before"
        raise BadInput(message) from error
