"""One history of jobs from its seed: a fleet, requests, an operator, a nemesis; then calm; then everything is checked.

Rule: `play_jobs(seed)` is a pure function of its arguments, on every machine and in every process.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from msgspec.structs import replace

from control_plane.domain.jobs.model import EXECUTION_TERMINAL, JOB_TERMINAL, ExecutionState
from control_plane.services.policy import Policy
from tests.simulation.history import Failure
from tests.simulation.jobs.database import Fate
from tests.simulation.jobs.devices import Behaviour
from tests.simulation.jobs.drawn import draw_fleet, draw_spec
from tests.simulation.jobs.operator import Operator
from tests.simulation.jobs.plane import JobPlane
from tests.simulation.jobs.reference import meant
from tests.simulation.jobs.site import Site
from tests.simulation.promises import Broken, require

FAULTS: Final = (
    "drop",  # a message is lost after it was accepted
    "dup",  # a message arrives twice
    "delay",  # a message takes seconds to arrive
    "reorder",  # a message overtakes others
    "cut",  # devices lose their connection
    "offline",  # devices are switched off for a while, some for good
    "restart",  # the broker restarts, its sessions kept
    "commit",  # a control plane dies right before or right after a commit
    "plane",  # a control plane is killed
    "replica",  # two control planes share one database
    "locked",  # the database cannot be written for a while
    "s3",  # PUTs and calls of the object store fail
    "silent",  # devices that are connected and answer nothing
    "lying",  # devices whose answers about files are nonsense
    "operator",  # an operator pauses, resumes, cancels, extends, retries
)

STRIKES: Final = 4
PATIENCE: Final = 4 * 3600.0
"""Seconds of calm in which every job must end."""

LATE: Final = 400.0
"""Seconds after its deadline, or after a cancel, in which a job must be over; calls of the object store may last."""


@dataclass
class JobResult:
    """The result of a history."""

    seed: int
    faults: frozenset[str]
    jobs: Counter[str] = field(default_factory=Counter)
    executions: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    deaths: int = 0
    lasted: float = 0.0
    lines: list[str] = field(default_factory=list)


class JobHistory:
    """All parts of one history."""

    def __init__(self, seed: int, without: frozenset[str] = frozenset(), *, traced: bool = False) -> None:
        drawn = Random(f"job faults {seed}")
        share = drawn.choice([0.0, 0.2, 0.5])
        faults = frozenset(name for name in FAULTS if drawn.random() < share) - without
        self._deadly = drawn.choice([0.03, 0.15]) if "commit" in faults else 0.0
        self._fates = Random(f"fates {seed}")
        planes = 2 if "replica" in faults else 1
        policy = Policy(step_timeout=40.0)
        self.site = Site(seed, faults, planes=planes, policy=policy, fates=self._fate, traced=traced)
        self.world = world = self.site.world
        self.site.add(draw_fleet(world, self.site.broker, self.site.bucket))
        self.gone = {name for name in self.site.devices if "offline" in faults and world.chance.random() < 0.2}
        self.operator = Operator(self.site)
        self.specs = {f"job-{number}": draw_spec(world) for number in range(1, world.chance.choice([1, 1, 2, 3]) + 1)}

    def _fate(self, plane: JobPlane) -> Fate | None:
        if self.world.calm or plane.deaths >= STRIKES or self._fates.random() >= self._deadly:
            return None
        return self._fates.choice([Fate.BEFORE, Fate.AFTER])

    async def run(self) -> JobResult:
        """Play it; `Broken` names what does not hold."""
        world, site = self.world, self.site
        for plane in site.planes:
            plane.start()
        for name, device in site.devices.items():
            world.later(world.between(0.0, 10.0), device.switch_on)
            if name in self.gone:
                world.later(world.between(12.0, 25.0), device.switch_off)
        await asyncio.sleep(30.0)
        span = world.between(120.0, 1200.0)
        for job_id, spec in self.specs.items():
            self.operator.plan(job_id, spec, world.between(0.0, 0.5 * span))
        if "operator" in world.faults:
            for _ in range(world.chance.randint(2, 10)):
                world.later(world.between(5.0, span), self.operator.meddle)
        self._strikes(span)
        await self._wait(span)
        self._relent()
        try:
            await self._come_to_rest()
            self._check()
        finally:
            for plane in site.planes:
                plane.kill()
            self.operator.stop()
        checks = site.checks
        return JobResult(
            world.seed,
            world.faults,
            Counter(job.state for job in checks.jobs.values()),
            Counter(row.state for row in checks.rows.values()),
            site.database.commits,
            sum(plane.deaths for plane in site.planes),
            world.now(),
            world.lines or [],
        )

    # --- the nemesis ---

    def _strikes(self, span: float) -> None:
        world, chance, site = self.world, self.world.chance, self.site
        devices = list(site.devices.values())

        def cut() -> None:
            chance.choice(devices).lost()

        def off() -> None:
            device = chance.choice(devices)
            device.switch_off(politely=chance.random() < 0.5)
            world.later(world.between(1.0, 400.0), device.switch_on)

        def restart() -> None:
            if site.broker.up:
                site.broker.stop(forgets=False)
                world.later(world.between(0.5, 40.0), site.broker.start)

        def kill() -> None:
            plane = chance.choice(site.planes)
            plane.kill()
            world.later(world.between(0.2, 60.0), plane.start)

        def lock() -> None:
            site.database.locked_until = world.now() + world.between(1.0, 20.0)

        acts: dict[str, Callable[[], None]] = {
            "cut": cut,
            "offline": off,
            "restart": restart,
            "plane": kill,
            "locked": lock,
        }
        for name, act in acts.items():
            if name in world.faults:
                for _ in range(chance.randint(1, STRIKES)):
                    world.later(world.between(0.0, span), self._strike, name, act)

    def _strike(self, name: str, act: Callable[[], None]) -> None:
        if not self.world.calm:
            self.world.note("nemesis", name)
            act()

    def _relent(self) -> None:
        self.world.note("nemesis", "relents")
        self.world.calm = True
        self.site.broker.up = True
        self.site.database.locked_until = 0.0
        for plane in self.site.planes:
            plane.start()
        for name, device in self.site.devices.items():
            if name not in self.gone:
                device.switch_on()
        self.operator.settle()

    # --- waiting ---

    async def _wait(self, seconds: float) -> None:
        until = self.world.now() + seconds
        while self.world.now() < until:
            await asyncio.sleep(min(20.0, until - self.world.now()))
            self._watch()

    async def _come_to_rest(self) -> None:
        began, pause = self.world.now(), 5.0
        while left := self._unfinished():
            waited = self.world.now() - began
            require(waited < PATIENCE, f"12: after {waited:.0f} s of calm: {'; '.join(left[:5])}")
            await asyncio.sleep(pause)
            self._watch()
            pause = min(60.0, pause * 1.3)
        # Clean-ups that follow the end of an upload.
        await asyncio.sleep(30.0)
        self._watch()

    def _unfinished(self) -> list[str]:
        checks = self.site.checks
        left = [f"{name} waits to be created" for name in self.operator.waiting]
        left += [f"{name} is {job.state}" for name, job in checks.jobs.items() if job.state not in JOB_TERMINAL]
        left += [f"{key} is {row.state}" for key, row in checks.rows.items() if row.state not in EXECUTION_TERMINAL]
        rows = self.site.database.rows(
            "SELECT upload_id, state FROM uploads"
            " WHERE state NOT IN ('completed', 'failed', 'rejected', 'cancelled', 'expired')"
        )
        return left + [f"upload {name} is {state}" for name, state in rows]

    def _watch(self) -> None:
        self.site.watch()
        now = self.world.wall()
        checks = self.site.checks
        for job_id, job in checks.jobs.items():
            if job.state not in JOB_TERMINAL and self.world.calm:
                late = now - job.deadline
                require(late < LATE, f"3: {job_id} is {job.state} {late:.0f} s after its deadline")
                asked = self.operator.cancelled.get(job_id)
                since = 0.0 if asked is None else self.world.now() - max(asked, self.calm_at)
                require(since < LATE, f"2: {job_id} is {job.state} {since:.0f} s after it was cancelled")

    @property
    def calm_at(self) -> float:
        """When the calm began."""
        return self.operator.settled_at

    # --- the end ---

    def _check(self) -> None:
        self._check_rates()
        self._check_files()
        self._check_objects()
        self._check_jobs()

    def _check_jobs(self) -> None:
        checks = self.site.checks
        for job_id in self.specs.keys() - self.operator.refused:
            require(job_id in checks.jobs, f"9: {job_id} was accepted and does not exist")
            expected = self.operator.accepted.get(job_id)
            if expected is not None and checks.spec_of(job_id).targets.mode == "snapshot":
                found = sum(1 for job, _ in checks.rows if job == job_id)
                require(found == expected, f"9: {job_id} was accepted for {expected} clients and has {found}")
        for job_id in self.operator.cancelled:
            state = checks.jobs[job_id].state
            require(state in JOB_TERMINAL, f"2: {job_id} was cancelled and is {state}")

    def _check_rates(self) -> None:
        """10: in no span does a job begin more executions than its rate allows, and one."""
        checks = self.site.checks
        for job_id in checks.jobs:
            rate = checks.spec_of(job_id).rollout.rate
            times = [one.at for one in checks.begins if one.job_id == job_id]
            if rate is None:
                continue
            apart = rate.seconds / rate.count
            for first, began in enumerate(times):
                for more, ended in enumerate(times[first:]):
                    text = f"10: {job_id} begins {more + 1} executions within {ended - began:.1f} s"
                    require(more <= (ended - began) / apart + 1, text)

    def _check_files(self) -> None:
        """6: what a device that is honest sent is what the job means, whatever the pages and the kills."""
        checks, site = self.site.checks, self.site
        for (job_id, client_id), row in checks.rows.items():
            device, spec = site.devices[client_id], checks.spec_of(job_id)
            created = site.database.rows("SELECT created_at FROM jobs WHERE job_id = ?", job_id)[0][0]
            rows = site.database.rows(
                "SELECT path, outcome FROM job_files WHERE job_id = ? AND client_id = ? ORDER BY n", job_id, client_id
            )
            sent = [path for path, outcome in rows if outcome == "proven"]
            require(len(sent) == len(set(sent)), f"12: {client_id} in {job_id} sent a file twice: {sent}")
            listed = [path for path, outcome in rows if outcome != "left_out"]
            require(len(listed) <= spec.files.max_files, f"6: {len(listed)} files of {client_id} in {job_id}")
            if device.behaviour is Behaviour.LIES:
                continue
            query = spec.files
            if query.skip == "unchanged":
                # What is unchanged makes room for others within the limits.
                query = replace(query, max_files=len(device.files), max_bytes=None)
            expected = meant(query, device.files.values(), created)
            require(set(sent) <= set(expected), f"6: {client_id} in {job_id} sent {sent}, the job means {expected}")
            whole = row.state == ExecutionState.SUCCEEDED and spec.files.skip == "none"
            require(not whole or sent == expected, f"6: {client_id} in {job_id} sent {sent}, the job means {expected}")

    def _check_objects(self) -> None:
        """12 and 13: one object for each proven file, under a key of its own, with the bytes of the file."""
        site = self.site
        born = Counter(site.bucket.born)
        keys = Counter(key for key, _ in born)
        require(max(keys.values(), default=1) == 1, f"13: objects were overwritten: {[k for k in keys if keys[k] > 1]}")
        rows = site.database.rows(
            "SELECT client_id, path, key, job_id FROM job_files WHERE outcome = 'proven' AND upload_id IS NOT NULL"
        )
        named = Counter(key for _, _, key, _ in rows)
        require(max(named.values(), default=1) == 1, f"13: two files name one object: {named.most_common(2)}")
        for client_id, path, key, job_id in rows:
            stored = site.bucket.objects.get(key)
            if stored is None:
                text = f"12: {path} of {client_id} in {job_id} is proven and has no object {key}"
                raise Broken(text)
            file = site.devices[client_id].files.get(path)
            same = file is not None and stored.content == file.content
            require(same, f"12: the object of {path} of {client_id} in {job_id} has other bytes")
        states = dict(site.database.rows("SELECT state, count(*) FROM uploads WHERE job_id IS NOT NULL GROUP BY state"))
        # A file of a client that lies may be proven and its execution fail for another reason.
        completed = states.get("completed", 0)
        require(completed == len(rows), f"12: {completed} uploads of jobs are completed, {len(rows)} files are proven")


def play_jobs(seed: int, without: frozenset[str] = frozenset(), *, traced: bool = False) -> JobResult:
    """One whole history; `Failure` with its cause when something did not hold."""
    history = JobHistory(seed, without, traced=traced)
    try:
        return history.site.play(history.run())
    except Exception as error:
        raise Failure(seed, without, history.world.lines or [], program="tests.simulation.jobs") from error
