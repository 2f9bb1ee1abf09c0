"""The use cases of webhooks.

Rule: every method takes the calling `Principal` first; input is checked here once, for every entry point.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.selectors import parse
from control_plane.domain.webhooks import Delivery, DeliveryState, Webhook, replayed
from control_plane.services.audit.recording import Detail, record
from control_plane.services.errors import BadInput, UnknownDelivery, UnknownWebhook
from control_plane.services.events.filters import require_types
from control_plane.services.events.webhooks.signing import new_secret
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.webhooks import DeliveryPage, WebhookSender

T = TypeVar("T")

MAX_WEBHOOKS: Final = 100
MAX_REPLAYED: Final = 1_000
"""Dead deliveries that one call replays."""

_COUNTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class WebhookInput:
    """What an operator sets; None leaves it as it is, or as the default is."""

    url: str | None = None
    types: tuple[str, ...] | None = None
    selector: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class WebhookView:
    """A webhook, and how many of its deliveries wait (counted up to 1,000)."""

    webhook: Webhook
    waiting: int


class WebhookService:
    """What a caller may do with webhooks. `on_change` is called after each of its commits."""

    def __init__(
        self, database: Database, clock: Clock, sender: WebhookSender, *, on_change: Callable[[], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._sender = sender
        self._on_change = on_change

    async def create(self, principal: Principal, given: WebhookInput) -> Webhook:
        """A new webhook, which gets the changes from now on; `BadInput`, `SelectorError`."""
        if not given.url:
            message = "a webhook needs a url"
            raise BadInput(message)
        self._check(given)
        fresh = Webhook(
            webhook_id=secrets.token_hex(8),
            url=given.url,
            types=given.types or (),
            selector=given.selector or "",
            secret=new_secret(),
            enabled=given.enabled is not False,
            note="",
            position=0,
            created_at=self._clock.now(),
            created_by=principal.subject,
        )

        def work(records: Records) -> Webhook:
            if len(records.webhooks.all()) >= MAX_WEBHOOKS:
                message = f"there are {MAX_WEBHOOKS} webhooks already: delete one first"
                raise BadInput(message)
            webhook = replace(fresh, position=records.changes.span()[1])
            records.webhooks.save(webhook)
            self._record(records, principal, Act.WEBHOOK_CREATE, webhook.webhook_id, _facts(webhook))
            return webhook

        return await self._changed(work)

    async def webhooks(self, _principal: Principal) -> list[WebhookView]:
        """All webhooks, by id."""
        return await self._database.read(lambda records: [_view(records, one) for one in records.webhooks.all()])

    async def webhook(self, _principal: Principal, webhook_id: str) -> WebhookView:
        """One webhook; `UnknownWebhook`."""
        return await self._database.read(lambda records: _view(records, _known(records, webhook_id)))

    async def update(self, principal: Principal, webhook_id: str, given: WebhookInput) -> WebhookView:
        """Change what is given; one that is enabled again gets the changes from then on. Errors as for `create`."""
        self._check(given)

        def work(records: Records) -> WebhookView:
            webhook = _known(records, webhook_id, lock=True)
            enabled = webhook.enabled if given.enabled is None else given.enabled
            resumes = enabled and not webhook.enabled
            changed = replace(
                webhook,
                url=given.url or webhook.url,
                types=webhook.types if given.types is None else given.types,
                selector=webhook.selector if given.selector is None else given.selector,
                enabled=enabled,
                note="" if resumes else webhook.note,
                position=records.changes.span()[1] if resumes else webhook.position,
            )
            if changed != webhook:
                records.webhooks.save(changed)
                self._record(records, principal, Act.WEBHOOK_CHANGE, webhook_id, _facts(changed))
            return _view(records, changed)

        return await self._changed(work)

    async def delete(self, principal: Principal, webhook_id: str) -> None:
        """Delete a webhook and its deliveries; `UnknownWebhook`."""

        def work(records: Records) -> None:
            _known(records, webhook_id, lock=True)
            records.webhooks.delete(webhook_id)
            self._record(records, principal, Act.WEBHOOK_DELETE, webhook_id)

        await self._changed(work)

    async def deliveries(
        self, _principal: Principal, webhook_id: str, state: DeliveryState | None, page: Page
    ) -> DeliveryPage:
        """Its deliveries, newest first, and the cursor of the next page; `UnknownWebhook`."""

        def work(records: Records) -> DeliveryPage:
            _known(records, webhook_id)
            return records.webhooks.deliveries(webhook_id, state, page)

        return await self._database.read(work)

    async def replay(self, principal: Principal, webhook_id: str, number: int) -> Delivery:
        """Send an ended delivery once more; one that waits is as it was. `UnknownWebhook`, `UnknownDelivery`."""
        now = self._clock.now()

        def work(records: Records) -> Delivery:
            _known(records, webhook_id, lock=True)
            delivery = records.webhooks.delivery(webhook_id, number)
            if delivery is None:
                raise UnknownDelivery(webhook_id, number)
            if delivery.state is DeliveryState.WAITING:
                return delivery
            again = replayed(delivery, now)
            records.webhooks.put(again)
            self._record(records, principal, Act.WEBHOOK_REPLAY, webhook_id, {"number": number})
            return again

        return await self._changed(work)

    async def replay_dead(self, principal: Principal, webhook_id: str) -> int:
        """Send the newest dead deliveries once more, at most `MAX_REPLAYED`; their number. `UnknownWebhook`."""
        now = self._clock.now()

        def work(records: Records) -> int:
            _known(records, webhook_id, lock=True)
            dead, _ = records.webhooks.deliveries(webhook_id, DeliveryState.DEAD, Page(MAX_REPLAYED))
            for delivery in dead:
                records.webhooks.put(replayed(delivery, now))
            if dead:
                self._record(records, principal, Act.WEBHOOK_REPLAY, webhook_id, {"replayed": len(dead)})
            return len(dead)

        return await self._changed(work)

    def _record(
        self, records: Records, principal: Principal, act: Act, webhook_id: str, detail: Detail | None = None
    ) -> None:
        record(records, principal, act, self._clock.now(), target=f"webhook:{webhook_id}", detail=detail)

    def _check(self, given: WebhookInput) -> None:
        if given.url is not None and (refusal := self._sender.refusal(given.url)):
            raise BadInput(refusal)
        require_types(given.types or ())
        parse(given.selector or "")

    async def _changed(self, work: Callable[[Records], T]) -> T:
        result = await self._database.write(work)
        self._on_change()
        return result


def _facts(webhook: Webhook) -> Detail:
    """What a record shows of a webhook: of its URL the host alone, since the rest is often a secret of the receiver."""
    return {
        "host": urlsplit(webhook.url).hostname or "",
        "types": " ".join(webhook.types),
        "selector": webhook.selector,
        "enabled": webhook.enabled,
    }


def _known(records: Records, webhook_id: str, *, lock: bool = False) -> Webhook:
    webhook = records.webhooks.lock(webhook_id) if lock else records.webhooks.get(webhook_id)
    if webhook is None:
        raise UnknownWebhook(webhook_id)
    return webhook


def _view(records: Records, webhook: Webhook) -> WebhookView:
    return WebhookView(webhook, records.webhooks.waiting(webhook.webhook_id, _COUNTED))
