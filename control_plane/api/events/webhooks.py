"""Webhooks over REST: create, list, show, change, delete; their deliveries, and replays."""

from typing import Annotated, Final

from fastapi import Depends, Path, Query, Request, Response

from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import matching
from control_plane.api.documents import problems
from control_plane.api.events import models
from control_plane.api.parameters import Paged
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.domain.webhooks import DeliveryState
from control_plane.services.events.webhooks.service import WebhookService

router = router_of_calls(tags=["webhooks"])


class WhichDeliveries(Paged):
    """Filter of the list of deliveries."""

    state: DeliveryState | None = None


async def _webhooks_of(request: Request) -> WebhookService:
    webhooks: WebhookService = request.app.state.webhooks
    return webhooks


Webhooks = Annotated[WebhookService, Depends(_webhooks_of)]
WebhookId = Annotated[str, *matching(r"^[0-9a-f]{16}$", "must be 16 of 0-9 a-f"), Path(description="The webhook's id.")]
Number = Annotated[int, Path(ge=1, le=2**53, description="The number of the change, which is the id of the event.")]
DeliveriesQuery = Annotated[WhichDeliveries, Query()]
_RIGHTS: Final = (Scope.CLIENTS_ADMIN, Scope.UPLOADS_READ, Scope.JOBS_READ)
"""A webhook is a setting of the whole fleet, and discloses every change."""


@router.post(
    "/webhooks",
    operation_id="createWebhook",
    openapi_extra=needs(*_RIGHTS),
    summary="Send changes to a URL",
    status_code=201,
    responses=problems(400, 415, 422),
)
async def create_webhook(
    response: Response, webhooks: Webhooks, caller: Caller, body: models.WebhookBody
) -> models.NewWebhook:
    """A webhook gets the changes from now on. Its secret is shown in this answer only."""
    made = await webhooks.create(caller, body.given)
    response.headers["Location"] = f"/webhooks/{made.webhook_id}"
    return models.NewWebhook.made(made)


@router.get("/webhooks", operation_id="listWebhooks", openapi_extra=needs(*_RIGHTS), summary="List webhooks")
async def list_webhooks(webhooks: Webhooks, caller: Caller) -> models.WebhookList:
    """All webhooks, by id."""
    return models.WebhookList(webhooks=[models.WebhookDocument.of(view) for view in await webhooks.webhooks(caller)])


@router.get(
    "/webhooks/{webhook_id}",
    operation_id="getWebhook",
    openapi_extra=needs(*_RIGHTS),
    summary="Look at one webhook",
    responses=problems(404, 422),
)
async def get_webhook(webhook_id: WebhookId, webhooks: Webhooks, caller: Caller) -> models.WebhookDocument:
    """One webhook, without its secret."""
    return models.WebhookDocument.of(await webhooks.webhook(caller, webhook_id))


@router.patch(
    "/webhooks/{webhook_id}",
    operation_id="changeWebhook",
    openapi_extra=needs(*_RIGHTS),
    summary="Change, disable or enable a webhook",
    responses=problems(400, 404, 415, 422),
)
async def change_webhook(
    webhook_id: WebhookId, webhooks: Webhooks, caller: Caller, body: models.WebhookChange
) -> models.WebhookDocument:
    """A webhook that is enabled again gets the changes from then on."""
    return models.WebhookDocument.of(await webhooks.update(caller, webhook_id, body.given))


@router.delete(
    "/webhooks/{webhook_id}",
    operation_id="deleteWebhook",
    openapi_extra=needs(*_RIGHTS),
    summary="Delete a webhook and its deliveries",
    status_code=204,
    response_class=Response,
    responses=problems(404, 422),
)
async def delete_webhook(webhook_id: WebhookId, webhooks: Webhooks, caller: Caller) -> None:
    """A request that is under way is not stopped."""
    await webhooks.delete(caller, webhook_id)


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    operation_id="listDeliveries",
    openapi_extra=needs(*_RIGHTS),
    summary="List the deliveries of a webhook, newest first",
    responses=problems(404, 422),
)
async def list_deliveries(
    webhook_id: WebhookId, webhooks: Webhooks, caller: Caller, query: DeliveriesQuery
) -> models.DeliveryPage:
    """Delivered ones are kept for a day, dead ones for 30 days."""
    found, cursor = await webhooks.deliveries(caller, webhook_id, query.state, query.page)
    return models.DeliveryPage(deliveries=[models.DeliveryDocument.of(one) for one in found], cursor=cursor)


@router.post(
    "/webhooks/{webhook_id}/deliveries/{number}/replay",
    operation_id="replayDelivery",
    openapi_extra=needs(*_RIGHTS),
    summary="Send a delivery that has ended once more",
    responses=problems(404, 422),
)
async def replay_delivery(
    webhook_id: WebhookId, number: Number, webhooks: Webhooks, caller: Caller
) -> models.DeliveryDocument:
    """It is tried for three days again; one that waits is as it was."""
    return models.DeliveryDocument.of(await webhooks.replay(caller, webhook_id, number))


@router.post(
    "/webhooks/{webhook_id}/replay",
    operation_id="replayDead",
    openapi_extra=needs(*_RIGHTS),
    summary="Send the dead deliveries of a webhook once more",
    responses=problems(404, 422),
)
async def replay_dead(webhook_id: WebhookId, webhooks: Webhooks, caller: Caller) -> models.Replayed:
    """The newest 1,000 of them."""
    return models.Replayed(replayed=await webhooks.replay_dead(caller, webhook_id))
