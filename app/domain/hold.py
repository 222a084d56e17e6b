"""Holds: the reasons for which a batch waits. A batch may be sent when it has none left.

A new reason is a line in `HOLDS`. If it applies to single orders, as `approval` would, it is stored with the
batches: the service that makes the order adds it to those of `of_customer`, and the service that ends it
removes it with `app.db.holds`. If it applies to all work of a connection at once, as `maintenance` would, it
is stored with the connection: `of_batch` derives it, and `app.db.holds.takes_work` skips such connections.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from app.domain.batch import BatchState
from app.domain.budget import Budget
from app.domain.catalogue import CATALOGUE, Advice, Category
from app.domain.connection import ConnectionMode
from app.domain.consent import ConsentState, lets_pass
from app.domain.upstream import NOT_UNDERSTOOD


class HoldReason(StrEnum):
    CONSENT = "consent"
    PORTAL = "portal"  # waits for an upload or a result at a portal
    CONNECTION = "connection"  # the connection is in trouble


class Place(StrEnum):
    """Where a reason is stored."""

    WORK = "work"  # with each batch
    CONNECTION = "connection"  # with the connection, from which it is derived; never copied to batches


@dataclass(frozen=True, slots=True)
class HoldTerms:
    codes: frozenset[str]
    """The catalogue codes that report it."""
    ends: str
    """What ends it."""
    place: Place


_OF_CONSENT = frozenset({"consent_missing", "consent_revoked"})
_OF_PORTAL = frozenset({"portal_upload_due", "portal_outcome_due"})
_OF_TROUBLE = frozenset(
    code
    for code, entry in CATALOGUE.items()
    if entry.category is Category.CONNECTION and entry.advice is Advice.PERSON and code not in _OF_CONSENT
)

HOLDS: Final[Mapping[HoldReason, HoldTerms]] = MappingProxyType(
    {
        HoldReason.CONSENT: HoldTerms(_OF_CONSENT, "The customer's consent is given.", Place.WORK),
        HoldReason.PORTAL: HoldTerms(
            _OF_PORTAL, "A person uploads the batch's file, then records its outcome.", Place.CONNECTION
        ),
        HoldReason.CONNECTION: HoldTerms(
            _OF_TROUBLE,
            "A call proves that the connection works, or its credentials change.",
            Place.CONNECTION,
        ),
    }
)

_CODE_OF: Final = {reason.value: min(terms.codes) for reason, terms in HOLDS.items()}
"""The code of a stored reason that has but one. Of consent, its state decides."""

HIDES_CONSENT = frozenset({NOT_UNDERSTOOD, "customers_not_read"})
"""Connection troubles during which consent that was given is not noticed."""
STOPS_SOME = HIDES_CONSENT | {"credential_missing"}
"""Connection troubles that stop only some calls. Without a refresh token no group tag can be created, but
devices can be added to existing ones. One unreadable answer says nothing about the answers to other calls."""


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason for which a batch waits."""

    reason: str
    """A HoldReason, or the name of one that only a later release knows."""
    code: str
    since: datetime | None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """Facts about one open batch, or about several with the same facts; times are the earliest of them."""

    id: UUID
    """The id of the batch, or of the order or partner that the batches belong to."""
    connection_id: UUID
    state: BatchState
    devices: int
    """Devices without an outcome."""
    created_at: datetime
    updated_at: datetime
    due_at: datetime
    holds: Collection[str] = ()
    """The reasons that are stored with it."""
    submitted_at: datetime | None = None
    uncertain_since: datetime | None = None
    """The time of the first call whose outcome is not known."""
    failure_code: str | None = None
    failure_said: str | None = None
    consent: ConsentState | None = None
    customer_id: UUID | None = None
    """Only for queued batches."""
    group_tag: str | None = None
    """Only for queued batches whose tag another batch of the customer is creating."""
    tag_creator: UUID | None = None
    """The batch that is creating the group tag that this one needs."""
    tag_since: datetime | None = None
    tag_due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    id: UUID
    mode: ConnectionMode
    trouble_code: str | None = None
    trouble_said: str | None = None
    trouble_since: datetime | None = None
    not_before: datetime | None = None
    budget: Budget | None = None
    """None: not looked up."""


def of_customer(consent: ConsentState | None) -> frozenset[HoldReason]:
    """The customer's reasons, which hold new work. They are checked again before it is sent."""
    may_send = consent is not None and lets_pass(consent)
    return frozenset() if may_send else frozenset({HoldReason.CONSENT})


def first_state(holds: Collection[HoldReason]) -> BatchState:
    """The state of a new batch with these reasons."""
    return BatchState.HELD if holds else BatchState.QUEUED


def of_batch(batch: BatchFacts, connection: ConnectionFacts) -> list[Hold]:
    """All reasons for which the batch waits, each with its start."""
    stored = [_stored(reason, batch) for reason in batch.holds]
    if connection.mode is ConnectionMode.PORTAL:
        return stored or [_at_portal(batch)]
    return [*_of_trouble(batch, connection), *stored]


def _stored(reason: str, batch: BatchFacts) -> Hold:
    """A stored reason. It began at the last update, because a held batch changes only with its reasons."""
    if reason != HoldReason.CONSENT:
        return Hold(reason, _CODE_OF.get(reason, reason), batch.updated_at)
    code = "consent_revoked" if batch.consent is ConsentState.REVOKED else "consent_missing"
    words = None if batch.consent is None else f"The customer's consent is {batch.consent.value}."
    return Hold(reason, code, batch.updated_at, words)


def _at_portal(batch: BatchFacts) -> Hold:
    if batch.state is BatchState.QUEUED:
        return Hold(HoldReason.PORTAL, "portal_upload_due", batch.created_at)
    return Hold(HoldReason.PORTAL, "portal_outcome_due", batch.submitted_at or batch.updated_at)


def _of_trouble(batch: BatchFacts, connection: ConnectionFacts) -> Iterator[Hold]:
    code = connection.trouble_code
    if code is None:
        return
    waits_for_consent = HoldReason.CONSENT in batch.holds and code in HIDES_CONSENT
    if code in STOPS_SOME and batch.failure_code != code and not waits_for_consent:
        return
    yield Hold(HoldReason.CONNECTION, code, connection.trouble_since, connection.trouble_said or None)
