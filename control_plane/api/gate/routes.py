"""Budgets over REST: set one, see who uses it and who waits, delete it.

Rule: as the other routers: a body becomes the arguments of one use case.
"""

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Path, Query, Request, Response

from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import matching
from control_plane.api.documents import problems
from control_plane.api.gate.models import BudgetBody, BudgetDocument, BudgetPage
from control_plane.api.parameters import Paged
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.services.gate.budgets import BudgetService

router = router_of_calls(tags=["budgets"])


async def budgets_of(request: Request) -> BudgetService:
    """The use cases of budgets."""
    budgets: BudgetService = request.app.state.budgets
    return budgets


Budgets = Annotated[BudgetService, Depends(budgets_of)]
_TEXT = matching(r"^[^\x00]+$", "must not hold a NUL")
Label = Annotated[str, *_TEXT, Path(description="The label's name: without /.", max_length=256)]
Value = Annotated[str, *_TEXT, Path(description="The label's value.", max_length=256)]


@router.get(
    "/budgets",
    operation_id="listBudgets",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="List budgets: who uses them, who waits",
    responses=problems(422),
)
async def list_budgets(budgets: Budgets, caller: Caller, query: Annotated[Paged, Query()]) -> BudgetPage:
    """By label and value, with the uploads that use a budget now, and the ten that have waited longest."""
    views, cursor = await budgets.list_budgets(caller, query.page)
    return BudgetPage(budgets=[BudgetDocument.of(view) for view in views], cursor=cursor)


@router.get(
    "/budgets/{label}/{value:path}",
    operation_id="getBudget",
    openapi_extra=needs(Scope.CLIENTS_READ),
    summary="Look at one budget",
    responses=problems(404, 422),
)
async def get_budget(label: Label, value: Value, budgets: Budgets, caller: Caller) -> BudgetDocument:
    """The budget, with the uploads that use it now, and the hundred that have waited longest."""
    return BudgetDocument.of(await budgets.find_budget(caller, label, value))


@router.put(
    "/budgets/{label}/{value:path}",
    operation_id="putBudget",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Set how many bytes a second all clients with a label may send",
    responses={201: {"model": BudgetDocument, "description": "The budget is new"}, **problems(400, 415, 422)},
)
async def put_budget(
    response: Response, label: Label, value: Value, body: BudgetBody, budgets: Budgets, caller: Caller
) -> BudgetDocument:
    """It holds from the next grant on, for every upload of these clients, of jobs and others."""
    view, new = await budgets.put_budget(caller, label, value, body.bytes_per_second)
    if new:
        response.status_code = 201
        response.headers["Location"] = f"/budgets/{quote(label, safe='')}/{quote(value, safe='')}"
    return BudgetDocument.of(view)


@router.delete(
    "/budgets/{label}/{value:path}",
    operation_id="deleteBudget",
    openapi_extra=needs(Scope.CLIENTS_ADMIN),
    summary="Delete a budget",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422),
)
async def delete_budget(label: Label, value: Value, budgets: Budgets, caller: Caller) -> None:
    """What waits for it continues at once."""
    await budgets.drop_budget(caller, label, value)
