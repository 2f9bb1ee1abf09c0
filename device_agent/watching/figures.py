"""The figures of the agent, and their text for Prometheus.

Rule: pure. Label values are constants of this program: no path, no upload and no owner is named.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from schemas.values import DeviceBudget, DeviceHold

PREFIX: Final = "backhaul_agent_"

_HOLDS: Final = tuple(code for code in DeviceHold if code not in {DeviceHold.CONSENT, DeviceHold.UNKNOWN})
"""What may hold back the whole device; consent is for one upload."""


class Figures(Struct, frozen=True, kw_only=True):
    """The agent at `at` (s since the epoch).

    `uploads` are those that are not closed, by state; `events` count what was refused or went wrong since the start.
    `contact_at` is when the connection to the broker was last in place, None before the first time. Disk and journal
    are in bytes, None where the system does not show them.
    """

    version: str
    at: float
    connected: bool
    contact_at: float | None
    uploads: Mapping[str, int]
    unresponsive: int
    journal_failing: bool
    disk_free: int | None
    disk_total: int | None
    journal_size: int
    bytes_sent: int
    parts_sent: int
    ended: Mapping[str, int]
    events: Mapping[str, int]
    budget: DeviceBudget | None = None


class Metric(Struct, frozen=True):
    """One metric: its name without the prefix, its type, its labels and its text for people."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


METRICS: Final = (
    Metric("build_info", "gauge", ("version",), "The version of the agent."),
    Metric("figures_timestamp_seconds", "gauge", (), "When these figures were made."),
    Metric("connected", "gauge", (), "Whether the agent is connected to the broker: 1 or 0."),
    Metric("last_contact_timestamp_seconds", "gauge", (), "When the agent was last connected to the broker."),
    Metric("uploads_open", "gauge", ("state",), "Uploads that are not closed, by their state on the device."),
    Metric("sources_unresponsive", "gauge", (), "Uploads that wait for a file system that does not answer."),
    Metric("journal_failing", "gauge", (), "Whether the disk refuses the journal: 1 or 0."),
    Metric("journal_bytes", "gauge", (), "Size of the journal."),
    Metric("disk_free_bytes", "gauge", (), "Free space on the disk of the journal."),
    Metric("disk_size_bytes", "gauge", (), "Size of the disk of the journal."),
    Metric("sent_bytes_total", "counter", (), "Bytes of parts that the object store took."),
    Metric("sent_parts_total", "counter", (), "Parts that the object store took."),
    Metric("uploads_ended_total", "counter", ("outcome",), "Uploads that the owner closed, by outcome."),
    Metric("budget_used_bytes", "gauge", ("period",), "Bytes of parts sent in the day or month, of each cap."),
    Metric("budget_cap_bytes", "gauge", ("period",), "Bytes that the device's own settings allow."),
    Metric("link_metered", "gauge", (), "Whether the link is metered: 1 or 0; where a cap depends on it."),
    Metric("holds", "gauge", ("reason",), "Whether the device begins no part for this reason: 1 or 0."),
    Metric("events_total", "counter", ("event",), "What was refused, repeated or went wrong."),
)
"""Every metric of the agent, in the order of its text."""


def text_of(figures: Figures) -> str:
    """The figures in Prometheus' text format, version 0.0.4."""
    values = _values(figures) | _budget(figures.budget)
    return "".join(line for metric in METRICS for line in _lines(metric, values[metric.name]))


def _values(figures: Figures) -> dict[str, Mapping[str, float | None]]:
    return {
        "build_info": {figures.version: 1},
        "figures_timestamp_seconds": {"": round(figures.at, 3)},
        "connected": {"": figures.connected},
        "last_contact_timestamp_seconds": {"": figures.contact_at},
        "uploads_open": figures.uploads,
        "sources_unresponsive": {"": figures.unresponsive},
        "journal_failing": {"": figures.journal_failing},
        "journal_bytes": {"": figures.journal_size},
        "disk_free_bytes": {"": figures.disk_free},
        "disk_size_bytes": {"": figures.disk_total},
        "sent_bytes_total": {"": figures.bytes_sent},
        "sent_parts_total": {"": figures.parts_sent},
        "uploads_ended_total": figures.ended,
        "events_total": figures.events,
    }


def _budget(budget: DeviceBudget | None) -> dict[str, Mapping[str, float | None]]:
    """The device's own limits; nothing of them where it has none."""
    if budget is None:
        return {name: {} for name in ("budget_used_bytes", "budget_cap_bytes", "link_metered", "holds")}
    caps = budget.caps
    return {
        "budget_used_bytes": {name: use.used for name, use in caps.items()},
        "budget_cap_bytes": {name: use.cap for name, use in caps.items()},
        "link_metered": {"": budget.metered if caps.keys() & {"metered_day", "metered_month"} else None},
        "holds": {code: code in budget.holds for code in _HOLDS},
    }


def _lines(metric: Metric, values: Mapping[str, float | None]) -> Iterator[str]:
    name = f"{PREFIX}{metric.name}"
    shown = {label: value for label, value in values.items() if value is not None}
    if not shown:
        return
    yield f"# HELP {name} {metric.text}\n"
    yield f"# TYPE {name} {metric.kind}\n"
    for label, value in sorted(shown.items()):
        labels = f'{{{metric.labels[0]}="{label}"}}' if metric.labels else ""
        yield f"{name}{labels} {int(value) if value == int(value) else value}\n"
