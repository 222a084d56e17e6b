"""Vendor profiles as they are stored: how a supplier's files are read."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.domain.ids import PartnerId


@dataclass(frozen=True, slots=True)
class VendorProfile:
    id: UUID
    partner_id: PartnerId
    name: str
    definition: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """A profile in a list: without its definition."""

    id: UUID
    name: str
    definition_bytes: int
    created_at: datetime
    updated_at: datetime
