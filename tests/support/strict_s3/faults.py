"""Planted faults.

Rule: a fault selects its requests by operation, part, key and count, so a test is the same on each run.
"""

import threading
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Self

from tests.support.strict_s3.requests import Operation, Request


class Kind(StrEnum):
    """The effect of a fault."""

    ERROR = "error"
    """`status` and `code`, with Retry-After when `retry_after` is set."""

    ERROR_IN_200 = "error_in_200"
    """200 with an error document as body (CompleteMultipartUpload, API reference)."""

    EMPTY_200 = "empty_200"
    """200 without body and ETag."""

    STALL = "stall"
    """After `at_byte` bytes of the body nothing is read or written for `seconds`; then the connection is reset."""

    RESET = "reset"
    """The connection is reset after `at_byte` bytes of the body."""

    LOST_RESPONSE = "lost_response"
    """The request is executed; the connection is reset before the response."""

    NO_ETAG = "no_etag"
    """The request is executed; its response has no ETag, as behind some proxies."""

    CORRUPT_STORED = "corrupt_stored"
    """The request is executed and answered as usual, but byte `at_byte` is stored flipped."""

    CORRUPT_RECEIVED = "corrupt_received"
    """Byte `at_byte` arrives flipped: a request with a signed digest is rejected."""

    SLOW = "slow"
    """The request is executed; its body is read at `bytes_per_second`, and the response waits `seconds`."""

    HELD = "held"
    """The request is executed; the response waits until the faults are cleared."""

    PRETEND = "pretend"
    """Nothing is executed; the response is 204."""

    PAGE = "page"
    """Nothing is executed; `status` and a page of text, like an ingress without a route."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. It strikes the `nth` matching request (counted from 1) and the `times - 1` after it.

    `done`: an ERROR, ERROR_IN_200 or EMPTY_200 is sent after the request was executed.
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
        """The JSON that `read` parses."""
        return asdict(self)

    def matches(self, request: Request) -> bool:
        """Whether the request counts for this fault."""
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
        """Plant faults; the first that matches applies."""
        with self._lock:
            self._faults += faults
            self._seen += [0] * len(faults)

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()
            self._seen.clear()

    def in_force(self, fault: Fault) -> bool:
        """Whether a fault is still planted."""
        with self._lock:
            return fault in self._faults

    def strike(self, request: Request) -> Fault | None:
        """The fault of this request, if any; counts the request for all faults that it matches."""
        struck = None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.matches(request):
                    self._seen[index] += 1
                    if struck is None and fault.nth <= self._seen[index] < fault.nth + fault.times:
                        struck = fault
        return struck
