"""Customers and their consent, with its history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import tables
from app.db.leases import BATCHES
from app.db.paging import Page, PageRequest
from app.db.searching import Search, equal, page_of
from app.db.sql import columns, execute, fetch_all_as, fetch_one, fetch_one_as, insert
from app.domain.consent import CONSENT_TRANSITIONS, Consent, ConsentChange, ConsentState
from app.domain.customer import Customer, OrderableCustomer
from app.domain.hold import HoldReason, of_customer
from app.domain.ids import PartnerId
from app.domain.transitions import require
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class AgedConsent:
    partner_id: PartnerId
    customer_id: UUID


_WITH_CONSENT = (
    f"SELECT {columns(tables.customers, 'c')}, "
    "s.state AS consent_state, s.since AS consent_since, s.evidence AS consent_evidence, "
    "s.proved_at AS consent_proved_at, s.checked_at AS consent_checked_at "
    "FROM customers c JOIN consents s ON s.customer_id = c.id "
)


async def add(tx: PartnerTx, values: Mapping[str, Any]) -> None:
    await insert(tx, "customers", {"partner_id": tx.partner_id, **values})


async def get(tx: PartnerTx, customer_id: UUID) -> Customer | None:
    return await fetch_one_as(
        tx,
        Customer,
        _WITH_CONSENT + "WHERE c.partner_id = :partner AND c.id = :id",
        partner=tx.partner_id,
        id=customer_id,
    )


async def find_by_tenant(tx: PartnerTx, connection_id: UUID, entra_tenant_id: UUID) -> Customer | None:
    return await fetch_one_as(
        tx,
        Customer,
        _WITH_CONSENT + "WHERE c.partner_id = :partner AND c.connection_id = :connection "
        "AND c.entra_tenant_id = :tenant",
        partner=tx.partner_id,
        connection=connection_id,
        tenant=entra_tenant_id,
    )


async def list_page(
    tx: PartnerTx,
    page: PageRequest,
    *,
    entra_tenant_id: UUID | None = None,
    domain: str | None = None,
    consent_state: str | None = None,
) -> Page[Customer]:
    filters = ""
    if domain is not None:
        filters += "AND lower(c.domain) = lower(:domain) "
    if consent_state is not None:
        filters += "AND s.state = :consent "
    search = Search(
        # Joined per row: a page needs few of a partner's many consents.
        _WITH_CONSENT.replace(
            "JOIN consents s ON s.customer_id = c.id",
            "CROSS JOIN LATERAL (SELECT state, since, evidence, proved_at, checked_at "
            "FROM consents WHERE customer_id = c.id LIMIT 1) s",
        ),
        "customers",
        "c",
        "" if entra_tenant_id is None else "entra_tenant_id = :tenant",
        filters,
        equal(tenant=entra_tenant_id, domain=domain, consent=consent_state),
        newest_first=False,
    )
    return await page_of(tx, Customer, page, search)


async def list_of_connection(tx: PartnerTx, connection_id: UUID) -> list[Customer]:
    return await fetch_all_as(
        tx,
        Customer,
        _WITH_CONSENT + "WHERE c.partner_id = :partner AND c.connection_id = :connection",
        partner=tx.partner_id,
        connection=connection_id,
    )


async def update(tx: PartnerTx, customer_id: UUID, values: dict[str, Any]) -> None:
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    await execute(
        tx,
        f"UPDATE customers SET {assignments} WHERE partner_id = :partner AND id = :row",
        partner=tx.partner_id,
        row=customer_id,
        **values,
    )


async def add_consent(
    tx: PartnerTx,
    customer_id: UUID,
    *,
    state: str,
    evidence: str,
    now: datetime,
) -> None:
    await insert(
        tx,
        "consents",
        {
            "customer_id": customer_id,
            "partner_id": tx.partner_id,
            "state": state,
            "since": now,
            "evidence": evidence,
        },
    )


async def consent_for_share(tx: PartnerTx, customer_id: UUID) -> ConsentState | None:
    """The consent's state, locked until the transaction ends, so that it cannot be revoked in between."""
    row = await fetch_one(
        tx,
        "SELECT state FROM consents WHERE partner_id = :partner AND customer_id = :id FOR SHARE",
        partner=tx.partner_id,
        id=customer_id,
    )
    return None if row is None else ConsentState(row["state"])


async def holds_for_share(tx: PartnerTx, customer_id: UUID) -> frozenset[HoldReason]:
    """The customer's reasons to hold work, locked until the transaction ends as `consent_for_share` does."""
    return of_customer(await consent_for_share(tx, customer_id))


async def consent_for_update(tx: PartnerTx, customer_id: UUID) -> Consent | None:
    return await fetch_one_as(
        tx,
        Consent,
        f"SELECT {columns(tables.consents)} FROM consents "
        "WHERE partner_id = :partner AND customer_id = :id FOR UPDATE",
        partner=tx.partner_id,
        id=customer_id,
    )


async def set_consent(
    tx: PartnerTx,
    customer_id: UUID,
    *,
    change_id: UUID,
    from_state: ConsentState,
    to_state: ConsentState,
    evidence: str,
    now: datetime,
    note: str | None = None,
    made_by: UUID | None = None,
) -> None:
    """Changes the consent's state, or only its evidence: then `since` stays. Raises IllegalMove."""
    require("consents", CONSENT_TRANSITIONS, from_state, to_state)
    await execute(
        tx,
        "UPDATE consents SET state = :to_state, evidence = :evidence, "
        "since = CASE WHEN state = :to_state THEN since ELSE :now END "
        "WHERE partner_id = :partner AND customer_id = :id",
        partner=tx.partner_id,
        id=customer_id,
        to_state=to_state,
        evidence=evidence,
        now=now,
    )
    await insert(
        tx,
        "consent_changes",
        {
            "id": change_id,
            "partner_id": tx.partner_id,
            "customer_id": customer_id,
            "from_state": from_state,
            "to_state": to_state,
            "evidence": evidence,
            "note": note,
            "made_by": made_by,
            "at": now,
        },
    )


async def forget_consents_by_hand(tx: PartnerTx, customer_id: UUID, *, keep: int) -> int:
    """Deletes all but the newest of this customer's changes that people recorded; returns how many."""
    return await execute(
        tx,
        "DELETE FROM consent_changes WHERE partner_id = :partner AND customer_id = :id "
        "AND made_by IS NOT NULL AND id IN ("
        "  SELECT id FROM consent_changes WHERE partner_id = :partner AND customer_id = :id "
        "  AND made_by IS NOT NULL ORDER BY at DESC, id DESC OFFSET :keep)",
        partner=tx.partner_id,
        id=customer_id,
        keep=keep,
    )


async def note_consent_checked(
    tx: PartnerTx,
    connection_id: UUID,
    *,
    listed: list[UUID],
    now: datetime,
) -> None:
    """Notes a reading of the connection's customers list: all were checked, the listed ones are proved."""
    await execute(
        tx,
        "UPDATE consents s SET checked_at = :now, "
        "proved_at = CASE WHEN c.id = ANY(:listed) THEN :now ELSE s.proved_at END "
        "FROM customers c WHERE c.id = s.customer_id AND c.partner_id = :partner "
        "AND c.connection_id = :connection",
        partner=tx.partner_id,
        connection=connection_id,
        listed=listed,
        now=now,
    )


async def note_proof(tx: PartnerTx, customer_id: UUID, now: datetime) -> None:
    """Notes proof of consent from a person, where no customers list can be read."""
    await execute(
        tx,
        "UPDATE consents SET proved_at = :now WHERE partner_id = :partner AND customer_id = :id",
        partner=tx.partner_id,
        id=customer_id,
        now=now,
    )


async def consent_history(tx: PartnerTx, customer_id: UUID, *, limit: int = 100) -> list[ConsentChange]:
    return await fetch_all_as(
        tx,
        ConsentChange,
        "SELECT from_state, to_state, evidence, at, note, made_by FROM consent_changes "
        "WHERE partner_id = :partner AND customer_id = :id ORDER BY at DESC, id DESC LIMIT :limit",
        partner=tx.partner_id,
        id=customer_id,
        limit=limit,
    )


async def aged_consents(tx: SystemTx, *, proved_before: datetime, limit: int = 500) -> list[AgedConsent]:
    """Granted consents whose proof is older than `proved_before`."""
    return await fetch_all_as(
        tx,
        AgedConsent,
        "SELECT partner_id, customer_id FROM consents "
        "WHERE state = 'granted' AND coalesce(proved_at, since) < :before LIMIT :limit",
        before=proved_before,
        limit=limit,
    )


async def give_turn_back(tx: PartnerTx, customer_id: UUID, batch_id: UUID, now: datetime) -> None:
    """Makes the customer the next one again, after its batch was claimed and could not be sent.

    Not if a worker has another batch of the customer: then the turn was not wasted.
    """
    await execute(
        tx,
        "UPDATE customers SET last_turn_at = created_at WHERE partner_id = :partner AND id = :id "
        "AND NOT EXISTS (SELECT FROM batches b WHERE b.partner_id = :partner AND b.customer_id = :id "
        f"AND b.state IN ('queued', 'submitting') AND {BATCHES.held('b')} AND b.id <> :batch)",
        partner=tx.partner_id,
        id=customer_id,
        batch=batch_id,
        now=now,
    )


_ORDERABLE = (
    "SELECT c.id, c.entra_tenant_id, c.domain, c.name, s.state AS consent_state, c.connection_id, "
    "n.platform, n.mode, p.role AS partner_role, "
    "c.default_group_tag AS own_group_tag, n.default_group_tag AS connection_group_tag "
    "FROM customers c JOIN consents s ON s.customer_id = c.id JOIN connections n ON n.id = c.connection_id "
    "JOIN partners p ON p.id = c.partner_id WHERE c.partner_id = :partner "
)


async def get_orderable(tx: PartnerTx, customer_id: UUID) -> OrderableCustomer | None:
    """The customer with what its orders need: see OrderableCustomer."""
    statement = _ORDERABLE + "AND c.id = :id"
    return await fetch_one_as(tx, OrderableCustomer, statement, partner=tx.partner_id, id=customer_id)


async def all_orderable(tx: PartnerTx) -> list[OrderableCustomer]:
    """All customers, for files that name a customer in each row."""
    return await fetch_all_as(tx, OrderableCustomer, _ORDERABLE + "ORDER BY c.id", partner=tx.partner_id)
