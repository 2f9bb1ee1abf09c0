"""The numbers and names that the services work with; `control_plane.bootstrap` takes them from the settings.

Rule: durations in seconds, sizes in bytes.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from control_plane.domain.jobs.four_eyes import OFF, FourEyes
from schemas.file_names import plain
from schemas.messages import CHUNK_SIZE
from schemas.names import RECEIPT_SUFFIX
from schemas.topics import CONTROL_PLANE, DEFAULT_ROOT
from schemas.values import DigestName

DAY: Final = 86_400.0
MAX_SKEW: Final = 60.0
"""Seconds. S3 refuses what is signed 15 minutes off its own clock, but a URL's life is wrong long before."""

MAX_NAME_BYTES: Final = 200
CLASSES: Final = " %+&ü"
"""Characters that some object stores refuse in a key, one for each class: `&` is other punctuation of ASCII, `ü` all
beyond ASCII."""

_SAFE: Final = re.compile(r"[A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Policy:
    """How an owner of uploads behaves."""

    owner: str = CONTROL_PLANE
    topic_root: str = DEFAULT_ROOT
    base_path: str = "uploads"
    chunk_size: int = CHUNK_SIZE
    digest: DigestName | None = None
    """None takes the best that the object store enforces."""
    url_expiry: float = 900.0
    step_timeout: float = 300.0
    deadline: float = 7 * DAY
    require_proof: bool = True
    history: float = 90 * DAY
    max_uploads: int = 1_000
    """Open uploads of one client."""
    max_bytes: int | None = 10 * 2**40
    """Bytes in the files that one client offers within a day; None for no limit."""
    max_job_files: int = 1_000_000
    """Files of one job: executions beyond it wait."""
    receipts: bool | None = None
    """Whether a receipt is stored beside each object; None: no receipts are made."""
    four_eyes: FourEyes = OFF
    """Which jobs a second person must approve; a single upload of a path that it names is refused."""
    require_signed: bool = False
    """Whether unsigned messages of clients without a known key are dropped too."""


def object_key(
    base_path: str, client_id: str, file_path: str | None, now: float, mark: str = "", *, refused: str = ""
) -> str:
    r"""The key of a file's object: `{base}/{client_id}/{YYYYMMDD-HHMMSS}-{mark-}{file name}`, in UTC.

    Control characters, and bytes of the name that are not UTF-8, become `_`. So do characters of the classes in
    `refused`, as `class_of` names them. At most 200 bytes of the name are kept, its ending among them. A name that ends
    as the key of a receipt does has a `_` within that end: no file takes the place of a receipt.

    >>> object_key("uploads", "restaurant-1", "/data/test-file.bin", 1761999896.0)
    'uploads/restaurant-1/20251101-122456-test-file.bin'
    >>> object_key("uploads", "restaurant-1", r"/data/caf\xe9.bin", 1761999896.0)
    'uploads/restaurant-1/20251101-122456-caf_.bin'
    >>> object_key("uploads", "restaurant-1", "/data/a.receipt.json", 1761999896.0)
    'uploads/restaurant-1/20251101-122456-a.receipt_.json'
    """
    name = plain(file_path or "").replace("\\", "/").rstrip("/").rpartition("/")[2] or "file"
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    name = "".join("_" if class_of(letter) in refused else letter for letter in name) if refused else name
    if name.endswith(RECEIPT_SUFFIX):
        name = name.removesuffix(RECEIPT_SUFFIX) + RECEIPT_SUFFIX.replace(".json", "_.json")
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
    prefix = f"{base_path.strip('/')}/" if base_path.strip("/") else ""
    return f"{prefix}{client_id}/{stamp}-{mark + '-' if mark else ''}{_shortened(name)}"


def client_of(s3_key: str) -> str:
    """The client id in an `object_key`; of any other key, the name of its folder.

    >>> client_of("uploads/restaurant-1/20251101-122456-test-file.bin")
    'restaurant-1'
    """
    return s3_key.rpartition("/")[0].rpartition("/")[2]


def class_of(letter: str) -> str:
    """The class of a character, one of `CLASSES`; for a character that every key may have, itself.

    >>> [class_of(letter) for letter in "a#ß%"]
    ['a', '&', 'ü', '%']
    """
    if letter in CLASSES or _SAFE.fullmatch(letter):
        return letter
    return "&" if letter.isascii() else "ü"


def name_beside(s3_key: str, file_path: str | None) -> str | None:
    """The file's name as the wire spells it, to be kept beside a key that could not have it; None when the key has it.

    >>> name_beside("uploads/till/20251101-122456-100_.txt", "/data/100%.txt")
    '100%.txt'
    """
    name = (file_path or "").rstrip("/").rpartition("/")[2] or "file"
    return None if s3_key.endswith(f"-{name}") else name[-MAX_NAME_BYTES:]


def _shortened(name: str) -> str:
    """At most 200 bytes of UTF-8, cut from the front so that the ending stays."""
    data = name.encode("utf-8", "replace")
    return name if len(data) <= MAX_NAME_BYTES else data[-MAX_NAME_BYTES:].decode("utf-8", "ignore")
