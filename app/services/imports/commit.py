"""Commits an import: makes one order for each of its customers, in SQL, from the previewed rows.

Before the first order the rows are compared again with what may have changed since the reading: known group
tags and earlier orders. A row that has become invalid is marked and reported, never dropped silently. Each
order is one transaction, which also records that it was made, so that a worker that dies between two orders
makes none of them twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.db import customers, group_tags, import_rows, imports, leases
from app.db.engine import encode_json
from app.db.imports import ImportClaim
from app.db.leases import LostClaim
from app.domain.catalogue import Finding
from app.domain.event import EventType
from app.domain.group_tag import Spellings, tag_of
from app.domain.hold import of_customer
from app.domain.imports import ImportState, Verdict, order_reference, ready_state, suffix_of
from app.domain.order import Order
from app.domain.staged import StagedBatch, ValidRow
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.devices import earlier_registrations
from app.services.devices.earlier_registrations import Patterns
from app.services.events.publishing import publish
from app.services.imports.events import import_happening
from app.services.imports.reading import Stopping, release
from app.services.imports.summary import summarise
from app.services.orders import birth

log = logger("imports")

CHUNK = 2000
"""Rows compared with earlier orders at a time."""
STORE_CHUNK = 10_000
"""Rows that one statement makes into registrations: few enough to stay well below its time limit."""


class _ConsentChanged(Exception):
    """Consent changed while the order was being stored: store it again."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The order to be made for one customer."""

    customer_id: UUID
    rows: int
    invalid: int
    purchase_order: str | None
    reference: str

    @property
    def suffix(self) -> str:
        return suffix_of(self.customer_id)


async def commit(runtime: Runtime, claim: ImportClaim, stopping: Callable[[], bool]) -> None:
    """Raises LostClaim, Stopping. Ends in `committed`, or back in `ready` with the reason."""
    made = await _made(runtime, claim)
    if not made:
        changed = await _look_again(runtime, claim, stopping)
        if changed and claim.record.on_invalid == "reject":
            words = f"{changed} rows have become invalid since the preview; no order was made."
            await give_back(runtime, claim, "import_rejected", words)
            return
    for part in await _parts(runtime, claim):
        if part.customer_id in made or part.rows == part.invalid:
            continue
        if stopping():
            raise Stopping
        try:
            await _make_order(runtime, claim, part)
        except IntegrityError as error:
            if not await _is_taken(runtime, claim, part):
                raise
            words = f"An order has the reference {part.reference!r} already."
            log.warning("import_reference_taken", import_id=str(claim.id), error=type(error.orig).__name__)
            await give_back(runtime, claim, "reference_taken", words)
            return
    await _finish(runtime, claim)


async def _made(runtime: Runtime, claim: ImportClaim) -> set[UUID]:
    """Customers whose order has already been made."""
    async with runtime.transaction(claim) as tx:
        return {row.customer_id for row in await imports.orders_of(tx, [claim.id])}


async def _parts(runtime: Runtime, claim: ImportClaim) -> list[_Part]:
    async with runtime.transaction(claim) as tx:
        rows = await import_rows.counts_by_customer(tx, claim.id)
    named = [(row.customer_id, row) for row in rows if row.customer_id is not None]
    base = claim.record.reference
    return [
        _Part(
            customer_id,
            row.rows,
            row.invalid,
            claim.record.purchase_order or row.purchase_order,
            order_reference(base, customer_id, alone=len(named) == 1),
        )
        for customer_id, row in named
    ]


# --- checking again -----------------------------------------------------------------------------


async def _look_again(runtime: Runtime, claim: ImportClaim, stopping: Callable[[], bool]) -> int:
    """Marks the rows whose verdict has changed; returns how many are marked in all."""
    patterns = Patterns()
    spellings: dict[UUID, Spellings] = {}
    after = 0
    while after < claim.record.rows_read:
        if stopping():
            raise Stopping
        async with runtime.transaction(claim) as tx:
            until = runtime.now() + runtime.settings.lease
            if not await leases.renew(tx, leases.IMPORTS, claim, until):
                raise LostClaim
            rows = await import_rows.valid_between(tx, claim, after=after, upto=after + CHUNK)
            errors = await _errors_in(runtime, tx, rows, spellings, patterns)
            if errors:
                await import_rows.invalidate(
                    tx,
                    claim,
                    [(n, e.code, e.detail, encode_json([e.as_json()])) for n, e in errors],
                    changed=True,
                )
            after += CHUNK
    async with runtime.transaction(claim) as tx:
        summary = await summarise(tx, claim.id)
        counts = {verdict.value: summary[verdict.value] for verdict in Verdict}
        await imports.write_claimed(tx, claim, {"summary": summary, "counts": counts})
    return int(summary["changed"])


async def _errors_in(
    runtime: Runtime,
    tx: PartnerTx,
    rows: Sequence[ValidRow],
    spellings: dict[UUID, Spellings],
    patterns: Patterns,
) -> list[tuple[int, Finding]]:
    """(row number, error) of rows that may no longer be sent. New warnings change no verdict."""
    errors: list[tuple[int, Finding]] = []
    of_customer: dict[UUID, list[ValidRow]] = {}
    for row in rows:
        of_customer.setdefault(row.customer_id, []).append(row)
    for customer_id, own in of_customer.items():
        if customer_id not in spellings:
            spellings[customer_id] = await _spellings(runtime, tx, customer_id)
        known = spellings[customer_id]
        found = await earlier_registrations.compare(
            tx, customer_id, [row.names for row in own], patterns=patterns
        )
        for row, findings in zip(own, found, strict=True):
            error = known.conflict(row.group_tag)
            error = error or next((finding for finding in findings if finding.is_error), None)
            if error is not None:
                errors.append((row.row_number, error))
    return errors


async def _spellings(runtime: Runtime, tx: PartnerTx, customer_id: UUID) -> Spellings:
    customer = await customers.get_orderable(tx, customer_id)
    assert customer is not None  # staged rows are of known customers, which are not deleted
    capabilities = runtime.platforms[customer.platform].capabilities
    return Spellings(await group_tags.known(tx, customer_id), one_each=capabilities.one_spelling)


# --- one order ----------------------------------------------------------------------------------


async def _make_order(runtime: Runtime, claim: ImportClaim, part: _Part) -> None:
    for _ in range(3):
        try:
            async with runtime.transaction(claim) as tx:
                await _store(runtime, tx, claim, part)
        except _ConsentChanged:
            continue
        return
    raise LostClaim  # consent keeps changing: try again later


async def _store(runtime: Runtime, tx: PartnerTx, claim: ImportClaim, part: _Part) -> None:
    """Stores one order. The lock on the import keeps the claim, however long this transaction takes."""
    now = runtime.now()
    if not await imports.lock_claimed(tx, claim):
        raise LostClaim
    customer = await customers.get_orderable(tx, part.customer_id)
    assert customer is not None  # staged rows have known customers, which are not deleted
    holds = of_customer(customer.consent_state)
    order = await birth.add(
        tx,
        customer,
        reference=part.reference,
        purchase_order=part.purchase_order,
        group_tag=tag_of(claim.record.group_tag, customer.default_group_tag),
        device_count=part.rows,
        body_digest=claim.record.digest or b"",
        created_by=claim.record.created_by,
        now=now,
    )
    planned = await import_rows.batches_to_be(tx, claim, part.customer_id)
    sizes = [(batch.group_tag, batch.devices) for batch in planned]
    batch_ids = await birth.add_batches(tx, order, sizes, holds=holds, now=now)
    await _store_rows(tx, claim, order, planned, batch_ids, now=now)
    # Consent is checked again under a lock, but only now: the lock must not be held for a minute.
    if holds != await customers.holds_for_share(tx, part.customer_id):
        raise _ConsentChanged
    await imports.add_order(
        tx, claim.id, suffix=part.suffix, customer_id=part.customer_id, order_id=order.id, now=now
    )
    kept = {**leases.IMPORTS.kept(runtime.now() + runtime.settings.lease), "attempts": 0, "updated_at": now}
    await imports.update_claimed(tx, claim, kept)
    counts = {"valid": part.rows - part.invalid, "invalid": part.invalid}
    await birth.announce(runtime, tx, order, **counts, batch_count=len(planned), holds=holds, now=now)
    log.info(
        "import_order_made",
        import_id=str(claim.id),
        order_id=str(order.id),
        devices=part.rows,
        invalid=part.invalid,
        batches=len(planned),
        holds=sorted(holds),
    )


async def _store_rows(
    tx: PartnerTx,
    claim: ImportClaim,
    order: Order,
    planned: Sequence[StagedBatch],
    batch_ids: Sequence[UUID],
    *,
    now: datetime,
) -> None:
    """Stores some batches at a time, so that each statement ends soon, and then the invalid rows."""
    hashed = await import_rows.has_hashes(tx, claim)
    chunk: list[tuple[UUID, str, int]] = []
    size = 0
    for at, (id, batch) in enumerate(zip(batch_ids, planned, strict=True), start=1):
        chunk.append((id, batch.group_tag, batch.batch_part))
        size += batch.devices
        if size >= STORE_CHUNK or at == len(planned):
            await import_rows.store_batches(
                tx,
                claim,
                order.customer_id,
                order.id,
                chunk,
                hashed=hashed,
                now=now,
            )
            chunk, size = [], 0
    after: int | None = 0
    while after is not None:
        after = await import_rows.store_invalid(
            tx,
            claim,
            order.customer_id,
            order.id,
            after=after,
            limit=STORE_CHUNK,
            now=now,
        )


# --- the end ------------------------------------------------------------------------------------


async def _is_taken(runtime: Runtime, claim: ImportClaim, part: _Part) -> bool:
    async with runtime.transaction(claim) as tx:
        return bool(await imports.references_taken(tx, [part.reference]))


async def _finish(runtime: Runtime, claim: ImportClaim) -> None:
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        await release(runtime, tx, claim, {"state": ImportState.COMMITTED, "due_at": claim.record.expires_at})
        record = await imports.get(tx, claim.id)
        assert record is not None
        made = await imports.orders_of(tx, [claim.id])
        await publish(tx, [import_happening(EventType.IMPORT_COMMITTED, record, made)], now)
    log.info("import_committed", import_id=str(claim.id), orders=len(made))


async def give_back(runtime: Runtime, claim: ImportClaim, code: str, words: str) -> None:
    """Returns an import that cannot be committed to `ready`, so that its owner decides what to do."""
    async with runtime.transaction(claim) as tx:
        summary = await summarise(tx, claim.id)
        await release(
            runtime,
            tx,
            claim,
            {
                "state": ready_state(summary["invalid"]),
                "summary": summary,
                "on_invalid": None,
                "failure_code": code,
                "failure_said": words,
                "due_at": claim.record.expires_at,
            },
        )
    log.warning("import_given_back", import_id=str(claim.id), code=code)
