"""The staged rows of an import: inserted in chunks, counted, listed, and moved into an order in SQL.

A row already has the id of its future registration, so that no row can become two registrations.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app.db import tables
from app.db.bulk import insertion
from app.db.engine import load
from app.db.imports import ImportClaim
from app.db.paging import Page, PageRequest, cut
from app.db.sql import execute, fetch_all, fetch_all_as, fetch_one
from app.domain.staged import (
    CodeCounts,
    CustomerCounts,
    Original,
    StagedBatch,
    StagedRow,
    TagCounts,
    ValidRow,
)
from app.kernel.transactions import PartnerTx

COLUMNS = (
    "partner_id",
    "import_id",
    "row_number",
    "id",
    "line",
    "verdict",
    "customer_id",
    "group_tag",
    "batch_part",
    "batch_position",
    "line_ref",
    "purchase_order",
    "identity",
    "serial_number",
    "manufacturer",
    "model",
    "product_key",
    "findings",
    "error_code",
    "error_detail",
    "original",
)

_MINE = "partner_id = :partner AND import_id = :import_id"


async def add_many(tx: PartnerTx, rows: Sequence[Sequence[Any]]) -> None:
    """Inserts rows; values are in the order of COLUMNS."""
    await load(tx, tables.import_rows, COLUMNS, rows)


async def add_hashes(tx: PartnerTx, rows: Sequence[tuple[UUID, UUID, int, bytes]]) -> None:
    """Inserts hashes: (partner, import, row number, hash without its zero fill) each."""
    columns = ("partner_id", "import_id", "row_number", "data")
    await load(tx, tables.import_hashes, columns, rows)


async def delete_some(tx: PartnerTx, import_id: UUID, *, limit: int) -> int:
    """Deletes staged rows and hashes, up to `limit` of each; 0 when none is left."""
    deleted = 0
    for table in ("import_rows", "import_hashes"):
        deleted += await execute(
            tx,
            f"DELETE FROM {table} WHERE {_MINE} AND row_number IN ("
            f"SELECT row_number FROM {table} WHERE {_MINE} ORDER BY row_number LIMIT :limit)",
            partner=tx.partner_id,
            import_id=import_id,
            limit=limit,
        )
    return deleted


# --- lists -----------------------------------------------------------------------------------

_VIEW = (
    "SELECT row_number, id, line, verdict, changed, customer_id, group_tag, line_ref, identity, "
    "serial_number, manufacturer, model, product_key, findings, error_code FROM import_rows "
)


async def list_page(
    tx: PartnerTx,
    import_id: UUID,
    page: PageRequest,
    *,
    verdict: str | None = None,
    code: str | None = None,
    noted_only: bool = False,
) -> Page[StagedRow]:
    """A page of rows by row number. `noted_only`: rows with any finding, which have their own index."""
    noted = noted_only or code is not None or (verdict is not None and verdict != "valid")
    rows = await fetch_all_as(
        tx,
        StagedRow,
        _VIEW
        + f"WHERE {_MINE} "
        + ("AND verdict <> 'valid' " if noted else "")
        + "AND (CAST(:after AS integer) IS NULL OR row_number > CAST(:after AS integer)) "
        "AND (CAST(:verdict AS text) IS NULL OR verdict = CAST(:verdict AS text)) "
        "AND (CAST(:code AS text) IS NULL OR findings @> "
        "jsonb_build_array(jsonb_build_object('code', CAST(:code AS text)))) "
        "ORDER BY row_number LIMIT :limit",
        partner=tx.partner_id,
        import_id=import_id,
        after=None if page.after is None else int(page.after),
        verdict=verdict,
        code=code,
        limit=page.size + 1,
    )
    return cut(rows, page, lambda row: row.row_number)


async def originals(
    tx: PartnerTx,
    import_id: UUID,
    *,
    after: int,
    limit: int,
    verdict: str | None = None,
) -> list[Original]:
    """Rows as they were in the file, by row number, with the hashes that belong to null cells."""
    noted = "AND r.verdict <> 'valid' " if verdict not in (None, "valid") else ""
    return await fetch_all_as(
        tx,
        Original,
        "SELECT r.row_number, r.line, r.verdict, r.findings, r.original, h.data AS hash_data "
        "FROM import_rows r LEFT JOIN import_hashes h "
        "ON h.import_id = r.import_id AND h.row_number = r.row_number "
        "WHERE r.partner_id = :partner AND r.import_id = :import_id AND r.row_number > :after "
        f"{noted}AND (CAST(:verdict AS text) IS NULL OR r.verdict = CAST(:verdict AS text)) "
        "ORDER BY r.row_number LIMIT :limit",
        partner=tx.partner_id,
        import_id=import_id,
        after=after,
        verdict=verdict,
        limit=limit,
    )


async def originals_of(tx: PartnerTx, import_id: UUID, row_numbers: list[int]) -> dict[int, str]:
    """The cells of these rows, as JSON, by row number."""
    rows = await fetch_all(
        tx,
        f"SELECT row_number, original FROM import_rows WHERE {_MINE} AND row_number = ANY(:numbers)",
        partner=tx.partner_id,
        import_id=import_id,
        numbers=row_numbers,
    )
    return {row["row_number"]: row["original"] for row in rows}


# --- preview of a commit ----------------------------------------------------------------------


async def counts_by_customer(tx: PartnerTx, import_id: UUID) -> list[CustomerCounts]:
    """Rows by customer and verdict, and the purchase order that each customer's order would have."""
    return await fetch_all_as(
        tx,
        CustomerCounts,
        "SELECT customer_id, count(*) AS rows, "
        "count(*) FILTER (WHERE verdict = 'valid') AS valid, "
        "count(*) FILTER (WHERE verdict = 'warning') AS warning, "
        "count(*) FILTER (WHERE verdict = 'invalid') AS invalid, "
        "count(*) FILTER (WHERE changed) AS changed, "
        "CASE WHEN min(purchase_order) = max(purchase_order) THEN min(purchase_order) END AS purchase_order "
        f"FROM import_rows WHERE {_MINE} GROUP BY customer_id ORDER BY customer_id",
        partner=tx.partner_id,
        import_id=import_id,
    )


async def counts_by_tag(tx: PartnerTx, import_id: UUID) -> list[TagCounts]:
    """Devices and batches by customer and group tag; the largest first within a customer."""
    return await fetch_all_as(
        tx,
        TagCounts,
        "SELECT customer_id, group_tag, CAST(sum(n) AS bigint) AS devices, count(*) AS batches FROM ("
        "SELECT customer_id, group_tag, batch_part, count(*) AS n FROM import_rows "
        f"WHERE {_MINE} AND batch_part IS NOT NULL GROUP BY 1, 2, 3) AS parts "
        "GROUP BY customer_id, group_tag ORDER BY customer_id, devices DESC, group_tag",
        partner=tx.partner_id,
        import_id=import_id,
    )


async def counts_by_code(tx: PartnerTx, import_id: UUID, *, first: int) -> list[CodeCounts]:
    """The number of rows with each finding, and the numbers and lines of the `first` of them."""
    return await fetch_all_as(
        tx,
        CodeCounts,
        "SELECT code, max(n) AS rows, array_agg(row_number ORDER BY row_number) AS first_rows, "
        "array_agg(line ORDER BY row_number) AS first_lines FROM ("
        "SELECT code, row_number, line, count(*) OVER (PARTITION BY code) AS n, "
        "row_number() OVER (PARTITION BY code ORDER BY row_number) AS place FROM ("
        "SELECT DISTINCT f ->> 'code' AS code, row_number, line "
        "FROM import_rows, jsonb_array_elements(findings) f "
        f"WHERE {_MINE} AND verdict <> 'valid') AS found) AS ranked "
        "WHERE place <= :first GROUP BY code ORDER BY rows DESC, code",
        partner=tx.partner_id,
        import_id=import_id,
        first=first,
    )


# --- second check before a commit -------------------------------------------------------------


async def valid_between(tx: PartnerTx, claim: ImportClaim, *, after: int, upto: int) -> list[ValidRow]:
    """Rows that would be sent. By range and not by LIMIT: PostgreSQL has no statistics yet about rows that
    were just staged, and would sort all of them for each page."""
    return await fetch_all_as(
        tx,
        ValidRow,
        "SELECT row_number, customer_id, group_tag, serial_number, manufacturer, model, product_key "
        "FROM import_rows WHERE partner_id = :partner AND import_id = :import_id "
        "AND row_number > :after AND row_number <= :upto AND batch_part IS NOT NULL ORDER BY row_number",
        partner=tx.partner_id,
        import_id=claim.id,
        after=after,
        upto=upto,
    )


async def invalidate(
    tx: PartnerTx,
    claim: ImportClaim,
    rows: Sequence[tuple[int, str, str, str]],
    *,
    changed: bool,
) -> int:
    """Makes valid rows invalid: (row number, code, detail, findings as JSON) each.

    `changed`: the verdict has changed since the preview.
    """
    return await execute(
        tx,
        "UPDATE import_rows r SET verdict = 'invalid', changed = :changed, identity = NULL, "
        "batch_part = NULL, "
        "batch_position = NULL, error_code = u.code, error_detail = u.detail, "
        "findings = coalesce(r.findings, '[]'::jsonb) || CAST(u.findings AS jsonb) "
        "FROM unnest(CAST(:numbers AS integer[]), CAST(:codes AS text[]), CAST(:details AS text[]), "
        "CAST(:findings AS text[])) AS u(row_number, code, detail, findings) "
        "WHERE r.partner_id = :partner AND r.import_id = :import_id AND r.row_number = u.row_number "
        "AND r.batch_part IS NOT NULL",
        partner=tx.partner_id,
        import_id=claim.id,
        changed=changed,
        numbers=[number for number, _, _, _ in rows],
        codes=[code for _, code, _, _ in rows],
        details=[detail for _, _, detail, _ in rows],
        findings=[findings for _, _, _, findings in rows],
    )


# --- making an order --------------------------------------------------------------------------


async def batches_to_be(tx: PartnerTx, claim: ImportClaim, customer_id: UUID) -> list[StagedBatch]:
    """The customer's future batches (group tag, part, devices), in the order of their first rows."""
    return await fetch_all_as(
        tx,
        StagedBatch,
        "SELECT group_tag, batch_part, count(*) AS devices FROM import_rows "
        "WHERE partner_id = :partner AND import_id = :import_id AND customer_id = :customer "
        "AND batch_part IS NOT NULL GROUP BY group_tag, batch_part ORDER BY min(row_number)",
        partner=tx.partner_id,
        import_id=claim.id,
        customer=customer_id,
    )


_BY = {
    "partner": "r.partner_id",
    "order": "CAST(:order AS uuid)",
    "customer": "r.customer_id",
    "now": "CAST(:now AS timestamptz)",
}
_NO_BATCH = "CAST(NULL AS uuid)"
_BATCHES = (
    "unnest(CAST(:batches AS uuid[]), CAST(:tags AS text[]), CAST(:parts AS integer[])) "
    "AS b(id, group_tag, part) JOIN import_rows r ON r.partner_id = :partner AND r.import_id = :import_id "
    "AND r.customer_id = :customer AND r.group_tag = b.group_tag AND r.batch_part = b.part "
)


async def store_batches(
    tx: PartnerTx,
    claim: ImportClaim,
    customer_id: UUID,
    order_id: UUID,
    batches: Sequence[tuple[UUID, str, int]],
    *,
    hashed: bool,
    now: object,
) -> int:
    """Stores the rows of these batches (id, group tag, part) as registrations; returns how many.

    `hashed`: some rows have hashes, which are moved too.
    """
    parameters = {
        "partner": tx.partner_id,
        "import_id": claim.id,
        "customer": customer_id,
        "batches": [id for id, _, _ in batches],
        "tags": [tag for _, tag, _ in batches],
        "parts": [part for _, _, part in batches],
    }
    stored = await execute(
        tx,
        insertion(f"{_BATCHES} ORDER BY r.row_number", "r", **_BY, batch_id="b.id"),
        **parameters,
        order=order_id,
        now=now,
    )
    if not hashed:
        return stored
    await execute(
        tx,
        "INSERT INTO device_hashes (registration_id, partner_id, data) "
        "SELECT r.id, r.partner_id, h.data FROM " + _BATCHES + "JOIN import_hashes h "
        "ON h.import_id = r.import_id AND h.row_number = r.row_number "
        "WHERE r.identity = 'hardware_hash'",
        **parameters,
    )
    await execute(
        tx,
        "DELETE FROM import_hashes h USING " + _BATCHES + "WHERE h.partner_id = :partner "
        "AND h.import_id = r.import_id AND h.row_number = r.row_number",
        **parameters,
    )
    return stored


async def has_hashes(tx: PartnerTx, claim: ImportClaim) -> bool:
    found = await fetch_one(
        tx,
        "SELECT 1 AS one FROM import_hashes WHERE partner_id = :partner AND import_id = :import_id LIMIT 1",
        partner=tx.partner_id,
        import_id=claim.id,
    )
    return found is not None


async def store_invalid(
    tx: PartnerTx,
    claim: ImportClaim,
    customer_id: UUID,
    order_id: UUID,
    *,
    after: int,
    limit: int,
    now: object,
) -> int | None:
    """Stores the customer's next invalid rows as registrations. Returns the last row number, or None."""
    chunk = (
        "import_rows r WHERE r.partner_id = :partner AND r.import_id = :import_id "
        "AND r.verdict = 'invalid' AND r.customer_id = :customer AND r.row_number > :after "
    )
    parameters = {
        "partner": tx.partner_id,
        "import_id": claim.id,
        "customer": customer_id,
        "after": after,
        "limit": limit,
    }
    last = await fetch_one(
        tx,
        f"SELECT max(row_number) AS n FROM (SELECT r.row_number FROM {chunk} "
        "AND r.verdict <> 'valid' ORDER BY r.row_number LIMIT :limit) AS found",
        **parameters,
    )
    if last is None or last["n"] is None:
        return None
    await execute(
        tx,
        insertion(f"{chunk} AND r.row_number <= :last ORDER BY r.row_number", "r", **_BY, batch_id=_NO_BATCH),
        **{name: value for name, value in parameters.items() if name != "limit"},
        order=order_id,
        now=now,
        last=last["n"],
    )
    return int(last["n"])
