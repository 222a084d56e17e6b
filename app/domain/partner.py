"""Partners and their API keys as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.ids import PartnerId


@dataclass(frozen=True, slots=True)
class Partner:
    id: PartnerId
    name: str
    role: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KnownKey:
    """An API key found by its prefix, with its partner."""

    id: UUID
    partner_id: PartnerId
    name: str
    prefix: str
    secret_digest: bytes
    scopes: Sequence[str]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    partner_role: str
    partner_name: str


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as lists show it."""

    id: UUID
    name: str
    prefix: str
    scopes: Sequence[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaced_by: str | None
    """The prefix of the key that replaced it in a rotation."""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """An API key whose row the transaction has locked."""

    name: str
    prefix: str
    scopes: Sequence[str]
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class SuccessorKey:
    """The key that replaced another one in its last rotation."""

    id: UUID
    prefix: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
