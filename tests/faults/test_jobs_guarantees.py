"""What operators of other systems suffer from, each as one scenario in virtual time; the numbers are the design's.

Rule: a scenario waits for facts of the rows and the models; its seed makes it the same in every run.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import pytest

from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.jobs.spec import DAY, FileQuery, JobSpec, Retry, Rollout, Targets, Timeouts
from control_plane.domain.schedules.model import ScheduleSpec
from control_plane.domain.schedules.ticks import Cadence
from control_plane.services.errors import SetChanged
from control_plane.services.jobs.service import Choice
from control_plane.services.ports.database import Page
from control_plane.services.ports.jobs import ExecutionFilter
from schemas.parts import MIB
from tests.simulation.jobs.devices import Behaviour, ModelDevice, model_files
from tests.simulation.jobs.operator import ANYONE, Operator, schedules_of
from tests.simulation.jobs.site import Site

pytestmark = pytest.mark.timeout(120)

CONNECTED: Final = 20.0
ALL_FILES: Final = FileQuery(paths=("/data/*",))
EVERY_CLIENT: Final = Targets(("*",))
HOUR: Final = 3600.0


def a_site(*behaviours: Behaviour, files: int = 2, size: int = 5000, seed: int = 1) -> Site:
    site = Site(seed)
    site.world.pace = 1.0
    site.add(
        [
            ModelDevice(site.world, site.broker, site.bucket, f"till-{number}", model_files(number, files, size), one)
            for number, one in enumerate(behaviours, 1)
        ]
    )
    return site


async def begin(site: Site) -> Operator:
    for plane in site.planes:
        plane.start()
    for device in site.devices.values():
        device.switch_on()
    await asyncio.sleep(CONNECTED)
    return Operator(site)


async def true(site: Site, condition: Callable[[], bool], patience: float = HOUR) -> None:
    """Wait until the condition holds; nothing may break meanwhile."""
    limit = site.world.now() + patience
    while not condition():
        assert site.world.now() < limit, (site.checks.jobs, site.checks.rows)
        await asyncio.sleep(0.2)
        site.watch()


async def until(site: Site, state: str, job_id: str = "sales", patience: float = HOUR) -> None:
    """Wait until the job has this state."""
    await true(site, lambda: job_id in site.checks.jobs and site.checks.jobs[job_id].state == state, patience)


def states(site: Site, job_id: str = "sales") -> list[str]:
    """The states of the executions, by client."""
    return [row.state for (job, _), row in sorted(site.checks.rows.items()) if job == job_id]


def test_a_resume_repeats_nothing_that_ended() -> None:
    """1."""
    site = a_site(*[Behaviour.HONEST, Behaviour.FAILS] * 3)

    async def work() -> None:
        operator = await begin(site)
        spec = JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, rollout=Rollout(max_running=1))
        await operator.create("sales", spec)
        await true(site, lambda: "failed" in states(site))
        await operator.verb("pause", lambda jobs: jobs.pause(ANYONE, "sales"))
        await asyncio.sleep(60.0)
        ended = {key: row for key, row in site.checks.rows.items() if row.state in {"succeeded", "failed"}}
        await operator.verb("resume", lambda jobs: jobs.resume(ANYONE, "sales"))
        assert 0 < len(ended) < 6
        await until(site, "completed")
        assert {key: site.checks.rows[key] for key in ended} == ended

    site.play(work())
    assert len(site.bucket.born) == 6


def test_a_cancel_ends_a_job_whose_devices_are_away() -> None:
    """2."""
    site = a_site(Behaviour.HONEST, Behaviour.HONEST, Behaviour.SILENT)

    async def work() -> None:
        operator = await begin(site)
        site.devices["till-2"].switch_off()
        await asyncio.sleep(30.0)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES))
        await asyncio.sleep(30.0)
        await operator.verb("cancel", lambda jobs: jobs.cancel(ANYONE, "sales"))
        await until(site, "cancelled", patience=60.0)
        assert states(site) == ["succeeded", "cancelled", "cancelled"]

    site.play(work())


def test_a_job_past_its_deadline_ends_by_itself() -> None:
    """3."""
    site = a_site(Behaviour.HONEST, Behaviour.SILENT)

    async def work() -> None:
        operator = await begin(site)
        site.devices["till-1"].switch_off()
        await asyncio.sleep(30.0)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, deadline=300.0))
        await until(site, "expired", patience=360.0)
        assert states(site) == ["timed_out", "timed_out"]
        assert site.world.wall() >= site.checks.jobs["sales"].deadline

    site.play(work())


def test_an_extended_deadline_holds_for_the_job_and_its_open_uploads() -> None:
    """5."""
    site = a_site(Behaviour.HONEST, files=1, size=200 * MIB)
    site.world.pace = 60.0

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, deadline=90.0))
        await true(site, lambda: bool(site.bucket.multiparts))
        await operator.extend("sales", site.checks.jobs["sales"].deadline + 2 * HOUR)
        await until(site, "completed", patience=2 * HOUR)
        assert states(site) == ["succeeded"]

    site.play(work())


def test_limits_judge_the_selection_and_not_its_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """6."""
    monkeypatch.setattr("control_plane.services.jobs.plans.SELECTION_PAGE", 2)
    site = a_site(Behaviour.HONEST, files=9)

    async def work() -> None:
        operator = await begin(site)
        for name, query in {
            "five": FileQuery(paths=("/data/*",), max_files=5),
            "bytes": FileQuery(paths=("/data/*",), max_bytes=17_000),
        }.items():
            await operator.create(name, JobSpec(targets=EVERY_CLIENT, files=query))
            await until(site, "completed", name)

    site.play(work())
    sent = dict(site.database.rows("SELECT job_id, group_concat(path) FROM job_files GROUP BY job_id"))
    assert sent["five"].split(",") == [f"/data/{number}.bin" for number in (9, 8, 7, 6, 5)]
    assert sent["bytes"].split(",") == [f"/data/{number}.bin" for number in (9, 8, 7)]


def test_a_bulk_act_on_a_set_that_changed_is_refused() -> None:
    """7."""
    site = a_site(Behaviour.FAILS, Behaviour.FAILS, Behaviour.HONEST)

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, rollout=Rollout(max_running=1)))
        failed = frozenset({ExecutionState.FAILED})
        await true(site, lambda: "failed" in states(site))
        _, _, shown = await operator.ask(lambda jobs: jobs.executions(ANYONE, ExecutionFilter("sales", failed), Page()))
        await until(site, "completed")
        before = dict(site.checks.rows)
        version = site.checks.jobs["sales"].spec_version
        choice = Choice(states=failed, shown=shown)
        with pytest.raises(SetChanged):
            await operator.ask(lambda jobs: jobs.retry(ANYONE, "sales", version, choice, None))
        assert site.checks.rows == before

    site.play(work())


@pytest.mark.slow
def test_a_job_that_is_paused_for_25_hours_loses_no_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    """10."""
    site = a_site(Behaviour.HONEST, Behaviour.HONEST, files=1, size=200 * MIB)
    site.world.pace = 30.0

    async def work() -> None:
        for place in ("uploads.outbox.POLL", "jobs.runner.POLL", "schedules.runner.EVERY", "maintenance.EVERY"):
            monkeypatch.setattr(f"control_plane.services.{place}", 120.0)
        operator = await begin(site)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, deadline=3 * DAY))
        await true(site, lambda: sum(site.checks.granted.values()) >= 2)
        await operator.verb("pause", lambda jobs: jobs.pause(ANYONE, "sales"))
        # A device that connects again reports its uploads, and the answer is a wait too.
        for device in site.devices.values():
            device.lost()
        # What was granted is still sent: 64 MiB of each file at most.
        await asyncio.sleep(600.0)
        site.watch()
        sent = sum(len(one.parts) for one in site.bucket.multiparts.values())
        assert 0 < sent < 2 * 40
        await asyncio.sleep(25 * HOUR)
        site.watch()
        assert sum(len(one.parts) for one in site.bucket.multiparts.values()) == sent
        await operator.verb("resume", lambda jobs: jobs.resume(ANYONE, "sales"))
        await until(site, "completed")
        assert site.database.rows("SELECT state, attempt FROM uploads") == [("completed", 1)] * 2

    site.play(work())
    assert len(site.bucket.born) == 2


@pytest.mark.parametrize("bad", [Behaviour.SILENT, Behaviour.LIES])
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_device_delays_its_own_execution_only(bad: Behaviour, seed: int) -> None:
    """11."""
    site = a_site(*[Behaviour.HONEST] * 3, bad, bad, seed=seed)

    async def work() -> None:
        operator = await begin(site)
        spec = JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, timeouts=Timeouts(listing=600.0), deadline=2 * HOUR)
        await operator.create("sales", spec)
        await asyncio.sleep(30.0)
        site.watch()
        assert states(site)[:3] == ["succeeded"] * 3
        await true(site, lambda: site.checks.jobs["sales"].state != "running")

    site.play(work())
    assert {key for key, _ in site.bucket.born if "/till-1/" in key or "/till-2/" in key or "/till-3/" in key} == {
        f"uploads/sales/till-{client}/data/{number}.bin" for client in (1, 2, 3) for number in (1, 2)
    }


def test_a_repeated_execution_sends_only_what_is_missing() -> None:
    """1 and 12: of three files one fails at first; an automatic retry sends that one, and no file twice."""
    site = a_site(Behaviour.HONEST, files=3)
    failed: list[str] = []
    device = site.devices["till-1"].device

    def fails(path: str) -> bool:
        first = path == "/data/2.bin" and not failed
        failed.extend([path] if first else [])
        return first

    device._fails = fails  # type: ignore[method-assign]

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, retry=Retry(failed=1)))
        await until(site, "completed")
        assert states(site) == ["succeeded"]

    site.play(work())
    assert failed == ["/data/2.bin"]
    assert len(site.bucket.born) == 3
    assert site.database.rows("SELECT count(*) FROM uploads") == [(4,)]


def test_after_a_backup_is_restored_a_job_goes_on_and_every_object_is_its_file() -> None:
    """12: what was sent after the backup is sent again, as uploads that no device has closed before."""
    site = a_site(*[Behaviour.HONEST] * 4)

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, rollout=Rollout(max_running=1)))
        await true(site, lambda: states(site).count("succeeded") == 2)
        backup = site.database.backup()
        await until(site, "completed")
        site.planes[0].kill()
        site.database.restore(backup)
        site.checks.forget()
        site.planes[0].start()
        await true(site, lambda: site.checks.jobs["sales"].state == "running")
        await until(site, "completed")
        assert states(site) == ["succeeded"] * 4

    site.play(work())
    proven = site.database.rows("SELECT key, client_id, path FROM job_files WHERE outcome = 'proven'")
    assert len({key for key, *_ in proven}) == 8
    for key, client_id, path in proven:
        assert site.bucket.objects[key].content == site.devices[client_id].files[path].content


def test_every_tick_is_accounted_for_after_hours_without_a_control_plane() -> None:
    """8: twice, over an hour; of what was missed the latest is made up for, and each of the others has its row."""
    site = a_site(Behaviour.HONEST, files=1)

    async def work() -> None:
        await begin(site)
        plane = site.planes[0]
        spec = ScheduleSpec(
            cadence=Cadence(every=300.0), job=JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, deadline=200.0)
        )
        await plane.call(lambda engine: schedules_of(engine).create(ANYONE, "daily", spec))
        for _ in range(2):
            await asyncio.sleep(700.0)
            plane.kill()
            await asyncio.sleep(HOUR)
            plane.start()
        await asyncio.sleep(700.0)
        site.watch()

    site.play(work())
    ((created, cursor),) = site.database.rows("SELECT created_at, cursor FROM schedules")
    first = (created // 300.0 + 1) * 300.0
    due = [first + n * 300.0 for n in range(int((cursor - first) / 300.0) + 1)]
    assert site.world.wall() - cursor < 400.0
    runs = site.database.rows("SELECT nominal_at, status FROM schedule_runs ORDER BY nominal_at")
    assert [nominal for nominal, _ in runs] == due
    statuses = [status for _, status in runs]
    assert statuses.count("missed") >= 2 * 10
    jobs = site.database.rows("SELECT nominal_at FROM jobs WHERE kind = 'tick' ORDER BY nominal_at")
    assert [nominal for (nominal,) in jobs] == [nominal for nominal, status in runs if status == "fired"]


def test_two_jobs_of_one_key_overwrite_no_object() -> None:
    """13."""
    site = a_site(Behaviour.HONEST, Behaviour.HONEST)

    async def work() -> None:
        operator = await begin(site)
        spec = JobSpec(targets=EVERY_CLIENT, files=ALL_FILES, key="{client_id}/{name}")
        for name in ("first", "second"):
            await operator.create(name, spec)
        for name in ("first", "second"):
            await until(site, "completed", name)

    site.play(work())
    keys = [key for key, _ in site.bucket.born]
    assert len(keys) == len(set(keys)) == 8
    named = {key for (key,) in site.database.rows("SELECT key FROM job_files")}
    assert named == set(keys)


@pytest.mark.slow
def test_a_device_is_granted_no_more_than_its_cap_a_day_and_its_job_ends_by_itself() -> None:
    """14: twelve files of 10 MiB at 45 MiB a day, of an hour here: four each, and the last ones in the third."""
    site = Site(1)
    site.world.pace = 1.0
    device = ModelDevice(site.world, site.broker, site.bucket, "till-1", model_files(1, 12, 10 * MIB), cap=45 * MIB)
    site.add([device])

    async def work() -> None:
        operator = await begin(site)
        await operator.create("sales", JobSpec(targets=EVERY_CLIENT, files=ALL_FILES))
        await until(site, "completed", patience=4 * HOUR)

    site.play(work())
    assert states(site) == ["succeeded"]
    assert len(site.bucket.born) == 12
    over = {day: sent for day, sent in device.http.sent.items() if sent > 45 * MIB}
    assert not over, f"14: {over}"
    assert len(device.http.sent) == 3
