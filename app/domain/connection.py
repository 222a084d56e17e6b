"""Connections as they are stored: a partner's enrolments, with sealed credentials and current trouble."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.domain.actor import SYSTEM, Actor
from app.domain.ids import PartnerId


class ConnectionMode(StrEnum):
    """Who submits a connection's orders to its platform. Fixed when the connection is created."""

    API = "api"
    """Workers, through calls with the connection's credentials."""
    PORTAL = "portal"
    """A person, by uploading files."""


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
    """The tenant and app as which a connection calls Microsoft."""

    entra_tenant_id: UUID
    client_id: str | None
    has_refresh_token: bool


@dataclass(frozen=True, slots=True)
class ClaimedToken:
    """A refresh token that this process alone may redeem."""

    refresh_token: bytes | None
    entra_tenant_id: UUID
    client_id: str | None


@dataclass(frozen=True, slots=True)
class HeldTrouble:
    """A connection's trouble and the time of its last repair, in a locked row."""

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
    """The claim to read a connection's customers list; `owner` is the fencing token."""

    id: UUID
    partner_id: PartnerId
    owner: UUID

    @property
    def actor(self) -> Actor:
        return SYSTEM
