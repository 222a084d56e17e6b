"""Connections as they are stored: a partner's enrolments, their sealed credentials and their troubles."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.ids import PartnerId


@dataclass(frozen=True, slots=True)
class Connection:
    id: UUID
    partner_id: PartnerId
    name: str
    platform: str
    entra_tenant_id: UUID
    client_id: str | None
    region: str | None
    default_group_tag: str
    client_secret: bytes | None
    """Sealed."""
    refresh_token: bytes | None
    """Sealed."""
    refresh_token_at: datetime | None
    token_owner: UUID | None
    token_lease_until: datetime | None
    trouble_code: str | None
    trouble_said: str | None
    trouble_since: datetime | None
    not_before: datetime | None
    customers_due_at: datetime
    customers_read_at: datetime | None
    checked_at: datetime | None
    created_at: datetime
    updated_at: datetime
    portal: bool
    """Whether a person uploads its orders as files."""
    partner_role: str


@dataclass(frozen=True, slots=True)
class ConnectionIdentity:
    """As whom a connection calls."""

    entra_tenant_id: UUID
    client_id: str | None
    has_refresh_token: bool


@dataclass(frozen=True, slots=True)
class ClaimedToken:
    """A refresh token that nobody else redeems now."""

    refresh_token: bytes | None
    entra_tenant_id: UUID
    client_id: str | None


@dataclass(frozen=True, slots=True)
class HeldTrouble:
    """A connection's trouble, and when it was last repaired."""

    id: UUID
    name: str
    trouble_code: str | None
    trouble_since: datetime | None
    mended_at: datetime


@dataclass(frozen=True, slots=True)
class EndedTrouble:
    id: UUID
    name: str
    trouble_code: str
    trouble_since: datetime


@dataclass(frozen=True, slots=True)
class DueReading:
    """A connection whose customers list is due."""

    id: UUID
    partner_id: PartnerId
