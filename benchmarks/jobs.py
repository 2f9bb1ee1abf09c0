"""Jobs over a fleet: a job beside the same uploads triggered one by one, and REST over jobs that are large.

Rule: the peer is measured in the same run, on a site of its own. A job counts as over when `GET /jobs/{id}` shows it.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from benchmarks import fleet
from benchmarks.figures import MIB, Figure, Report, median, percentile
from benchmarks.processes import Watched, cpu_seconds, peak_bytes, resident_bytes
from benchmarks.site import ROOT, Site, get_json, running_site
from control_plane.adapters.database import SqlDatabase
from control_plane.domain.clients import Client
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Targets
from control_plane.domain.schedules.model import Schedule, ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.jobs.creation import create_job
from control_plane.services.ports.database import Records

PATIENCE: Final = 900.0
ASKED: Final = 200
_LOOK: Final = 0.1
_BATCH: Final = 1_000
_WARM: Final = 4
"""Jobs before the growth is measured: they fill the page caches of SQLite, 16 MB for each of five connections."""

_RATE: Final = 1_000
TICKS: Final = 30
_PERIOD: Final = 86_400.0
_FIRST_TICK: Final = 20_000 * _PERIOD
_KEY: Final = "{job}/{client_id}/{path}"


@dataclass(frozen=True, slots=True)
class JobRun:
    """One job: seconds from POST to its end, CPU seconds by program meanwhile, and the control plane's memory."""

    uploads: int
    posting_seconds: float
    seconds: float
    cpu: Mapping[str, float]
    resident: int
    peak: int
    document: Mapping[str, Any]
    repeated: int

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of the control plane for each upload."""
        return 1000 * self.cpu["control plane"] / self.uploads


def jobs(devices: int = 10_000, many_files: int = 1_000, few_devices: int = 100) -> Report:
    """One file of each device, beside single triggers; then many files of few devices."""
    single = fleet.measure(devices)
    one_each = measure(devices, 1)
    many = measure(few_devices, many_files)
    floor = single.cpu_ms["control plane"]
    figures = [
        Figure(
            f"one job over {devices:,} devices, POST to completed",
            one_each.seconds,
            "s",
            against="s single triggers",
            beside=single.reported["seconds"],
            at_most=1.15,
        ),
        Figure(
            "control plane CPU per upload, in that job",
            one_each.cpu_ms,
            "ms",
            against="ms single triggers",
            beside=floor,
            at_most=2.0,
        ),
        Figure("uploads of that job that are not proven", devices - _proven(one_each), "", at_most=0),
        Figure("objects of that job sent twice", one_each.repeated, "", at_most=0),
        Figure(
            f"control plane CPU per upload, one job of {few_devices} devices of {many_files:,} files",
            many.cpu_ms,
            "ms",
            against="ms single triggers",
            beside=floor,
            at_most=2.0,
        ),
        Figure(
            f"uploads a minute, {few_devices} devices of {many_files:,} files", 60 * many.uploads / many.seconds, "/min"
        ),
        Figure("uploads of that job that are not proven", few_devices * many_files - _proven(many), "", at_most=0),
        Figure("control plane peak, in that job", many.peak / MIB, "MiB"),
    ]
    details = {
        "single": {"seconds": single.reported["seconds"], "cpu_ms": single.cpu_ms},
        "one_each": _details(one_each),
        "many": _details(many),
    }
    return Report("jobs", figures, details)


def measure(devices: int, files: int) -> JobRun:
    """One site, one fleet, one job over all files of all devices."""
    body = {
        "targets": {"clients": ["*"]},
        "files": {"paths": ["/simulated/*"], "max_files": files},
        "key": _KEY,
    }
    with tempfile.TemporaryDirectory() as directory, running_site(Path(directory)) as site:
        before = site.counts()
        with _devices(site, Path(directory), devices, files) as simulator:
            marked = {**site.cpu(), "devices": cpu_seconds(simulator.pid)}
            started = time.monotonic()
            job_id = post(f"{site.server}/jobs", body)["job_id"]
            posting = time.monotonic() - started
            document = _await_end(f"{site.server}/jobs/{job_id}")
            seconds = time.monotonic() - started
            used = {**site.cpu(), "devices": cpu_seconds(simulator.pid)}
            after = site.counts()
            return JobRun(
                devices * files,
                posting,
                seconds,
                {name: used[name] - marked[name] for name in used},
                resident_bytes(site.plane.pid),
                peak_bytes(site.plane.pid),
                document,
                after.repeated - before.repeated,
            )


def large(executions: int = 100_000, created: int = 10_000) -> Report:
    """REST over a job of many executions, and the creation of a job; no device is connected."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "control-plane"
        folder.mkdir()
        asyncio.run(_register(f"sqlite:///{folder / 'backhaul.db'}", executions, created))
        with running_site(Path(directory)) as site:
            body = {"targets": {"selector": "size=created"}, "files": {"paths": ["/simulated/*"]}}
            creating = _timed(lambda: post(f"{site.server}/jobs", body))
            body = {"targets": {"clients": ["client-*"]}, "files": {"paths": ["/simulated/*"]}, "job_id": "large"}
            creating_large = _timed(lambda: post(f"{site.server}/jobs", body, timeout=PATIENCE))
            span = f"from={int(_FIRST_TICK - 1)}&to={int(_FIRST_TICK + TICKS * _PERIOD)}"
            covered = list(_times(f"{site.server}/schedules/daily/coverage?{span}"))
            shown = list(_times(f"{site.server}/jobs/large"))
            first = f"{site.server}/jobs/large/executions"
            first_paged = list(_times(first))
            paged = list(_times(f"{first}?cursor={quote(get_json(first)['cursor'])}"))
            for number in range(_WARM):
                _more(site.server, body, f"warm-{number}")
            base = resident_bytes(site.plane.pid)
            _more(site.server, body, "again")
            grown = resident_bytes(site.plane.pid) - base
    figures = [
        Figure(f"POST /jobs for {created:,} clients", creating, "s", at_most=2.0),
        Figure(f"POST /jobs for {executions:,} clients", creating_large, "s"),
        Figure(f"GET /jobs/{{id}}, {executions:,} executions, p95", 1000 * percentile(shown, 0.95), "ms", at_most=20),
        Figure(f"a page of {executions:,} executions, p95", 1000 * percentile(paged, 0.95), "ms", at_most=20),
        Figure(f"the first page of {executions:,}, p95", 1000 * percentile(first_paged, 0.95), "ms"),
        Figure(
            f"coverage of {created:,} clients and {TICKS} ticks, p95",
            1000 * percentile(covered, 0.95),
            "ms",
            at_most=50,
        ),
        Figure(f"control plane growth over {executions:,} more executions", grown / MIB, "MiB", at_most=32),
    ]
    medians = {"job": 1000 * median(shown), "page": 1000 * median(paged), "coverage": 1000 * median(covered)}
    details = {"median_ms": medians}
    return Report("jobs-large", figures, details)


def _more(server: str, body: Mapping[str, Any], job_id: str) -> None:
    """One more job of as many executions, and looks at it."""
    post(f"{server}/jobs", {**body, "job_id": job_id}, timeout=PATIENCE)
    for path in (f"jobs/{job_id}", f"jobs/{job_id}/executions"):
        list(_times(f"{server}/{path}"))


def post(url: str, body: Mapping[str, Any], timeout: float = 120.0) -> Any:  # noqa: ANN401 - any document
    """The document of a POST on loopback; raises unless it is 2xx."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("POST", parts.path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status // 100 != 2:  # noqa: PLR2004 - RFC 9110, 15.3
        message = f"POST {url}: {answer.status} {text.decode(errors='replace')[:500]}"
        raise RuntimeError(message)
    return json.loads(text)


@contextmanager
def _devices(site: Site, directory: Path, devices: int, files: int) -> Iterator[Watched]:
    """Connected devices, in one process."""
    command = (sys.executable, "-m", "control_plane.cli.main", "simulate", "--json")
    options = {
        "--mqtt-url": site.broker.address.url,
        "--devices": str(devices),
        "--files": str(files),
        "--rate": str(_RATE),
        "--patience": str(PATIENCE),
    }
    arguments = [word for pair in options.items() for word in pair]
    with Watched((*command, *arguments), {"PYTHONPATH": str(ROOT)}, directory / "devices" / "devices.log") as simulator:
        simulator.wait_for("devices are connected", PATIENCE)
        _until_known(site, devices)
        yield simulator


def _until_known(site: Site, devices: int) -> None:
    """Wait until the control plane has stored every device."""
    deadline = time.monotonic() + PATIENCE
    while get_json(f"{site.server}/clients?limit=1")["count"] < devices:
        if time.monotonic() > deadline:
            message = "the control plane does not know all devices"
            raise RuntimeError(message)
        time.sleep(_LOOK)


def _await_end(url: str) -> Any:  # noqa: ANN401 - any document
    deadline = time.monotonic() + PATIENCE
    while (document := get_json(url))["state"] in {"running", "paused", "cancelling"}:
        if time.monotonic() > deadline:
            message = f"the job does not end: {document}"
            raise RuntimeError(message)
        time.sleep(_LOOK)
    return document


def _proven(run: JobRun) -> int:
    return int(run.document["totals"]["proven"])


def _times(url: str) -> Iterator[float]:
    for _ in range(ASKED):
        yield _timed(lambda: get_json(url))


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


async def _register(url: str, clients: int, created: int) -> None:
    """Fill a new database with clients that are offline; `created` of them have a label."""
    database = SqlDatabase.open(url)
    now = time.time()
    try:
        for start in range(0, clients, _BATCH):
            batch = [
                Client(
                    client_id=f"client-{number:06}",
                    install_id="benchmark",
                    epoch=1,
                    sequence=0,
                    online=False,
                    seen_at=now,
                    registered_at=now,
                    labels={"size": "created"} if number < created else {},
                )
                for number in range(start, start + _BATCH)
            ]
            await database.write(lambda records, batch=batch: records.clients.save(batch))  # type: ignore[misc]
        await database.write(lambda records: _cover(records, now))
    finally:
        await database.close()


def _cover(records: Records, now: float) -> None:
    """A schedule of `TICKS` ticks that covers the clients with the label."""
    spec = JobSpec(targets=Targets(selector="size=created"), files=FileQuery(paths=("/simulated/*",)))
    daily = ScheduleSpec(cadence=Cadence(every=_PERIOD), job=spec)
    cursor = _FIRST_TICK + (TICKS - 1) * _PERIOD
    records.schedules.add(
        Schedule(schedule_id="daily", spec=daily, created_at=_FIRST_TICK - 1, cursor=cursor, due_at=1e15)
    )
    create_job(records, "covered", spec, now, "")
    for number in range(TICKS):
        records.coverage.add("daily", _FIRST_TICK + number * _PERIOD, "covered", now=now, watch_until=now)


def _details(run: JobRun) -> dict[str, Any]:
    return {
        "uploads": run.uploads,
        "posting_seconds": run.posting_seconds,
        "seconds": run.seconds,
        "cpu": run.cpu,
        "resident_mib": run.resident / MIB,
        "job": dict(run.document),
    }
