"""Webhook endpoints and deliveries into answers."""

from typing import Any

from app.api.contract.fields import same
from app.api.webhooks.models import DeliveryOut, EndpointOut
from app.domain.attempt import OPEN_DELIVERY
from app.domain.subscription import shown_types
from app.domain.webhook import Delivery, Endpoint


def endpoint_fields(record: Endpoint) -> dict[str, Any]:
    return {**same(record, EndpointOut), "event_types": shown_types(record.event_types)}


def delivery_fields(record: Delivery) -> dict[str, Any]:
    fields = same(record, DeliveryOut)
    if record.state not in OPEN_DELIVERY:
        fields["due_at"] = None
    return fields
