"""The numbers and names that the services work with; `control_plane.bootstrap` takes them from the settings.

Rule: durations in seconds, sizes in bytes, and every default is that of the Go demo this project started from.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from schemas.messages import CHUNK_SIZE
from schemas.topics import CONTROL_PLANE, DEFAULT_ROOT
from schemas.values import DigestName

DAY: Final = 86_400.0
MAX_SKEW: Final = 60.0
"""Seconds. S3 refuses what is signed 15 minutes off its own clock, but a URL's life is wrong long before."""

MAX_NAME_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Policy:
    """How an owner of uploads behaves."""

    owner: str = CONTROL_PLANE
    topic_root: str = DEFAULT_ROOT
    base_path: str = "uploads"
    chunk_size: int = CHUNK_SIZE
    digest: DigestName = DigestName.MD5
    url_expiry: float = 900.0
    step_timeout: float = 300.0
    deadline: float = 7 * DAY
    require_proof: bool = True
    history: float = 90 * DAY


def object_key(base_path: str, client_id: str, file_path: str | None, now: float, mark: str = "") -> str:
    """The key of a file's object: `{base}/{client_id}/{YYYYMMDD-HHMMSS}-{mark-}{file name}`, in UTC.

    Control characters become `_`, and at most 200 bytes of the name are kept, its ending among them.

    >>> object_key("uploads", "restaurant-1", "/data/test-file.bin", 1761999896.0)
    'uploads/restaurant-1/20251101-122456-test-file.bin'
    """
    name = (file_path or "").replace("\\", "/").rstrip("/").rpartition("/")[2] or "file"
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
    prefix = f"{base_path.strip('/')}/" if base_path.strip("/") else ""
    return f"{prefix}{client_id}/{stamp}-{mark + '-' if mark else ''}{_shortened(name)}"


def _shortened(name: str) -> str:
    """At most 200 bytes of UTF-8, cut from the front so that the ending stays."""
    data = name.encode("utf-8", "replace")
    return name if len(data) <= MAX_NAME_BYTES else data[-MAX_NAME_BYTES:].decode("utf-8", "ignore")
