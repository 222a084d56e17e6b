"""Vendor profiles: how to read a supplier's files, under a name that the partner chose."""

from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import tables
from app.db.engine import encode_json
from app.db.paging import Page, PageRequest, cut
from app.db.sql import columns, execute, fetch_all_as, fetch_one_as, insert
from app.domain.vendor_profile import ProfileSummary, VendorProfile
from app.kernel.transactions import PartnerTx


async def add(
    tx: PartnerTx,
    *,
    id: UUID,
    name: str,
    definition: dict[str, Any],
    now: datetime,
) -> None:
    await insert(
        tx,
        "vendor_profiles",
        {
            "partner_id": tx.partner_id,
            "id": id,
            "name": name,
            "definition": encode_json(definition),
            "created_at": now,
            "updated_at": now,
        },
    )


async def get(tx: PartnerTx, profile_id: UUID) -> VendorProfile | None:
    return await fetch_one_as(
        tx,
        VendorProfile,
        f"SELECT {columns(tables.vendor_profiles)} FROM vendor_profiles "
        "WHERE partner_id = :partner AND id = :id",
        partner=tx.partner_id,
        id=profile_id,
    )


async def get_by_name(tx: PartnerTx, name: str) -> VendorProfile | None:
    return await fetch_one_as(
        tx,
        VendorProfile,
        f"SELECT {columns(tables.vendor_profiles)} FROM vendor_profiles "
        "WHERE partner_id = :partner AND name = :name",
        partner=tx.partner_id,
        name=name,
    )


async def list_page(tx: PartnerTx, page: PageRequest) -> Page[ProfileSummary]:
    """A page of profiles without definitions: with them, 1,000 would be hundreds of megabytes."""
    rows = await fetch_all_as(
        tx,
        ProfileSummary,
        "SELECT id, name, octet_length(definition::text) AS definition_bytes, created_at, updated_at "
        "FROM vendor_profiles WHERE partner_id = :partner "
        "AND (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid)) ORDER BY id LIMIT :limit",
        partner=tx.partner_id,
        after=page.after,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row.id)


async def update(tx: PartnerTx, profile_id: UUID, values: dict[str, Any]) -> bool:
    if "definition" in values:
        values = {**values, "definition": encode_json(values["definition"])}
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    return bool(
        await execute(
            tx,
            f"UPDATE vendor_profiles SET {assignments} WHERE partner_id = :partner AND id = :row",
            partner=tx.partner_id,
            row=profile_id,
            **values,
        )
    )


async def delete(tx: PartnerTx, profile_id: UUID) -> bool:
    return bool(
        await execute(
            tx,
            "DELETE FROM vendor_profiles WHERE partner_id = :partner AND id = :id",
            partner=tx.partner_id,
            id=profile_id,
        )
    )
