"""An order's state, computed from the counts of its rows and never stored.

Microsoft's own batch status says "finished" even if devices failed, so it is not used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from app.domain.connection import ConnectionMode
from app.domain.ids import PartnerId
from app.domain.registration import OPEN, SUCCESS, RegistrationState


class OrderState(StrEnum):
    HELD = "held"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset(
    {OrderState.COMPLETED, OrderState.COMPLETED_WITH_ERRORS, OrderState.FAILED, OrderState.CANCELLED}
)

MAX_DEVICES = 10_000
"""The most devices in one order. Our choice: ten batches, a body of about 43 MB with hashes."""


def compute_state(counts: Mapping[RegistrationState, int], *, has_open_batches: bool) -> OrderState:
    """The order's state. `has_open_batches`: a batch of the order is neither settled nor cancelled yet.

    An `unknown` row counts as moving while a batch is open; afterwards it needs attention.
    """
    present = {state: n for state, n in counts.items() if n}
    moving = sum(n for state, n in present.items() if state in OPEN)
    if moving or has_open_batches:
        return OrderState.HELD if _all_waiting(present) else OrderState.IN_PROGRESS
    succeeded = sum(present.get(state, 0) for state in SUCCESS)
    cancelled = present.get(RegistrationState.CANCELLED, 0)
    others = sum(present.values()) - succeeded - cancelled
    if others == 0 and cancelled == 0:
        return OrderState.COMPLETED
    if succeeded:
        return OrderState.COMPLETED_WITH_ERRORS
    if cancelled and others == present.get(RegistrationState.INVALID, 0):
        return OrderState.CANCELLED
    return OrderState.FAILED


def _all_waiting(present: Mapping[RegistrationState, int]) -> bool:
    """Whether all devices that are not over are held: only then the order is held."""
    moving = (OPEN | {RegistrationState.UNKNOWN}) - {RegistrationState.HELD}
    return RegistrationState.HELD in present and not moving & present.keys()


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """An order's row."""

    id: UUID
    partner_id: PartnerId
    customer_id: UUID
    connection_id: UUID
    platform: str
    reference: str
    purchase_order: str | None
    group_tag: str
    device_count: int
    body_digest: bytes
    created_by: UUID | None
    """The API key of the call, or of the import."""
    last_sequence: int
    announced_state: str | None
    """The state that events last reported."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Order(StoredOrder):
    """An order with facts from its batches and its connection."""

    has_open_batches: bool
    mode: ConnectionMode
