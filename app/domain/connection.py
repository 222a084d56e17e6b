"""Connections as they are stored: a partner's enrolments, their sealed credentials and their troubles."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.domain.actor import SYSTEM, Actor
from app.domain.ids import PartnerId


class ConnectionMode(StrEnum):
    """Who carries a connection's orders to its platform. Fixed when the connection is made."""

    API = "api"
    """Workers, by calls with the connection's credentials."""
    PORTAL = "portal"
    """A person, who uploads files."""


@dataclass(frozen=True, slots=True)
class Connection:
    id: UUID
    partner_id: PartnerId
    name: str
    platform: str
    mode: ConnectionMode
    entra_tenant_id: UUID
    client_id: str | None
    region: str | None
    default_group_tag: str
    client_secret: bytes | None
    """Sealed."""
    refresh_token: bytes | None
    """Sealed."""
    refresh_token_at: datetime | None
    trouble_code: str | None
    trouble_said: str | None
    trouble_since: datetime | None
    not_before: datetime | None
    customers_due_at: datetime
    customers_read_at: datetime | None
    checked_at: datetime | None
    created_at: datetime
    updated_at: datetime
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
class ReadingClaim:
    """A connection whose customers list this worker reads; `owner` is the fencing token."""

    id: UUID
    partner_id: PartnerId
    owner: UUID

    @property
    def actor(self) -> Actor:
        """Who reads it: the system."""
        return SYSTEM
