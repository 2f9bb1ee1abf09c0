"""`backhaul doctor`: every check, in the order in which to repair what it finds.

Rule: a neighbour that cannot be used is a finding; the checks that need it are left out.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from control_plane.services.diagnosis.broker import CHECK_BROKER, BrokerDoctor
from control_plane.services.diagnosis.database import CHECK_DATABASE, DatabaseDoctor
from control_plane.services.diagnosis.findings import Finding, looked
from control_plane.services.diagnosis.page import examine_page
from control_plane.services.diagnosis.store import StoreDoctor
from control_plane.services.ports.database import Database
from control_plane.services.ports.diagnosis import BrokerExaminer, DatabaseExaminer, PageExaminer


@dataclass(frozen=True, slots=True, kw_only=True)
class Doctor:
    """Examines the neighbours one by one; `store` makes the doctor of the object store over the open database."""

    database: DatabaseExaminer
    broker: BrokerExaminer
    store: Callable[[Database | None], StoreDoctor]
    page: PageExaminer
    keys: Callable[[Database], Awaitable[Sequence[Finding]]]
    """The findings about the keys that this open database has; its module needs PyNaCl."""

    async def examine(self, *, fix: bool = False) -> list[Finding]:
        """All findings. `fix` migrates the database, adds the lifecycle rule and removes retained commands."""
        database = DatabaseDoctor(self.database)
        try:
            found = await looked("database", lambda: database.examine(fix=fix), CHECK_DATABASE)
            if (opened := database.opened) is not None:
                found += await looked("keys", lambda: self.keys(opened))
            broker = BrokerDoctor(self.broker)
            found += await looked("broker", lambda: broker.examine(fix=fix), CHECK_BROKER)
            found += await self.store(database.opened).examine(fix=fix)
            found += await looked("page", lambda: examine_page(self.page))
        finally:
            if database.opened is not None:
                await database.opened.close()
        return found
