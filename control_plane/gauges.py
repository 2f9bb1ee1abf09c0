"""The state of the fleet as Prometheus gauges, read from the database when a monitoring system reads them.

Rule: as in `control_plane.observability`: every label value is a constant of this program. No metric names a client, an
upload, a job or a schedule; those are in REST, and in the log.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from control_plane.domain.jobs.model import EXECUTION_OPEN, JOB_OPEN
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.schedules.model import CellState
from control_plane.domain.uploads.model import OPEN
from control_plane.services.errors import ServiceError
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.figures import Figures
from control_plane.services.ports.messenger import Messenger
from schemas.values import ErrorCode

KEPT: Final = 5.0
"""Seconds for which the figures are used again: several monitoring systems may read them."""

OTHER: Final = "other"
REASONS: Final = frozenset({*map(str, ReasonCode), *map(str, ErrorCode)})
_SETTLED: Final = (CellState.PROVEN, CellState.UNCHANGED, CellState.EMPTY, CellState.MISSING, CellState.HEALED)


def reason_label(code: str) -> str:
    """The code as a label; `other` for one that this version does not know, such as that of a later agent."""
    return code if code in REASONS else OTHER


class FleetGauges(Collector):
    """The gauges of one control plane. `refresh` reads the figures, `collect` shows those that were read last.

    While the database cannot be used, `backhaul_ready{neighbour="database"}` is 0 and the figures are left out: old
    ones would look like the present.
    """

    def __init__(self, database: Database, clock: Clock, messenger: Messenger, probe: ObjectStoreProbe) -> None:
        self._database = database
        self._clock = clock
        self._messenger = messenger
        self._probe = probe
        self._figures: Figures | None = None
        self._read_at = float("-inf")
        self._seconds = 0.0
        self._ready: dict[str, bool] = {}
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the figures, unless those of the last `KEPT` seconds are there; never raises for the database."""
        async with self._reading:
            began = self._clock.monotonic()
            if began - self._read_at < KEPT and self._figures is not None:
                return
            now = self._clock.now()
            try:
                self._figures = await self._database.read(lambda records: records.figures.read(now))
            except ServiceError:
                self._figures = None
            self._read_at = self._clock.monotonic()
            self._seconds = self._read_at - began
            self._ready = {
                "broker": self._messenger.problem is None,
                "database": self._figures is not None,
                "object_store": self._probe.failure is None,
            }

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The gauges without values: a registry reads their names."""
        return self._gauges(Figures(), {}, 0.0, 0.0)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, with the figures that were read last."""
        if self._figures is None:
            yield _ready(self._ready)
            return
        yield from self._gauges(self._figures, self._ready, self._clock.now(), self._seconds)

    def _gauges(
        self, figures: Figures, ready: dict[str, bool], now: float, seconds: float
    ) -> Iterator[GaugeMetricFamily]:
        yield _ready(ready)
        yield _one("backhaul_figures_read_seconds", "Time that reading the figures of the fleet took.", seconds)
        yield _labelled(
            "backhaul_clients",
            "Clients, by whether they are connected.",
            {("online",): figures.clients_online, ("offline",): figures.clients_offline},
            "state",
        )
        states = sorted(OPEN)
        uploads = {(state.value,): figures.uploads.get(state, 0) for state in states}
        yield _labelled("backhaul_uploads_open", "Uploads that are not over, by state.", uploads, "state")
        ages = {(state.value,): max(0.0, now - figures.oldest.get(state, now)) for state in states}
        yield _labelled(
            "backhaul_oldest_waiting_seconds",
            "Age of the oldest upload that is not over, by state; 0 without one.",
            ages,
            "state",
        )
        held: dict[tuple[str, ...], float] = {}
        for code, count in figures.held.items():
            held[reason_label(code),] = held.get((reason_label(code),), 0) + count
        yield _labelled(
            "backhaul_gate_waits", "Uploads that the gate holds, by reason; at most 10,000 are counted.", held, "reason"
        )
        late = 0.0 if figures.due_at is None else max(0.0, now - figures.due_at)
        yield _one("backhaul_outbox_late_seconds", "Time for which the oldest due duty waits to be performed.", late)
        jobs = {(state.value,): figures.jobs.get(state, 0) for state in sorted(JOB_OPEN)}
        yield _labelled("backhaul_jobs", "Jobs that are not over, by state.", jobs, "state")
        executions: dict[tuple[str, ...], float] = {}
        for (state, code), count in figures.executions.items():
            if state in EXECUTION_OPEN:
                key = (state, reason_label(code))
                executions[key] = executions.get(key, 0) + count
        yield _labelled(
            "backhaul_executions", "Executions of open jobs, by state and reason.", executions, "state", "reason"
        )
        yield _labelled(
            "backhaul_schedules",
            "Schedules, by whether they are paused.",
            {("active",): figures.schedules_active, ("paused",): figures.schedules_paused},
            "state",
        )
        yield from _coverage(figures)
        yield _labelled(
            "backhaul_webhook_deliveries_open",
            "Deliveries of webhooks that wait, or were given up; at most 10,000 of each are counted.",
            {("waiting",): figures.deliveries_waiting, ("dead",): figures.deliveries_dead},
            "state",
        )


def _coverage(figures: Figures) -> Iterator[GaugeMetricFamily]:
    cells = {(state.value,): sum(one.get(state, 0) for one in figures.coverage.values()) for state in sorted(CellState)}
    yield _labelled("backhaul_schedule_cells", "Clients of the ticks of the last 24 h, by state.", cells, "state")
    ratios = [_ratio(one) for one in figures.coverage.values()]
    known = [ratio for ratio in ratios if ratio is not None]
    yield _one(
        "backhaul_schedule_coverage_ratio",
        "The lowest share of clients that are not missing, over the schedules and their ticks of the last 24 h.",
        min(known, default=1.0),
    )


def _ratio(cells: Mapping[CellState, int]) -> float | None:
    """The share that is not missing; None while nothing is settled."""
    total = sum(cells.get(state, 0) for state in _SETTLED)
    return None if not total else 1 - cells.get(CellState.MISSING, 0) / total


def _ready(ready: dict[str, bool]) -> GaugeMetricFamily:
    names = ("broker", "database", "object_store")
    return _labelled(
        "backhaul_ready",
        "Whether a neighbour can be used: 1 or 0.",
        {(name,): float(ready.get(name, False)) for name in names},
        "neighbour",
    )


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
