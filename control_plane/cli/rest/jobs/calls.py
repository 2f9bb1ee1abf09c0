"""The calls of REST about jobs.

Rule: each is one request, or all pages of one list. What may be repeated is sent again after a broken connection.
"""

from collections.abc import Mapping
from typing import Any

from control_plane.cli.rest.client import ControlPlane, Document, segment


def job_path(job_id: str) -> str:
    """The path of one job."""
    return f"/jobs/{segment(job_id)}"


class JobCalls:
    """Jobs of one control plane. Every method may raise what `ControlPlane` raises."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> Document:
        """Create a job; the body has a `job_id`, so a repeat means the same job."""
        params = {"dry_run": "true"} if dry_run else {}
        return self._plane.call("POST", "/jobs", repeatable=True, json=dict(body), params=params)

    def jobs(self, most: int, **filters: object) -> Document:
        """Jobs, newest first."""
        return self._plane.pages("/jobs", "jobs", filters, most)

    def job(self, job_id: str) -> Document:
        """One job."""
        return self._plane.call("GET", job_path(job_id))

    def executions(self, job_id: str, most: int | None = None, **filters: object) -> Document:
        """Executions by client id, with `count` and `set` of all that match."""
        return self._plane.pages(f"{job_path(job_id)}/executions", "executions", filters, most)

    def files(self, job_id: str, most: int | None = None, **filters: object) -> Document:
        """Selected files."""
        return self._plane.pages(f"{job_path(job_id)}/files", "files", filters, most)

    def manifest(self, job_id: str, most: int | None = None) -> Document:
        """What would be sent."""
        return self._plane.pages(f"{job_path(job_id)}/manifest", "clients", {}, most)

    def verb(
        self, job_id: str, verb: str, body: Mapping[str, Any] | None = None, version: int | None = None
    ) -> Document:
        """One verb. A repeat changes nothing; with `version` it is refused when the job has another one."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return self._plane.call(
            "POST", f"{job_path(job_id)}/{verb}", repeatable=version is None, json=dict(body or {}), headers=headers
        )

    def patch(self, job_id: str, body: Mapping[str, Any], version: int) -> Document:
        """Retune a job that runs."""
        return self._plane.call("PATCH", job_path(job_id), json=dict(body), headers={"If-Match": f'"{version}"'})
