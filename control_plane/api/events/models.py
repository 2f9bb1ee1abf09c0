"""The shapes of webhooks and deliveries in REST.

Rule: as in `api/models.py`. The secret of a webhook is in the answer to its creation, and nowhere else.
"""

from typing import Annotated, Self

from pydantic import ConfigDict, Field

from control_plane.api.bodies import Input
from control_plane.api.events import examples
from control_plane.api.models import Instant, Output
from control_plane.domain.webhooks import Delivery, DeliveryState, Webhook
from control_plane.presentation import instant, known_instant
from control_plane.services.events.webhooks.service import WebhookInput, WebhookView

_MAX_TYPES = 100
_Type = Annotated[str, Field(min_length=1, max_length=64)]
_Url = Annotated[str, Field(min_length=1, max_length=2_048)]
_Types = Annotated[tuple[_Type, ...], Field(max_length=_MAX_TYPES)]
_Selector = Annotated[str, Field(max_length=8_192)]


class WebhookChange(Input):
    """What to change; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK_CHANGE]})

    url: _Url | None = None
    types: _Types | None = None
    selector: _Selector | None = None
    enabled: bool | None = None

    @property
    def given(self) -> WebhookInput:
        """The input as the services take it."""
        return WebhookInput(self.url, self.types, self.selector, self.enabled)


class WebhookBody(WebhookChange):
    """A new webhook: without `types` and `selector` it gets every change."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK_BODY]})

    url: _Url


class WebhookDocument(Output):
    """One webhook. `waiting` counts deliveries that wait, up to 1,000; `note` is why it is disabled."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK]})

    webhook_id: str
    url: str
    types: list[str]
    selector: str
    enabled: bool
    note: str
    waiting: int
    created_at: Instant
    created_by: str

    @classmethod
    def of(cls, view: WebhookView) -> Self:
        """The webhook of `view`."""
        return cls(**_members(view.webhook), waiting=view.waiting)


class NewWebhook(WebhookDocument):
    """A webhook that was just made: `secret` verifies its messages, and is not shown again."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_WEBHOOK]})

    secret: str

    @classmethod
    def made(cls, webhook: Webhook) -> Self:
        """The webhook with its secret."""
        return cls(**_members(webhook), waiting=0, secret=webhook.secret)


class WebhookList(Output):
    """All webhooks, by id."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WEBHOOK_LIST]})

    webhooks: list[WebhookDocument]


class DeliveryDocument(Output):
    """One change for one webhook; `number` is the id of the event. `error` is why the last try failed."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DELIVERY]})

    number: int
    type: str
    subject: str
    state: DeliveryState
    tries: int
    status: int | None
    error: str | None
    since: Instant
    tried_at: Instant | None
    next_try_at: Instant | None

    @classmethod
    def of(cls, found: Delivery) -> Self:
        """The delivery."""
        return cls(
            number=found.number,
            type=found.type,
            subject=found.subject,
            state=found.state,
            tries=found.tries,
            status=found.status,
            error=found.error,
            since=known_instant(found.since),
            tried_at=instant(found.tried_at),
            next_try_at=instant(found.due_at),
        )


class DeliveryPage(Output):
    """Deliveries, newest first; `cursor` gets the next page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DELIVERY_PAGE]})

    deliveries: list[DeliveryDocument]
    cursor: str | None


class Replayed(Output):
    """How many dead deliveries wait again."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REPLAYED]})

    replayed: int


def _members(webhook: Webhook) -> dict[str, object]:
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "types": list(webhook.types),
        "selector": webhook.selector,
        "enabled": webhook.enabled,
        "note": webhook.note,
        "created_at": known_instant(webhook.created_at),
        "created_by": webhook.created_by,
    }
