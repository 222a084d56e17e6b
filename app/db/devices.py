"""Queries for devices as callers see them.

No query writes a device: a trigger does, in the transaction that records an outcome (migration 0017).
"""

import re
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from app.db import searching
from app.db.paging import Page, PageRequest
from app.db.registrations import state_of
from app.db.searching import Search, page_of
from app.db.sql import fetch_all, fetch_one_as
from app.domain.devices import DeviceState, KnownDevice, has_trigram
from app.domain.product_key import is_usual
from app.domain.registration import RegistrationState
from app.kernel.transactions import PartnerTx


@dataclass(frozen=True, slots=True)
class Filter:
    customer_id: UUID | None = None
    state: DeviceState | None = None
    serial_number: str | None = None
    serial_prefix: str | None = None
    serial_contains: str | None = None
    product_key: str | None = None

    @property
    def searches(self) -> bool:
        """Whether the filter may have to look through many rows."""
        return self.serial_contains is not None or self.state is DeviceState.REGISTERED


_VIEW = (
    "SELECT d.id, d.customer_id, d.identity, d.state, d.state_at, d.registration_id, d.first_outcome_at, "
    "d.last_outcome_at, d.serial_number, d.manufacturer, d.model, d.product_key, r.id AS last_id, "
    f"r.order_id AS last_order_id, r.group_tag AS last_group_tag, {state_of('r.state')} AS last_state, "
    "r.error_code AS last_error_code FROM devices d "
    "LEFT JOIN LATERAL (SELECT id, order_id, batch_id, group_tag, state, error_code FROM registrations "
    "WHERE id = d.last_registration_id LIMIT 1) r ON true "
    "LEFT JOIN LATERAL (SELECT state, uncertain FROM batches WHERE id = r.batch_id LIMIT 1) b ON true "
)


async def get(tx: PartnerTx, device_id: UUID) -> KnownDevice | None:
    return await fetch_one_as(
        tx,
        KnownDevice,
        f"{_VIEW}WHERE d.partner_id = :partner AND d.id = :id",
        partner=tx.partner_id,
        id=device_id,
    )


_IDENTITY: Final = "device_identity(r.id, r.serial_number, r.manufacturer, r.model, r.product_key)"


async def registrations_of(tx: PartnerTx, device: KnownDevice, *, limit: int) -> list[UUID]:
    """The device's registrations in any state except invalid, newest first.

    Found by the device's identifiers. A device without any has one registration. Reads at most FEW rows.
    """
    serial, key = device.serial_number, device.product_key
    if serial is None and key is None:
        return [device.registration_id]
    # A usual PKID belongs to one device. Many may share an unusual one, so then the serial number is used.
    by_key = key is not None and (serial is None or is_usual(key))
    rows = await fetch_all(
        tx,
        "SELECT r.id FROM (SELECT id, customer_id, state, serial_number, manufacturer, model, product_key "
        f"FROM registrations WHERE partner_id = :partner AND {'product_key' if by_key else 'serial_number'} "
        f"= :name LIMIT :most) r WHERE r.customer_id = :customer AND {_IDENTITY} = :identity "
        f"AND r.state <> '{RegistrationState.INVALID.value}' ORDER BY r.id DESC LIMIT :limit",
        partner=tx.partner_id,
        name=key if by_key else serial,
        most=searching.FEW,
        customer=device.customer_id,
        identity=device.identity,
        limit=limit,
    )
    return [row["id"] for row in rows]


async def list_page(
    tx: PartnerTx,
    page: PageRequest,
    filter: Filter,
    *,
    by_trigrams: bool = False,
) -> Page[KnownDevice]:
    """A page of devices, newest first. If no index serves the filters, it reads SEARCHED rows at most.

    `by_trigrams`: the database has a trigram index of serial numbers (`app.db.serial_search`).
    """
    clauses = _clauses(filter)
    found_by, values = "", dict[str, Any]()
    for name in ("product_key", "serial_number", "serial_prefix", "serial_contains"):
        if name not in clauses:
            continue
        ids = await _few(tx, filter, name, *clauses[name], by_trigrams=by_trigrams)
        if ids is not None:
            found_by, values = "id = ANY(:found)", {"found": ids}
            del clauses[name]
            break
    else:
        if filter.customer_id is not None:
            found_by, values = clauses.pop("customer_id")
        elif filter.state not in (None, DeviceState.REGISTERED):
            del clauses["state"]
            # Literals, so that PostgreSQL can use the partial index.
            found_by = f"state = '{filter.state}' AND state <> '{DeviceState.REGISTERED}'"
    filters = ""
    for condition, given in clauses.values():
        filters += f"AND d.{condition} "
        values |= given
    search = Search(_VIEW, "devices", "d", found_by, filters, values)
    return await page_of(tx, KnownDevice, page, search, searched=searching.SEARCHED)


def _clauses(filter: Filter) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each filter's condition, without an alias, and its parameters."""
    clauses: dict[str, tuple[str, dict[str, Any]]] = {}
    for name in ("customer_id", "state", "serial_number", "product_key"):
        value = getattr(filter, name)
        if value is not None:
            clauses[name] = f"{name} = :{name}", {name: value}
    if (prefix := filter.serial_prefix) is not None:
        values = {"start": prefix, "end": prefix + chr(0x10FFFF)}
        clauses["serial_prefix"] = "serial_number ~>=~ :start AND serial_number ~<~ :end", values
    if filter.serial_contains is not None:
        values = {"pattern": _pattern(filter.serial_contains)}
        clauses["serial_contains"] = "serial_number ILIKE :pattern", values
    return clauses


def _pattern(fragment: str) -> str:
    return "%" + re.sub(r"([\\%_])", r"\\\1", fragment) + "%"


async def _few(
    tx: PartnerTx, filter: Filter, name: str, condition: str, values: dict[str, Any], *, by_trigrams: bool
) -> list[UUID] | None:
    """The ids that an index finds; None if no index serves the filter, or if it finds more than FEW."""
    if name != "serial_contains":
        found = f"SELECT id FROM devices WHERE partner_id = :partner AND {condition} LIMIT :most"
        values = {**values, "partner": tx.partner_id}
    elif by_trigrams and has_trigram(str(filter.serial_contains)):
        found = "SELECT id FROM find_devices(:pattern, :most) AS found(id)"  # this partner's only
    else:
        return None
    rows = await fetch_all(tx, found, **values, most=searching.FEW + 1)
    return None if len(rows) > searching.FEW else [row["id"] for row in rows]
