"""Windows: the spans of time in which a job may send, by cron in a zone.

Rule: pure. A window begins at a tick of its cron expression in local time and lasts a number of real seconds: it may
pass midnight, and a change of the clocks makes it neither longer nor shorter. A tick that the clocks leave out is
right after the gap; one that comes twice is one tick, the first.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim

from control_plane.domain.gate.gate import Opening
from control_plane.domain.jobs.spec import Window

YEAR: Final = 366 * 86_400.0
CHANGE: Final = timedelta(hours=3)
"""More than any change of the clocks."""


def zone_of(name: str | None, other: str) -> ZoneInfo:
    """The zone `name`, or `other` where there is none, or none that this machine knows; UTC in place of both."""
    for one in (name, other):
        try:
            if one:
                return ZoneInfo(one)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def opening(windows: Sequence[Window], now: float, job_zone: str, device_zone: str | None) -> Opening:
    """Whether one of the windows is open at `now` (s since the epoch). Without windows it always is.

    A window in the zone of a device that does not report one is in the job's.
    """
    if not windows:
        return Opening()
    ended: list[tuple[float, Window]] = []
    following: list[float] = []
    for window in windows:
        zone = zone_of(device_zone if window.zone == "device" else None, job_zone)
        began_at = _tick(window.cron, now, zone, back=True)
        if began_at is not None and now < began_at + window.seconds:
            return Opening(on_end=window.on_end)
        if began_at is not None:
            ended.append((began_at + window.seconds, window))
        next_at = _tick(window.cron, now, zone, back=False)
        if next_at is not None and next_at < now + YEAR:
            following.append(next_at)
    on_end = max(ended, key=lambda pair: pair[0])[1].on_end if ended else "pause"
    of_job = all(window.zone == "job" for window in windows)
    return Opening(open=False, opens_at=min(following, default=None), on_end=on_end, of_job=of_job)


def _tick(cron: str, now: float, zone: ZoneInfo, *, back: bool) -> float | None:
    """The last tick up to `now`, or the first one after it; None without one.

    CronSim steps through local times, whose order is not that of instants where the clocks go back: ticks on the wrong
    side of `now` are passed over.
    """
    local = datetime.fromtimestamp(int(now), UTC).astimezone(zone)
    if back:
        # The tick at this very second counts.
        start = local + timedelta(seconds=1)
        if local.utcoffset() != (local - CHANGE).utcoffset() or local.utcoffset() != (local + CHANGE).utcoffset():
            start = (local.astimezone(UTC) + CHANGE).astimezone(zone)
        ticks = (tick.timestamp() for tick in CronSim(cron, start, reverse=True))
        return next((at for at in ticks if at <= now), None)
    ticks = (tick.timestamp() for tick in CronSim(cron, local))
    return next((at for at in ticks if at > now), None)
