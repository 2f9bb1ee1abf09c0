"""The calls of REST about schedules.

Rule: each is one request, or all pages of one list. What may be repeated is sent again after a broken connection.
"""

from collections.abc import Mapping
from typing import Any

from control_plane.cli.rest.client import ControlPlane, Document, segment


class ScheduleCalls:
    """Schedules of one control plane. Every method may raise what `ControlPlane` raises."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> Document:
        """Create a schedule; the body has a `schedule_id`, so a repeat means the same schedule."""
        params = {"dry_run": "true"} if dry_run else {}
        return self._plane.call("POST", "/schedules", repeatable=True, json=dict(body), params=params)

    def replace(self, schedule_id: str, body: Mapping[str, Any], version: int) -> Document:
        """Replace what a schedule requests; refused when it has another version."""
        return self._plane.call("PUT", _path(schedule_id), json=dict(body), headers={"If-Match": f'"{version}"'})

    def schedules(self) -> Document:
        """Every schedule, by id."""
        return self._plane.pages("/schedules", "schedules", {})

    def schedule(self, schedule_id: str) -> Document:
        """One schedule."""
        return self._plane.call("GET", _path(schedule_id))

    def delete(self, schedule_id: str) -> None:
        """Delete a schedule."""
        self._plane.call("DELETE", _path(schedule_id))

    def verb(self, schedule_id: str, verb: str, body: Mapping[str, Any] | None = None) -> Document:
        """One verb; all but `run-now` may be repeated."""
        path = f"{_path(schedule_id)}/{verb}"
        return self._plane.call("POST", path, repeatable=verb != "run-now", json=None if body is None else dict(body))

    def preview(self, schedule_id: str, count: int) -> Document:
        """The next ticks."""
        return self._plane.call("GET", f"{_path(schedule_id)}/preview", params={"count": count})

    def runs(self, schedule_id: str, most: int, **filters: object) -> Document:
        """Runs, the latest first."""
        return self._plane.pages(f"{_path(schedule_id)}/runs", "runs", filters, most)

    def coverage(self, schedule_id: str, most: int, **filters: object) -> Document:
        """The ticks of a span with their sums, and up to `most` clients with their cells."""
        return self._plane.pages(f"{_path(schedule_id)}/coverage", "clients", filters, most)


def _path(schedule_id: str) -> str:
    return f"/schedules/{segment(schedule_id)}"
