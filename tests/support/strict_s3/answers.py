"""What the store answers, and what an operation is given to work with.

Rule: plain values; `application` puts them on the wire.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.support.strict_s3.bodies import Blob, Promise
from tests.support.strict_s3.requests import Request
from tests.support.strict_s3.storage import Storage

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How strict, and how large.

    `clock_skew` (s) is added to the store's clock; `encryption` is what every object gets without asking: under
    `aws:kms` an ETag is no MD5. `page_size` caps every listing.
    """

    min_part_size: int = 5 * MIB
    page_size: int = 1000
    idle_timeout: float = 20.0
    clock_skew: float = 0.0
    encryption: str | None = None
    keep_bytes: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose signature, length and digests were found right."""

    request: Request
    blob: Blob
    document: bytes
    promise: Promise
    storage: Storage
    options: Options
    now: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body. `done` says whether the store changed."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterable[bytes] | None = None
    done: bool = False
