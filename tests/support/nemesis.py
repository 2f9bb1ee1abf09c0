"""The nemesis: breaks a site in one way after another, mends it again, and keeps count of what it broke.

Rule: one seed is one schedule of strikes, drawn before the first of them; a strike on a wound that is still open is
left out, and changes no other. Every wound heals by itself after its time, or at `relent`; `diary` records each strike.
"""

import random
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.fault_sites import MIB, FaultSite, SiteProcess, fill
from tests.support.strict_s3 import Fault, Kind, Operation

Act = Callable[[], None]
Aim = Callable[[random.Random], Act]
"""Draws what is left open by a wound, and makes it a thing to be done."""


@dataclass(frozen=True, slots=True)
class Wound:
    """One way to break something: what `aim` draws is done now, `heal` after between `least` and `most` seconds."""

    name: str
    aim: Aim
    heal: Act = lambda: None
    least: float = 0.0
    most: float = 0.0


@dataclass(frozen=True, slots=True)
class Strike:
    """A wound at its time, in seconds from the beginning, and all that was drawn for it."""

    at: float
    wound: Wound
    length: float
    hurt: Act


def schedule(seed: int, wounds: Sequence[Wound], span: float, rest: float) -> list[Strike]:
    """The strikes of `span` seconds, `rest` seconds apart on average."""
    chance = random.Random(seed)
    strikes, at = list[Strike](), 0.0
    while at < span:
        wound = chance.choice(wounds)
        strikes.append(Strike(at, wound, chance.uniform(wound.least, wound.most), wound.aim(chance)))
        at += chance.uniform(0, 2 * rest)
    return strikes


@dataclass(frozen=True, slots=True)
class Ground:
    """What may be broken: the site, its agents' disks, and the files that set the clocks of its processes."""

    site: FaultSite
    agents: Mapping[str, SiteProcess]
    disks: Mapping[str, Path] = field(default_factory=dict)
    clocks: Mapping[str, Path] = field(default_factory=dict)


_STORE_FAULTS: Final[tuple[Fault, ...]] = (
    Fault(kind=Kind.ERROR, status=503, code="SlowDown", retry_after=1, times=3),
    Fault(kind=Kind.ERROR, times=2),
    Fault(kind=Kind.LOST_RESPONSE, operation=Operation.COMPLETE_MULTIPART_UPLOAD),
    Fault(kind=Kind.LOST_RESPONSE, operation=Operation.PUT_OBJECT),
    Fault(kind=Kind.LOST_RESPONSE, operation=Operation.CREATE_MULTIPART_UPLOAD),
    Fault(kind=Kind.LOST_RESPONSE, operation=Operation.UPLOAD_PART),
    Fault(kind=Kind.ERROR_IN_200, operation=Operation.COMPLETE_MULTIPART_UPLOAD),
    Fault(kind=Kind.EMPTY_200, operation=Operation.COMPLETE_MULTIPART_UPLOAD, done=True),
    Fault(kind=Kind.NO_ETAG, operation=Operation.UPLOAD_PART),
    Fault(kind=Kind.RESET, operation=Operation.UPLOAD_PART, at_byte=MIB),
    Fault(kind=Kind.STALL, operation=Operation.UPLOAD_PART, at_byte=MIB, seconds=2.0),
    Fault(kind=Kind.CORRUPT_RECEIVED, operation=Operation.UPLOAD_PART, at_byte=77),
)


class Nemesis:
    """Breaks and mends. `turn` is called again and again by the test, which does other things between."""

    def __init__(self, seed: int, ground: Ground, span: float, *, rest: float = 1.5) -> None:
        self.diary: list[str] = []
        self._struck: list[tuple[float, str]] = []
        self.began = time.monotonic()
        self._ground = ground
        self._strikes = deque(schedule(seed, _wounds(ground), span, rest))
        self._healing: list[tuple[float, Wound]] = []

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
        if self._strikes and now - self.began >= self._strikes[0].at:
            self._strike(now, self._strikes.popleft())

    def relent(self) -> None:
        """Mend everything; from now on it is calm."""
        for _, wound in self._healing:
            wound.heal()
        self._healing.clear()
        self._ground.site.strict.clear()

    def _strike(self, now: float, strike: Strike) -> None:
        wound = strike.wound
        if any(wound.name == other.name for _, other in self._healing):
            return
        self.diary.append(f"{now - self.began:6.2f} {wound.name} for {strike.length:.1f} s")
        self._struck.append((time.time(), wound.name))
        strike.hurt()
        self._healing.append((now + strike.length, wound))


def always(hurt: Act) -> Aim:
    """The aim of a wound that there is only one of."""
    return lambda _: hurt


def _wounds(ground: Ground) -> list[Wound]:
    site = ground.site
    found = [
        *_of_the_broker(site),
        Wound("control plane killed", always(site.plane.kill), site.plane.start, 0.2, 3),
        Wound("control plane frozen", always(site.plane.freeze), site.plane.thaw, 0.5, 4),
        Wound("agents' connections cut", always(lambda: _cut(site.mqtt.cut))),
        Wound("broker out of reach", always(site.mqtt.refuse), site.mqtt.accept, 0.5, 3),
        Wound("agents' cables pulled", always(site.mqtt.stall), site.mqtt.flow, 0.5, 4),
        Wound("store's connections cut", always(lambda: _cut(site.s3.cut))),
        Wound("store out of reach", always(site.s3.refuse), site.s3.accept, 0.5, 3),
        Wound("store's cable pulled", always(site.s3.stall), site.s3.flow, 0.5, 3),
        Wound("store slow", always(lambda: site.s3.throttle(2 * MIB)), lambda: site.s3.throttle(None), 1, 4),
        Wound("store ill", _sickens(site)),
        Wound("store ill again", _sickens(site)),
    ]
    for name, agent in ground.agents.items():
        found.append(Wound(f"{name} killed", always(agent.kill), agent.start, 0.1, 2))
        found.append(Wound(f"{name} frozen", always(agent.freeze), agent.thaw, 0.5, 4))
    for name, disk in ground.disks.items():
        found.append(Wound(f"{name}'s disk full", *_fills(disk / "ballast"), 1, 4))
    for name, clock in ground.clocks.items():
        found.append(Wound(f"{name}'s clock moved", *_moves(clock), 1, 5))
    return found


def _of_the_broker(site: FaultSite) -> list[Wound]:
    broker = site.broker

    def rob() -> None:
        broker.kill()
        (site.directory / "broker" / "mosquitto.db").unlink(missing_ok=True)

    def freeze() -> None:
        broker.send(signal.SIGSTOP)

    def thaw() -> None:
        broker.send(signal.SIGCONT)

    def stop() -> None:
        # A frozen broker would not handle SIGTERM while a stop waits.
        thaw()
        broker.stop()

    return [
        Wound("broker killed", always(broker.kill), broker.start, 0.1, 2),
        Wound("broker robbed of its memory", always(rob), broker.start, 0.1, 2),
        Wound("broker stopped", always(stop), broker.start, 0.1, 1),
        Wound("broker frozen", always(freeze), thaw, 0.5, 4),
    ]


def _cut(cut: Callable[[], int]) -> None:
    cut()


def _sickens(site: FaultSite) -> Aim:
    def aim(chance: random.Random) -> Act:
        fault = chance.choice(_STORE_FAULTS)
        return lambda: site.strict.add(fault)

    return aim


def _fills(ballast: Path) -> tuple[Aim, Act]:
    return always(lambda: fill(ballast)), lambda: ballast.unlink(missing_ok=True)


def _moves(clock: Path) -> tuple[Aim, Act]:
    """Years for a device, seconds for the control plane, whose timers stand in a database and count by its clock."""
    years = clock.stem != "plane"

    def aim(chance: random.Random) -> Act:
        span = f"{chance.choice('+-')}{chance.randint(1, 9000)}d" if years else f"{chance.choice('+-')}{5}"

        def hurt() -> None:
            clock.write_text(span)

        return hurt

    def heal() -> None:
        with suppress(OSError):
            clock.write_text("+0")

    return aim, heal
