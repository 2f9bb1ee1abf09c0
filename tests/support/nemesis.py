"""The nemesis: breaks a site in one way after another, mends it again, and keeps count of what it broke.

Rule: one seed is one schedule. Every wound heals by itself after its time, or at `relent`; what was random is written
down in `diary`.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.fault_sites import MIB, FaultSite, Victim, fill
from tests.support.strict_s3 import Fault, Kind, Operation

Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Wound:
    """One way to break something: `hurt` now, `heal` after between `least` and `most` seconds."""

    name: str
    hurt: Act
    heal: Act = lambda: None
    least: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What may be broken: the site, its agents' disks, and the files that tell its processes the time."""

    site: FaultSite
    agents: Mapping[str, Victim]
    disks: Mapping[str, Path] = field(default_factory=dict)
    clocks: Mapping[str, Path] = field(default_factory=dict)


_STORE_FAULTS: Final[tuple[Callable[[], Fault], ...]] = (
    lambda: Fault(kind=Kind.ERROR, status=503, code="SlowDown", retry_after=1, times=3),
    lambda: Fault(kind=Kind.ERROR, times=2),
    lambda: Fault(kind=Kind.LOST_RESPONSE, operation=Operation.COMPLETE_MULTIPART_UPLOAD),
    lambda: Fault(kind=Kind.LOST_RESPONSE, operation=Operation.PUT_OBJECT),
    lambda: Fault(kind=Kind.LOST_RESPONSE, operation=Operation.CREATE_MULTIPART_UPLOAD),
    lambda: Fault(kind=Kind.LOST_RESPONSE, operation=Operation.UPLOAD_PART),
    lambda: Fault(kind=Kind.ERROR_IN_200, operation=Operation.COMPLETE_MULTIPART_UPLOAD),
    lambda: Fault(kind=Kind.EMPTY_200, operation=Operation.COMPLETE_MULTIPART_UPLOAD, done=True),
    lambda: Fault(kind=Kind.NO_ETAG, operation=Operation.UPLOAD_PART),
    lambda: Fault(kind=Kind.RESET, operation=Operation.UPLOAD_PART, at_byte=MIB),
    lambda: Fault(kind=Kind.STALL, operation=Operation.UPLOAD_PART, at_byte=MIB, seconds=2.0),
    lambda: Fault(kind=Kind.CORRUPT_RECEIVED, operation=Operation.UPLOAD_PART, at_byte=77),
)


class Nemesis:
    """Breaks and mends. `turn` is called again and again by the test, which does other things between."""

    def __init__(self, seed: int, ground: Ground, *, rest: float = 1.5) -> None:
        self.diary: list[str] = []
        self._struck: list[tuple[float, str]] = []
        self.began = time.monotonic()
        self._chance = random.Random(seed)
        self._ground = ground
        self._rest = rest
        self._next_at = self.began
        self._healing: list[tuple[float, Wound]] = []
        self._wounds = _wounds(ground, self._chance)

    @property
    def blows(self) -> int:
        """How often something was broken."""
        return len(self.diary)

    def struck_at(self, *names: str) -> tuple[float, ...]:
        """The instants at which one of these was broken."""
        return tuple(at for at, name in self._struck if name in names)

    def turn(self) -> None:
        """Do what is due: mend what was broken long enough, and break something when it is time."""
        now = time.monotonic()
        for moment, wound in list(self._healing):
            if now >= moment:
                self._healing.remove((moment, wound))
                wound.heal()
        if now >= self._next_at:
            self._next_at = now + self._chance.uniform(0, 2 * self._rest)
            self._strike(now)

    def relent(self) -> None:
        """Mend everything; from now on it is calm."""
        for _, wound in self._healing:
            wound.heal()
        self._healing.clear()
        self._ground.site.strict.clear()

    def _strike(self, now: float) -> None:
        wound = self._chance.choice(self._wounds)
        length = self._chance.uniform(wound.least, wound.most)
        if any(wound.name == other.name for _, other in self._healing):
            return
        self.diary.append(f"{now - self.began:6.2f} {wound.name} for {length:.1f} s")
        self._struck.append((time.time(), wound.name))
        wound.hurt()
        self._healing.append((now + length, wound))


def _wounds(ground: Ground, chance: random.Random) -> list[Wound]:
    site = ground.site
    found = [
        *_of_the_broker(site),
        Wound("control plane killed", site.plane.kill, site.plane.start, 0.2, 3),
        Wound("control plane frozen", site.plane.freeze, site.plane.thaw, 0.5, 4),
        Wound("agents' connections cut", lambda: _cut(site.mqtt.cut)),
        Wound("broker out of reach", site.mqtt.refuse, site.mqtt.accept, 0.5, 3),
        Wound("agents' cables pulled", site.mqtt.stall, site.mqtt.flow, 0.5, 4),
        Wound("store's connections cut", lambda: _cut(site.s3.cut)),
        Wound("store out of reach", site.s3.refuse, site.s3.accept, 0.5, 3),
        Wound("store's cable pulled", site.s3.stall, site.s3.flow, 0.5, 3),
        Wound("store slow", lambda: site.s3.throttle(2 * MIB), lambda: site.s3.throttle(None), 1, 4),
        Wound("store ill", lambda: site.strict.add(chance.choice(_STORE_FAULTS)())),
        Wound("store ill again", lambda: site.strict.add(chance.choice(_STORE_FAULTS)())),
    ]
    for name, agent in ground.agents.items():
        found.append(Wound(f"{name} killed", agent.kill, agent.start, 0.1, 2))
        found.append(Wound(f"{name} frozen", agent.freeze, agent.thaw, 0.5, 4))
    for name, disk in ground.disks.items():
        found.append(Wound(f"{name}'s disk full", *_fills(disk / "ballast"), 1, 4))
    for name, clock in ground.clocks.items():
        found.append(Wound(f"{name}'s clock moved", *_moves(clock, chance), 1, 5))
    return found


def _of_the_broker(site: FaultSite) -> list[Wound]:
    broker = site.broker

    def rob() -> None:
        broker.kill()
        (site.directory / "broker" / "mosquitto.db").unlink(missing_ok=True)

    def freeze() -> None:
        if broker.alive:
            os.kill(broker.pid, signal.SIGSTOP)

    def thaw() -> None:
        if broker.alive:
            os.kill(broker.pid, signal.SIGCONT)

    def stop() -> None:
        # A frozen broker would not hear SIGTERM for as long as a stop waits.
        thaw()
        broker.stop()

    return [
        Wound("broker killed", broker.kill, broker.start, 0.1, 2),
        Wound("broker robbed of its memory", rob, broker.start, 0.1, 2),
        Wound("broker stopped", stop, broker.start, 0.1, 1),
        Wound("broker frozen", freeze, thaw, 0.5, 4),
    ]


def _cut(cut: Callable[[], int]) -> None:
    cut()


def _fills(ballast: Path) -> tuple[Act, Act]:
    return lambda: fill(ballast), lambda: ballast.unlink(missing_ok=True)


def _moves(clock: Path, chance: random.Random) -> tuple[Act, Act]:
    """Years for a device, seconds for the control plane, whose timers stand in a database and count by its clock."""
    years = clock.stem != "plane"

    def hurt() -> None:
        span = f"{chance.choice('+-')}{chance.randint(1, 9000)}d" if years else f"{chance.choice('+-')}{5}"
        clock.write_text(span)

    def heal() -> None:
        with suppress(OSError):
            clock.write_text("+0")

    return hurt, heal
