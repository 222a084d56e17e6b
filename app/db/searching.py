"""How far one page looks for what no index finds: a bounded number of the partner's rows, newest first."""

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.paging import PageRequest
from app.db.sql import fetch_one
from app.domain.ids import PartnerId

SEARCHED: Final = 100_000
"""Rows that one page looks through for a part of a serial number: no index finds it."""


async def end_of_search(session: AsyncConnection, partner_id: PartnerId, page: PageRequest) -> UUID | None:
    """The last row that this page looks at; None when the rest is less."""
    row = await fetch_one(
        session,
        "SELECT id FROM registrations WHERE partner_id = :partner "
        "AND (CAST(:after AS uuid) IS NULL OR id < CAST(:after AS uuid)) "
        "ORDER BY id DESC OFFSET :skipped LIMIT 1",
        partner=partner_id,
        after=page.after,
        skipped=SEARCHED - 1,
    )
    return None if row is None else row["id"]
