"""The findings about the database: its place, its schema, its disk, its clock.

Rule: it is opened, and so created or migrated, only when its schema is this program's, or with `fix`.
"""

from typing import Final

from control_plane.services.diagnosis.findings import Finding
from control_plane.services.policy import MAX_SKEW
from control_plane.services.ports.database import Database
from control_plane.services.ports.diagnosis import DatabaseExaminer, DatabaseFacts

LITTLE_DISK: Final = 1024**3
"""Bytes: with less, a database that grows by a fleet's uploads is full within days."""

CHECK_DATABASE: Final = "check DATABASE_URL, and that the database runs and has space"
MIGRATE: Final = "`backhaul doctor --fix` migrates it; so does the next start of `backhaul serve`"
_SCHEMA: Final = "database schema"


class DatabaseDoctor:
    """Checks one database. `opened` is the database after `examine`, None while it cannot be used."""

    def __init__(self, examiner: DatabaseExaminer) -> None:
        self._examiner = examiner
        self.opened: Database | None = None

    async def examine(self, *, fix: bool = False) -> list[Finding]:
        """Read its facts, then open it if that changes no schema, or if `fix` allows it. `DatabaseUnavailable`."""
        facts = await self._examiner.facts()
        schema = _schema(facts)
        if schema.fine and facts.revision is None and not fix:
            return [Finding("database", fine=True, text=f"{facts.place}: empty; `backhaul serve` creates its tables")]
        may_open = schema.fine or (fix and facts.known)
        if not may_open:
            return [Finding("database", fine=True, text=facts.place), schema, *_beside(facts)]
        self.opened = await self._examiner.opened()
        await self.opened.check()
        if not schema.fine or facts.revision is None:
            text = f"migrated from {facts.revision or 'nothing'} to {facts.newest}"
            schema = Finding(_SCHEMA, fine=True, text=text, fixed=True)
        return [about(facts), schema, *_beside(facts)]


def about(facts: DatabaseFacts) -> Finding:
    """Where the database is, once it was written to."""
    size = "" if facts.size is None else f", {facts.size / 1024**2:.1f} MiB"
    return Finding("database", fine=True, text=f"{facts.product} at {facts.place}{size}: it can be written")


def judged(facts: DatabaseFacts) -> list[Finding]:
    """The findings about a database that is open."""
    return [about(facts), _schema(facts), *_beside(facts)]


def _schema(facts: DatabaseFacts) -> Finding:
    if not facts.known:
        text = f"revision {facts.revision} is of a later version of this program"
        return Finding(_SCHEMA, fine=False, text=text, remedy="run that version, or restore the backup from before it")
    if facts.revision not in {None, facts.newest}:
        text = f"revision {facts.revision}; this program needs {facts.newest}"
        return Finding(_SCHEMA, fine=False, text=text, remedy=MIGRATE)
    return Finding(_SCHEMA, fine=True, text=f"revision {facts.newest}, the newest")


def _beside(facts: DatabaseFacts) -> list[Finding]:
    found: list[Finding] = []
    if facts.disk_free is not None:
        little = facts.disk_free < LITTLE_DISK
        remedy = "free some space, or move the database: nothing is dispatched once its disk is full"
        text = f"{facts.disk_free / 1024**3:.1f} GiB are free beside it"
        found.append(Finding("database disk", fine=not little, text=text, remedy=remedy if little else None))
    if facts.clock_skew is not None:
        right = abs(facts.clock_skew) <= MAX_SKEW
        text = f"{abs(facts.clock_skew):.1f} s between the database's clock and this one"
        remedy = "set both clocks, by NTP"
        found.append(Finding("database clock", fine=right, text=text, remedy=None if right else remedy))
    return found
