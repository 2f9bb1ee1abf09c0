"""Events as structured log lines and as Prometheus counters.

Rule: label values are constants of this program, never of a device or a caller, so the number of series is bounded.
Every event is counted; the lines about one client are limited, for a device may cause as many events as it can send. A
line passes `redact` before it is written: no credential and no query string of a signed URL leaves the process.
"""

import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from control_plane.domain.jobs.model import EXECUTION_TERMINAL, JOB_TERMINAL, ExecutionState, JobState
from control_plane.domain.schedules.model import RunStatus
from control_plane.domain.uploads.model import State
from control_plane.gauges import FleetGauges, reason_label
from control_plane.services.budget import Buckets, Limit
from schemas.log_sink import QueuedHandler
from schemas.redaction import REDACTED, SECRET_NAME, without_secrets

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
LOGGER: Final = "backhaul"
VERSION: Final = version("backhaul")

LINES: Final = Limit(rate=1 / 60, burst=10)
"""Lines of one event (of one verdict, if it has one) about one client or webhook: the first ten, then one a minute."""

LINES_OF_WORK: Final = Limit(rate=5, burst=1_000)
"""Lines about one client of an event that its uploads cause in their normal course."""

_WORK: Final = ("upload.", "duty.")
_OF_CALLERS: Final = "rest."
"""Requests to REST: no device causes them, and each line is evidence of who read what."""

_COUNTED_ONLY: Final = frozenset({"write.fenced"})
"""Normal with several replicas, and as frequent as their writes."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
WRITES: Final = ("uploads", "jobs", "schedules")
"""What replicas write at the same time."""

_DELIVERIES: Final = {"webhook.delivered": "delivered", "webhook.retried": "retried", "webhook.dead": "dead"}
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts and logs the events of the control plane; an `EventLog` (services.ports).

    One instance has its own registry, so two control planes in one process do not count together. `monotonic` (s) is
    the clock of the limits on lines.
    """

    def __init__(
        self, logger: FilteringBoundLogger | None = None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lines = Buckets(monotonic, LINES)
        self._lines_of_work = Buckets(monotonic, LINES_OF_WORK)
        self._logger: FilteringBoundLogger = logger or structlog.get_logger(LOGGER)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._events = Counter("backhaul_events", "What happened.", ["event"], registry=self.registry)
        self._states = Counter("backhaul_uploads", "Uploads that came to a state.", ["state"], registry=self.registry)
        self._requests = Counter(
            "backhaul_http_requests", "REST requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "backhaul_http_request_seconds",
            "Time until a REST request was answered.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        for state in State:
            self._states.labels(state)
        self._fleet = _FleetCounters(self.registry)
        self._refresh: Callable[[], Awaitable[None]] | None = None
        Info("backhaul_build", "The version of the control plane.", registry=self.registry).info({"version": VERSION})

    def show(self, gauges: FleetGauges) -> None:
        """Show these gauges too; they are read at each `refresh`."""
        self.registry.register(gauges)
        self._refresh = gauges.refresh

    async def refresh(self) -> None:
        """Read what is shown and not counted; call it before `render`."""
        if self._refresh is not None:
            await self._refresh()

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Count an event, and log it within the limit on lines about its client.

        `.failed` at the end of its name makes it a warning; `fault` adds a traceback.
        """
        self._events.labels(event).inc()
        if event == "upload.state" and facts.get("was") != facts.get("state"):
            self._states.labels(State(facts["state"])).inc()
        self._fleet.count(event, facts)
        if not self._has_line(event, facts):
            return
        level = logging.WARNING if event.endswith((".failed", ".expiring")) else logging.INFO
        self._logger.log(level, event, **{_key(name): value for name, value in facts.items()})

    def _has_line(self, event: str, facts: Mapping[str, Any]) -> bool:
        if event in _COUNTED_ONLY:
            return False
        client_id = facts.get("client_id", facts.get("webhook_id"))
        if client_id is None or event.startswith(_OF_CALLERS):
            return True
        lines = self._lines_of_work if event.startswith(_WORK) else self._lines
        return lines.take((event, client_id, facts.get("verdict")))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one REST request; `route` is a path's template, never the path."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """Everything counted so far, as Prometheus text. Reads /proc: not for the event loop."""
        return generate_latest(self.registry)


class _FleetCounters:
    """What happened to uploads, executions, schedules and webhooks, counted from the events of committed changes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"backhaul_{name}", text, labels, registry=registry)

        self._bytes = counter("upload_bytes", "Bytes of uploads that were completed.")
        self._jobs = counter("jobs_ended", "Jobs that ended, by state.", "state")
        self._executions = counter("executions_ended", "Executions that ended.", "outcome", "reason")
        self._ticks = counter("schedule_ticks", "Ticks of schedules, by what became of them.", "outcome")
        self._deliveries = counter("webhook_deliveries", "Deliveries of webhooks, by what became of a try.", "outcome")
        self._fenced = counter("fenced_writes", "Transactions that lost to another replica.", "what")
        for job in sorted(JOB_TERMINAL):
            self._jobs.labels(job.value)
        for status in RunStatus:
            self._ticks.labels(status.value)
        for outcome in _DELIVERIES.values():
            self._deliveries.labels(outcome)
        for what in WRITES:
            self._fenced.labels(what)

    def count(self, event: str, facts: Mapping[str, Any]) -> None:
        """Count one event; those of other kinds change nothing."""
        match event:
            case "upload.state" if facts.get("bytes"):
                self._bytes.inc(facts["bytes"])
            case "job.state" if facts["state"] in JOB_TERMINAL:
                self._jobs.labels(JobState(facts["state"]).value).inc()
            case "execution.state" if facts["state"] in EXECUTION_TERMINAL:
                outcome = ExecutionState(facts["state"]).value
                self._executions.labels(outcome, reason_label(facts["reason"] or "")).inc()
            case "schedule.tick":
                self._ticks.labels(RunStatus(facts["status"]).value).inc()
            case "webhook.delivered" | "webhook.retried" | "webhook.dead":
                self._deliveries.labels(_DELIVERIES[event]).inc()
            case "write.fenced":
                self._fenced.labels(facts["what"] if facts["what"] in WRITES else "other").inc()
            case _:
                pass


def _key(fact: str) -> str:
    """The key in a log line: names that structlog uses itself get a `_`."""
    if fact == "fault":
        return "exc_info"
    return f"{fact}_" if fact in {"self", "event", "level", "timestamp", "exc_info"} else fact


def redact(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Remove credentials, and the query strings of URLs, from a log line."""
    return {name: REDACTED if SECRET_NAME.search(name) else _cleaned(value) for name, value in line.items()}


def _cleaned(value: object) -> object:
    match value:
        case str():
            return without_secrets(value)
        case Mapping():
            return {key: REDACTED if SECRET_NAME.search(str(key)) else _cleaned(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_cleaned(one) for one in value]
        case _:
            return value


def configure_logging(level: str) -> Callable[[str], None]:
    """Send the lines of this program and of every library to stderr: JSON, or `name=value` on a terminal.

    At DEBUG a library logs whole requests, with what signs them; so DEBUG is for this program's own lines.

    Returns a function that writes a plain line there, at any level, and never waits. Without standard error (`2>&-`)
    nothing is written.
    """
    if sys.stderr is None:
        logging.basicConfig(level=level, handlers=[logging.NullHandler()], force=True)
        return lambda _text: None
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    # Both renderers escape control characters: a text of a device must not move a terminal's cursor.
    order = ["timestamp", "level", "event"]
    render: Processor = (
        structlog.processors.KeyValueRenderer(key_order=order)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    handler = QueuedHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(level="INFO" if level == "DEBUG" else level, handlers=[handler], force=True)
    logging.getLogger(LOGGER).setLevel(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return handler.put
