"""Webhooks and deliveries in the database, and the sender of HTTP requests.

Rule: as `services/ports/database.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from control_plane.domain.webhooks import Delivery, DeliveryState, ReceiverAnswer, Webhook
from control_plane.services.ports.database import Page

DeliveryPage = tuple[list[Delivery], str | None]
"""Deliveries, and the cursor of the next page."""


class WebhookRecords(Protocol):
    """Webhooks with their deliveries."""

    def get(self, webhook_id: str) -> Webhook | None:
        """One webhook."""

    def all(self) -> list[Webhook]:
        """All of them, by id."""

    def save(self, webhook: Webhook) -> None:
        """Insert a webhook, or replace the one with its id."""

    def delete(self, webhook_id: str) -> bool:
        """Delete a webhook with its deliveries; False when it does not exist."""

    def lock(self, webhook_id: str) -> Webhook | None:
        """The webhook, for one transaction at a time: what follows of two transactions never overlaps."""

    def delivery(self, webhook_id: str, number: int) -> Delivery | None:
        """One delivery."""

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Insert those that do not exist."""

    def put(self, delivery: Delivery) -> None:
        """Replace the row of a delivery."""

    def waiting(self, webhook_id: str, at_most: int) -> int:
        """How many deliveries wait; counting stops at `at_most`."""

    def waiting_subjects(self, webhook_id: str, subjects: Collection[str]) -> set[str]:
        """Those of these subjects that have a waiting delivery."""

    def due(self, webhook_id: str, now: float, limit: int) -> list[Delivery]:
        """Deliveries with a `due_at` up to `now`, earliest first."""

    def oldest_waiting(self, webhook_id: str, subject: str) -> Delivery | None:
        """The waiting delivery of a subject with the lowest number."""

    def hasten(self, webhook_id: str, after: float, now: float) -> int:
        """Make the deliveries due now that are due later than `after` and are not parked; returns their number."""

    def deliveries(self, webhook_id: str, state: DeliveryState | None, page: Page) -> DeliveryPage:
        """Deliveries, newest first."""

    def prune(self, state: DeliveryState, tried_before: float, limit: int) -> int:
        """Delete up to `limit` deliveries that ended before this instant; returns the number deleted."""


class WebhookSender(Protocol):
    """Sends one HTTP request. It never raises for what the receiver, the network or the URL does."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> ReceiverAnswer:
        """The receiver's answer, within the sender's limits of time; redirects are answers like others."""

    def refusal(self, url: str) -> str | None:
        """Why no request would be sent to this URL, as far as the URL alone shows; None when one may be."""
