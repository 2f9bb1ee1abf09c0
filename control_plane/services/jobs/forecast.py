"""The forecast of a dry run: which devices would pass their own caps.

Rule: bounded reads, at any size of the fleet: the newest jobs, and the devices that report a cap.
"""

from collections.abc import Sequence
from typing import Final

from control_plane.domain.gate.devices import caps_of
from control_plane.domain.gate.forecast import Forecast, forecast
from control_plane.domain.gate.windows import zone_of
from control_plane.domain.jobs.model import Job
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.ports.database import Page, Records
from control_plane.services.ports.jobs import JobFilter

MAX_DEVICES: Final = 10_000
"""Devices with a cap that are judged, the first by id."""

LOOKED_AT: Final = 100
"""The newest jobs among which those of the same files are sought."""

PAST_JOBS: Final = 5
"""Jobs from which the mean of a device is taken."""


def forecast_of(
    records: Records,
    spec: JobSpec,
    client_ids: Sequence[str],
    now: float,
    *,
    schedule_id: str | None = None,
    ticks: Sequence[float] | None = None,
) -> Forecast | None:
    """What is expected of the clients with caps, at `now` or at the `ticks` of a schedule; None if none has a cap.

    Past jobs are those of the same schedule, or else those that request the same paths or file type.
    """
    found = records.clients.budgets(client_ids)
    judged = dict(sorted((name, budget) for name, budget in found.items() if caps_of(budget))[:MAX_DEVICES])
    if not judged:
        return None
    past = [job.job_id for job in _past(records, spec, schedule_id)]
    sent = records.jobs.executions.mean_bytes(past, list(judged)) if past else {}
    at = [now] if ticks is None else ticks
    return forecast(judged, sent, spec.files.max_bytes, at, now, zone_of(spec.zone, "UTC"))


def _past(records: Records, spec: JobSpec, schedule_id: str | None) -> list[Job]:
    if schedule_id is not None:
        found, _ = records.jobs.list(JobFilter(schedule_id=schedule_id), Page(PAST_JOBS))
        if found:
            return found
    newest, _ = records.jobs.list(JobFilter(), Page(LOOKED_AT))
    wanted = (spec.files.type, spec.files.paths)
    return [job for job in newest if (job.spec.files.type, job.spec.files.paths) == wanted][:PAST_JOBS]
