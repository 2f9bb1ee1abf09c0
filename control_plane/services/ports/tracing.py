"""Traces of uploads, as the services use them.

Rule: a context travels as the text of W3C Trace Context (`00-TRACE-SPAN-01`). Without tracing every call does nothing,
and costs nothing that can be measured.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

Attributes = Mapping[str, str | int]


class Tracer(Protocol):
    """Makes spans. `enabled` is False where nothing is traced; `provider` makes those of REST, None for none."""

    enabled: bool

    @property
    def provider(self) -> Any:  # noqa: ANN401 - of a library that is an extra
        """For FastAPI alone."""

    def current(self) -> str | None:
        """The span that is open now, as a `traceparent`; None without one."""

    def root(self, name: str, attributes: Attributes) -> str | None:
        """Begin a new trace with a span that is over at once; its `traceparent`, None without tracing."""

    def span(self, name: str, parent: str | None, attributes: Attributes) -> AbstractContextManager[None]:
        """A span around a block; without `parent` a part of the open span, and nothing where none is open."""

    def ended(self, name: str, parent: str, began_at: float, ended_at: float, attributes: Attributes) -> None:
        """A span that another program's report describes; instants are seconds since the epoch."""

    def close(self) -> None:
        """Send what waits; blocks."""


class NoTraces:
    """Traces nothing."""

    enabled = False
    provider: None = None

    def current(self) -> str | None:
        """Nothing is open."""
        return None

    def root(self, _name: str, _attributes: Attributes) -> str | None:
        """There is no trace."""
        return None

    @contextmanager
    def span(self, _name: str, _parent: str | None, _attributes: Attributes) -> Iterator[None]:
        """Only the block."""
        yield

    def ended(self, _name: str, _parent: str, _began_at: float, _ended_at: float, _attributes: Attributes) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing waits."""
