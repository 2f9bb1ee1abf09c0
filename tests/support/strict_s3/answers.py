"""The responses of the strict double, and the arguments of an operation.

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
    """Strictness and limits.

    `clock_skew` (s) is added to the double's clock; `encryption` applies to every object without a request: under
    `aws:kms`, or with `opaque_etags`, an ETag is no MD5. `page_size` limits every listing. `hidden_for` (s) is how long
    an object is not shown under the quirks of visibility.
    """

    min_part_size: int = 5 * MIB
    page_size: int = 1000
    idle_timeout: float = 20.0
    clock_skew: float = 0.0
    encryption: str | None = None
    keep_bytes: bool = True
    opaque_etags: bool = False
    hidden_for: float = 4.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request with a correct signature, length and digests."""

    request: Request
    blob: Blob
    document: bytes
    promise: Promise
    storage: Storage
    options: Options
    now: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body. `done` is whether the double changed its state."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Iterable[bytes] | None = None
    done: bool = False
