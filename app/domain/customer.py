"""Customers as they are stored, with their consent."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.connection import ConnectionMode
from app.domain.consent import ConsentState
from app.domain.group_tag import tag_of
from app.domain.ids import PartnerId


@dataclass(frozen=True, slots=True)
class Customer:
    id: UUID
    partner_id: PartnerId
    connection_id: UUID
    entra_tenant_id: UUID
    domain: str | None
    name: str
    default_group_tag: str | None
    last_turn_at: datetime
    created_at: datetime
    updated_at: datetime
    consent_state: ConsentState
    consent_since: datetime
    consent_evidence: str
    consent_proved_at: datetime | None
    consent_checked_at: datetime | None


@dataclass(frozen=True, slots=True)
class OrderableCustomer:
    """A customer with everything that judging and storing its orders needs."""

    id: UUID
    entra_tenant_id: UUID
    domain: str | None
    name: str
    consent_state: ConsentState
    connection_id: UUID
    platform: str
    mode: ConnectionMode
    partner_role: str
    own_group_tag: str | None
    connection_group_tag: str

    @property
    def default_group_tag(self) -> str:
        return tag_of(self.own_group_tag, self.connection_group_tag)
