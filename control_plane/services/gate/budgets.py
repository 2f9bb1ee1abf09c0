"""Use cases of budgets: set one, look at who uses it and who waits, delete it.

Rule: a budget is a fact of the database alone; nothing holds a lease on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.services.audit.recording import record
from control_plane.services.errors import BadInput, UnknownBudget
from control_plane.services.gate.keeper import drop_budget, put_budget, rate_of
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.gate import Budget, Share

MAX_BUDGETS: Final = 10_000
SHOWN: Final = 10
"""Uploads that use a budget, and that wait for it, in a list of budgets."""

SHOWN_OF_ONE: Final = 100


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget; when it is free again, if it is spent; who uses it, and who waits: some of them, and how many."""

    budget: Budget
    spent_until: float | None
    users: tuple[Share, ...]
    waiters: tuple[Share, ...]
    waiting: int


class BudgetService:
    """Every call takes the caller. `on_change` is called after a budget was set."""

    def __init__(self, *, database: Database, clock: Clock, on_change: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change

    async def list_budgets(self, _principal: Principal, page: Page) -> tuple[list[BudgetView], str | None]:
        """Budgets by label and value, and the cursor of the next page; `BadInput`."""
        now = self._clock.now()

        def read(records: Records) -> tuple[list[BudgetView], str | None]:
            found, cursor = records.gate.page_of_budgets(page)
            return [_view(records, budget, now, SHOWN) for budget in found], cursor

        return await self._database.read(read)

    async def find_budget(self, _principal: Principal, label: str, value: str) -> BudgetView:
        """One budget; `UnknownBudget`."""
        now = self._clock.now()

        def read(records: Records) -> BudgetView:
            found = records.gate.budgets_of({label: value})
            if not found:
                raise UnknownBudget(_key(label, value))
            return _view(records, found[0], now, SHOWN_OF_ONE)

        return await self._database.read(read)

    async def put_budget(self, principal: Principal, label: str, value: str, rate: int) -> tuple[BudgetView, bool]:
        """Set a budget of `rate` bytes a second, from the next grant on; whether it is new. `BadInput`.

        A repeat changes nothing.
        """
        if not label or "=" in label or not label.isprintable() or not value.isprintable():
            message = "a label has a printable name without =, and a printable value"
            raise BadInput(message)
        now = self._clock.now()

        def work(records: Records) -> tuple[BudgetView, bool]:
            known = records.gate.budgets_of({label: value})
            if known and known[0].rate == rate:
                return _view(records, known[0], now, SHOWN_OF_ONE), False
            if not known and len(records.gate.budgets()) >= MAX_BUDGETS:
                message = f"there are {MAX_BUDGETS} budgets: no more are taken"
                raise BadInput(message)
            budget = Budget(label, value, rate, now)
            put_budget(records, budget, now)
            target = f"budget:{budget.key}"
            record(records, principal, Act.BUDGET_PUT, now, target=target, detail={"bytes_per_second": rate})
            return _view(records, budget, now, SHOWN_OF_ONE), not known

        answer = await self._database.write(work)
        self._on_change()
        return answer

    async def drop_budget(self, principal: Principal, label: str, value: str) -> None:
        """Delete a budget: what waits for it continues at once. `UnknownBudget`."""
        now = self._clock.now()

        def work(records: Records) -> None:
            if not drop_budget(records, label, value, now):
                raise UnknownBudget(_key(label, value))
            record(records, principal, Act.BUDGET_DELETE, now, target=f"budget:{_key(label, value)}")

        await self._database.write(work)


def _key(label: str, value: str) -> str:
    return f"{label}={value}"


def _view(records: Records, budget: Budget, now: float, most: int) -> BudgetView:
    tat = records.gate.tat(rate_of(budget.key))
    waiters, waiting = records.gate.waiters(budget.key, most)
    users = records.gate.users(budget.key, now, most)
    return BudgetView(budget, tat if tat is not None and tat > now else None, tuple(users), tuple(waiters), waiting)
