"""Real processes under seeded random faults, then in calm: every upload ends, and a completed object is the file.

Rule: `tests.support.history` checks the run; a failure shows the seed and the diary of the nemesis.
"""

import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.support.fault_sites import (
    CHUNK,
    FAKETIME,
    MIB,
    TERMINAL,
    FaultSite,
    clock_of,
    running_site,
    small_tmpfs,
)
from tests.support.fault_sites_watch import Watcher
from tests.support.history import AcceptedTrigger, History, check, litter, read_epochs, read_plane_log
from tests.support.nemesis import Ground, Nemesis

AGENTS: Final = ("restaurant-1", "restaurant-2")
UPLOADS: Final = 30
STORM: Final = 70.0
CALM: Final = 200.0
SIZES: Final = (0, 1, 1000, MIB, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7, 6 * CHUNK)
IN_FLIGHT: Final = 4
"""Parts that an agent sends in parallel; one fault may lose the answers of all of them."""

CUTS: Final = ("store's connections cut", "store out of reach")
"""Faults that reset the connections on which the object store answers."""


@dataclass
class Plan:
    """One upload: when to trigger it (seconds from the start), with which file and options, and its id afterwards."""

    at: float
    client_id: str
    path: Path
    options: dict[str, Any]
    change_at: float | None = None
    versions: set[str] = field(default_factory=set)
    size: int = 0
    upload_id: str | None = None
    key: str = ""

    def note(self) -> None:
        """Record the present content of the file."""
        content = self.path.read_bytes()
        self.versions.add(hashlib.sha256(content).hexdigest())
        self.size = max(self.size, len(content))


def planned(site: FaultSite, seed: int) -> list[Plan]:
    """Files of many sizes, triggered during the first 80 % of the storm; some change during their upload."""
    chance = random.Random(f"plan {seed}")
    plans = []
    for number in range(UPLOADS):
        client_id, at = chance.choice(AGENTS), chance.uniform(0, 0.8 * STORM)
        path = site.file(client_id, f"{number:02}.bin", chance.choice(SIZES))
        options: dict[str, Any] = {"on_change": chance.choice(("fail", "prefix")), "priority": chance.randint(0, 9)}
        if chance.random() < 0.3:
            options["max_bytes_per_second"] = 4 * MIB
        change_at = at + chance.uniform(0.5, 5) if chance.random() < 0.2 else None
        plan = Plan(at, client_id, path, options, change_at, key=f"chaos-{seed}-{number}")
        plan.note()
        plans.append(plan)
    return sorted(plans, key=lambda plan: plan.at)


class Run:
    """One run: the storm, in which faults occur, and the calm after it."""

    def __init__(self, site: FaultSite, nemesis: Nemesis, plans: list[Plan]) -> None:
        self.site = site
        self.nemesis = nemesis
        self.plans = plans

    def storm(self) -> None:
        """Trigger the uploads while the nemesis causes faults."""
        while (passed := time.monotonic() - self.nemesis.began) < STORM:
            self.nemesis.turn()
            for plan in self.plans:
                if plan.upload_id is None and passed >= plan.at:
                    self._trigger(plan)
                    break
                if plan.change_at is not None and passed >= plan.change_at:
                    plan.change_at = None
                    self._change(plan)
            time.sleep(0.02)
        self.nemesis.relent()

    def calm(self) -> None:
        """Wait until everything has ended."""
        self.site.restart_plane()
        for agent in self.site.agents.values():
            agent.start()
        for plan in self.plans:
            if plan.upload_id is None:
                self.site.until(lambda one=plan: self._trigger(one), "the last trigger", CALM)  # type: ignore[misc]
        end = time.monotonic() + CALM
        while left := self._open():
            assert time.monotonic() < end, "\n".join(("still open:", *left, self.site.log_tail()))
            time.sleep(0.2)
        for name in self.site.agents:
            self.site.until(lambda one=name: self.site.connected(one), f"{name} to be online", CALM)  # type: ignore[misc]
        self.site.until(lambda: not litter(self.site.strict.events()), "the abandoned attempts to be aborted", CALM)

    def _trigger(self, plan: Plan) -> bool:
        """Trigger one upload; after a lost answer, repeat the request with the same idempotency key."""
        body = {"file_path": str(plan.path), "options": plan.options}
        url = f"{self.site.server}/trigger-download/{plan.client_id}"
        try:
            answer = httpx.post(url, json=body, headers={"Idempotency-Key": plan.key}, timeout=1)
        except httpx.TransportError:
            return False
        if answer.status_code == httpx.codes.OK:
            plan.upload_id = str(answer.json()["upload_id"])
        return plan.upload_id is not None

    @staticmethod
    def _change(plan: Plan) -> None:
        with plan.path.open("ab") as file:
            file.write(os.urandom(100))
        plan.note()

    def _open(self) -> list[str]:
        """The uploads that have not ended, and what each waits for."""
        uploads = [self.site.upload(str(plan.upload_id)) for plan in self.plans if plan.upload_id is not None]
        shown = ("upload_id", "client_id", "state", "attempt", "reason", "updated_at")
        return [str({name: one[name] for name in shown}) for one in uploads if one["state"] not in TERMINAL]

    def history(self, watcher: Watcher) -> History:
        """The record of the run."""
        uploads = {str(plan.upload_id): self.site.upload(str(plan.upload_id)) for plan in self.plans}
        completed = [upload_id for upload_id, upload in uploads.items() if upload["state"] == "completed"]
        agents = self.site.agents
        return History(
            accepted=tuple(
                AcceptedTrigger(upload_id=str(plan.upload_id), size=plan.size, versions=frozenset(plan.versions))
                for plan in self.plans
            ),
            uploads=uploads,
            objects={upload_id: hashlib.sha256(self.site.stored(upload_id)).hexdigest() for upload_id in completed},
            store=tuple(self.site.strict.events()),
            plane=read_plane_log(self.site.plane.log),
            epochs={name: read_epochs(agent.log) for name, agent in agents.items()},
            messages=tuple(watcher.messages),
            agent_logs={name: agent.log for name, agent in agents.items()},
            # An answer is lost when its agent is killed, or when its connection is cut.
            blows={name: self.nemesis.struck_at(f"{name} killed", *CUTS) for name in agents},
            in_flight=IN_FLIGHT,
            connected={name: self.site.connected(name) for name in agents},
        )


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A site with two agents, a small disk for the state folder of each, and clocks that can be shifted."""
    assert FAKETIME is not None, "faketime is not installed: run `apt-get install faketime`"
    clocks = {name: tmp_path / f"{name}.clock" for name in (*AGENTS, "plane")}
    for clock in clocks.values():
        clock.write_text("+0")
    library = str(FAKETIME)
    with ExitStack() as stack:
        disks = {name: stack.enter_context(small_tmpfs(tmp_path / f"disk-{name}", "1m")) for name in AGENTS}
        settings = {"CLIENT_TIMEOUT": "20", **clock_of(library, clocks["plane"])}
        site = stack.enter_context(running_site(tmp_path / "site", settings))
        for name in AGENTS:
            state = {"STATE_DIR": str(disks[name] / "state"), "MAX_PARALLEL_PARTS": str(IN_FLIGHT)}
            site.attach(name, **state, **clock_of(library, clocks[name]))
        yield Ground(site, dict(site.agents), disks, clocks)


@pytest.mark.chaos
@pytest.mark.timeout(700)
@pytest.mark.parametrize("seed", [int(os.environ.get("CHAOS_SEED", "1"))])
def test_every_promise_is_kept(ground: Ground, seed: int) -> None:
    nemesis = Nemesis(seed, ground, STORM)
    run = Run(ground.site, nemesis, planned(ground.site, seed))
    with Watcher(ground.site.broker.address.port) as watcher:
        try:
            run.storm()
            run.calm()
            history = run.history(watcher)
        except BaseException as error:
            error.add_note(f"seed {seed}:\n" + "\n".join(nemesis.diary))
            raise
    diary = f"seed {seed}:\n" + "\n".join(nemesis.diary)
    assert check(history) == [], diary
    # A file that changed three times may have cost three attempts; every other upload was completed.
    ended = {(one["state"], one["error"]) for one in history.uploads.values()}
    assert ended <= {("completed", None), ("failed", "source_changed")}, diary
    assert len(watcher.messages) > UPLOADS
    assert nemesis.blows > STORM / 6
