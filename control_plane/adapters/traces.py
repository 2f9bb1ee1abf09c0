"""The port `Tracer` over OpenTelemetry: spans in batches to a collector, over OTLP and HTTP.

Rule: the only module that imports OpenTelemetry; its SDK is an extra. A collector that is away loses spans, and
nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from control_plane.services.ports.tracing import Attributes

_NANOSECONDS: Final = 1_000_000_000
_FORMAT: Final = TraceContextTextMapPropagator()
_HEADER: Final = "traceparent"


def exporting(endpoint: str) -> SpanProcessor:
    """Sends spans in batches to `ENDPOINT/v1/traces`; OTEL_EXPORTER_OTLP_HEADERS has its credentials."""
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces"))


class OtelTracer:
    """`services.ports.tracing.Tracer`. `provider` is also that of the spans of REST."""

    enabled = True

    def __init__(self, processor: SpanProcessor, version: str) -> None:
        resource = Resource.create({"service.name": "backhaul", "service.version": version})
        # Not the process's global one, and without a hook at the exit: the server's lifespan ends it.
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(processor)
        self._tracer = self.provider.get_tracer("backhaul")

    def current(self) -> str | None:
        carrier: dict[str, str] = {}
        _FORMAT.inject(carrier)
        return carrier.get(_HEADER)

    def root(self, name: str, attributes: Attributes) -> str | None:
        carrier: dict[str, str] = {}
        with self._tracer.start_as_current_span(name, Context(), attributes=attributes):
            _FORMAT.inject(carrier)
        return carrier.get(_HEADER)

    @contextmanager
    def span(self, name: str, parent: str | None, attributes: Attributes) -> Iterator[None]:
        kind = SpanKind.PRODUCER if name.startswith("publish ") else SpanKind.INTERNAL
        with self._tracer.start_as_current_span(name, _context(parent), kind, attributes):
            yield

    def ended(self, name: str, parent: str, began_at: float, ended_at: float, attributes: Attributes) -> None:
        context = _context(parent)
        # A link as well: a consumer of a message names the message that it works on.
        link = trace.Link(trace.get_current_span(context).get_span_context())
        span = self._tracer.start_span(
            name, context, SpanKind.CONSUMER, attributes, [link], start_time=int(began_at * _NANOSECONDS)
        )
        span.end(int(ended_at * _NANOSECONDS))

    def close(self) -> None:
        """Send what waits; blocks for some seconds at most."""
        self.provider.shutdown()


def _context(parent: str | None) -> Context | None:
    """The context of a `traceparent`; None is the open span's."""
    return None if parent is None else _FORMAT.extract({_HEADER: parent}, Context())
