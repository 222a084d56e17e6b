"""Webhook endpoints, deliveries and their attempts as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import PartnerId


@dataclass(frozen=True, slots=True)
class Endpoint:
    id: UUID
    partner_id: PartnerId
    url: str
    description: str | None
    event_types: Sequence[str]
    """As `app.domain.subscription` stores them."""
    secret: bytes
    """Sealed."""
    state: str
    consecutive_failures: int
    created_at: datetime
    updated_at: datetime
    is_deleted: bool
    """Its deliveries can still be read."""
    backlog_full_since: datetime | None


@dataclass(frozen=True, slots=True)
class HeldEndpoint:
    """An endpoint whose row the transaction has locked."""

    state: str
    consecutive_failures: int
    event_types: Sequence[str]
    secret: bytes
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An endpoint that receives an event."""

    id: UUID
    event_types: Sequence[str]
    backlog_full_since: datetime | None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    id: UUID
    partner_id: PartnerId
    type: str
    order_id: UUID | None
    customer_id: UUID | None
    sequence: int | None
    occurred_at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    id: UUID
    partner_id: PartnerId
    event_id: UUID
    endpoint_id: UUID
    state: str
    attempts: int
    due_at: datetime
    last_status: int | None
    last_kind: str | None
    created_at: datetime
    settled_at: datetime | None
    event_type: str
    occurred_at: datetime
    order_id: UUID | None


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    started_at: datetime
    duration_ms: int
    status: int | None
    kind: str
    excerpt: str | None


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """A sealed secret that a rotation has replaced."""

    id: UUID
    secret: bytes
