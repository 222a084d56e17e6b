"""Vendor profiles: how a supplier's files are to be read, by a name of the partner's own."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import import_tables
from app.db.engine import encode_json
from app.db.paging import Page, PageRequest, cut
from app.db.sql import Record, columns, execute, fetch_all, fetch_one, insert
from app.domain.ids import PartnerId


async def add(
    session: AsyncConnection,
    partner_id: PartnerId,
    *,
    id: UUID,
    name: str,
    definition: dict[str, Any],
    now: datetime,
) -> None:
    await insert(
        session,
        "vendor_profiles",
        {
            "partner_id": partner_id,
            "id": id,
            "name": name,
            "definition": encode_json(definition),
            "created_at": now,
            "updated_at": now,
        },
    )


async def get(session: AsyncConnection, partner_id: PartnerId, profile_id: UUID) -> Record | None:
    return await fetch_one(
        session,
        f"SELECT {columns(import_tables.vendor_profiles)} FROM vendor_profiles "
        "WHERE partner_id = :partner AND id = :id",
        partner=partner_id,
        id=profile_id,
    )


async def get_by_name(session: AsyncConnection, partner_id: PartnerId, name: str) -> Record | None:
    return await fetch_one(
        session,
        f"SELECT {columns(import_tables.vendor_profiles)} FROM vendor_profiles "
        "WHERE partner_id = :partner AND name = :name",
        partner=partner_id,
        name=name,
    )


async def list_page(session: AsyncConnection, partner_id: PartnerId, page: PageRequest) -> Page[Record]:
    """Without definitions: a page of 1,000 would be hundreds of megabytes in one answer."""
    rows = await fetch_all(
        session,
        "SELECT id, name, octet_length(definition::text) AS definition_bytes, created_at, updated_at "
        "FROM vendor_profiles WHERE partner_id = :partner "
        "AND (CAST(:after AS uuid) IS NULL OR id > CAST(:after AS uuid)) ORDER BY id LIMIT :limit",
        partner=partner_id,
        after=page.after,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row["id"])


async def update(
    session: AsyncConnection, partner_id: PartnerId, profile_id: UUID, values: dict[str, Any]
) -> bool:
    if "definition" in values:
        values = {**values, "definition": encode_json(values["definition"])}
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    return bool(
        await execute(
            session,
            f"UPDATE vendor_profiles SET {assignments} WHERE partner_id = :partner AND id = :row",
            partner=partner_id,
            row=profile_id,
            **values,
        )
    )


async def delete(session: AsyncConnection, partner_id: PartnerId, profile_id: UUID) -> bool:
    return bool(
        await execute(
            session,
            "DELETE FROM vendor_profiles WHERE partner_id = :partner AND id = :id",
            partner=partner_id,
            id=profile_id,
        )
    )
