"""Consent: the states of a customer's permission, the evidence for them, and whether work may be sent.

Microsoft announces accepted relationships, never removed ones. So the customers list is the evidence, for
consent and for its end. `stale` means that the proof is old or that a call was refused; work still goes out.
Where no list can be read, what a person records counts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from app.domain.ids import PartnerId


class ConsentState(StrEnum):
    UNKNOWN = "unknown"
    REQUESTED = "requested"
    GRANTED = "granted"
    STALE = "stale"
    REVOKED = "revoked"


class Evidence(StrEnum):
    CUSTOMER_CREATED = "customer_created"
    LINK_ISSUED = "link_issued"
    CUSTOMERS_LIST = "customers_list"
    UPSTREAM_403 = "upstream_403"
    AGE = "age"
    TENANT_CHANGED = "tenant_changed"  # the connection now uses another tenant, which has no consent yet
    MANUAL = "manual"  # recorded by a person: for portal connections, where consent cannot be looked up


_C = ConsentState

CONSENT_TRANSITIONS: dict[ConsentState, frozenset[ConsentState]] = {
    _C.UNKNOWN: frozenset({_C.REQUESTED, _C.GRANTED}),
    _C.REQUESTED: frozenset({_C.GRANTED}),
    _C.GRANTED: frozenset({_C.STALE, _C.REVOKED, _C.UNKNOWN}),
    _C.STALE: frozenset({_C.GRANTED, _C.REVOKED, _C.UNKNOWN}),
    _C.REVOKED: frozenset({_C.REQUESTED, _C.GRANTED}),
}


def lets_pass(state: ConsentState) -> bool:
    """Whether devices may be sent. Also while `stale`: the proof is old, not disproved."""
    return state in {_C.GRANTED, _C.STALE}


@dataclass(frozen=True, slots=True)
class Change:
    state: ConsentState
    evidence: Evidence
    note: str | None = None
    """The note that a person added."""


def after_listing(state: ConsentState, *, listed: bool) -> Change | None:
    """The change that a complete reading of the customers list causes; None if there is none.

    A customer that has never been listed is not revoked by its absence: it has not accepted yet.
    """
    if listed:
        return None if state is _C.GRANTED else Change(_C.GRANTED, Evidence.CUSTOMERS_LIST)
    return Change(_C.REVOKED, Evidence.CUSTOMERS_LIST) if lets_pass(state) else None


def after_refusal(state: ConsentState) -> Change | None:
    """After a 403 for one customer, the proof is in doubt until the list has been read again."""
    return Change(_C.STALE, Evidence.UPSTREAM_403) if state is _C.GRANTED else None


def after_tenant_change(state: ConsentState) -> Change | None:
    """After the connection's tenant has changed: consent was given to the earlier tenant."""
    return Change(_C.UNKNOWN, Evidence.TENANT_CHANGED) if lets_pass(state) else None


def after_time(
    state: ConsentState, *, proved_at: datetime | None, now: datetime, valid_for: timedelta
) -> Change | None:
    if state is _C.GRANTED and (proved_at is None or now - proved_at > valid_for):
        return Change(_C.STALE, Evidence.AGE)
    return None


@dataclass(frozen=True, slots=True)
class Consent:
    customer_id: UUID
    partner_id: PartnerId
    state: ConsentState
    since: datetime
    evidence: str
    proved_at: datetime | None
    checked_at: datetime | None


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """One entry of a customer's consent history."""

    from_state: str | None
    to_state: str
    evidence: str
    at: datetime
    note: str | None
    made_by: UUID | None
    """The API key of the person who recorded it."""
