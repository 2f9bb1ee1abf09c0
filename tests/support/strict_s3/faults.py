"""What goes wrong on purpose, and when.

Rule: a fault names the requests it strikes by operation, part, key and count, so that a test is the same on each run.
"""

import threading
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Self

from tests.support.strict_s3.requests import Operation, Request


class Kind(StrEnum):
    """How a request is answered."""

    ERROR = "error"
    """`status` and `code`, with Retry-After when `retry_after` is set."""

    ERROR_IN_200 = "error_in_200"
    """200 whose body is an error document (CompleteMultipartUpload, API reference)."""

    EMPTY_200 = "empty_200"
    """200 without body and ETag."""

    STALL = "stall"
    """After `at_byte` bytes of the body nothing more is read or said for `seconds`; then the connection is reset."""

    RESET = "reset"
    """The connection is reset after `at_byte` bytes of the body."""

    LOST_RESPONSE = "lost_response"
    """The request is done; the connection is reset instead of the answer."""

    NO_ETAG = "no_etag"
    """The request is done; its answer has no ETag, as behind some proxies."""

    CORRUPT_STORED = "corrupt_stored"
    """The request is done and answered as usual, but byte `at_byte` is stored flipped."""

    CORRUPT_RECEIVED = "corrupt_received"
    """Byte `at_byte` arrives flipped: whoever signed a digest is told so."""

    SLOW = "slow"
    """The request is done; its body is read at `bytes_per_second`, and the answer waits `seconds`."""

    HELD = "held"
    """The request is done; the answer waits until the faults are cleared."""

    PRETEND = "pretend"
    """Nothing is done; the answer is 204."""

    PAGE = "page"
    """Nothing is done; `status` and a page of text, as an ingress answers that does not find the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. It strikes the `nth` matching request (counted from 1) and the `times - 1` after it.

    `done`: an ERROR, ERROR_IN_200 or EMPTY_200 is answered after the request was done all the same.
    """

    kind: Kind
    operation: Operation | None = None
    part_number: int | None = None
    key: str = "*"
    nth: int = 1
    times: int = 1
    done: bool = False
    status: int = 500
    code: str = "InternalError"
    retry_after: int | None = None
    at_byte: int = 0
    seconds: float = 0.0
    bytes_per_second: float | None = None

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Self:
        """A fault from JSON."""
        operation = fields.get("operation")
        return cls(**{**fields, "kind": Kind(fields["kind"]), "operation": operation and Operation(operation)})

    def to_json(self) -> dict[str, Any]:
        """What `read` reads."""
        return asdict(self)

    def matches(self, request: Request) -> bool:
        """Whether the request is one of those that are counted."""
        return (
            self.operation in {None, request.operation}
            and self.part_number in {None, request.part_number}
            and fnmatchcase(request.key, self.key)
        )


@dataclass
class FaultScript:
    """The faults in force; may be changed from another thread."""

    _faults: list[Fault] = field(default_factory=list)
    _seen: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *faults: Fault) -> None:
        """Put faults into force; the first that strikes wins."""
        with self._lock:
            self._faults += faults
            self._seen += [0] * len(faults)

    def clear(self) -> None:
        """From now on everything goes well."""
        with self._lock:
            self._faults.clear()
            self._seen.clear()

    def in_force(self, fault: Fault) -> bool:
        """Whether a fault was not cleared yet."""
        with self._lock:
            return fault in self._faults

    def strike(self, request: Request) -> Fault | None:
        """The fault that befalls this request; counts it for all faults that it matches."""
        struck = None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.matches(request):
                    self._seen[index] += 1
                    if struck is None and fault.nth <= self._seen[index] < fault.nth + fault.times:
                        struck = fault
        return struck
