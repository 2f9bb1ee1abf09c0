"""Whether the file that a client offers is the one that a person approved.

Rule: pure.
"""

from typing import Final

from control_plane.domain.uploads.events import PartsRequested
from control_plane.domain.uploads.model import Upload
from schemas.sealing.layout import sealed_size

MAX_GROWTH: Final = 1.1
"""With `on_change: prefix` a file that only grew, to no more than this times its size, is the approved file."""


def changed_since_listing(upload: Upload, event: PartsRequested) -> str | None:
    """A sentence when the offered file is not the listed one; None when it is, or when none was listed."""
    listed, offered = upload.listed, event.fingerprint
    if listed is None:
        return None
    if offered is None:
        return "the client does not report size and time of the file"
    size = sealed_size(listed.size, len(upload.options.encrypt_to))
    if (offered.size, offered.mtime_ns) == (size, listed.mtime_ns):
        return None
    grown = listed.size <= offered.size <= listed.size * MAX_GROWTH
    if upload.options.on_change == "prefix" and grown:
        return None
    return f"the file had {listed.size} bytes when it was listed and approved, and is another one of {offered.size} now"
