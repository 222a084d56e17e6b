"""Removes a customer, a connection or a partner with everything that belongs to it.

First it checks what would be deleted, and what must be finished before: an outcome that is not yet known must
not be lost. Then it checks again and sets a mark in the same transaction. From that commit on, PostgreSQL
refuses new orders, imports and the like for the marked subject; the keys of a marked partner are revoked in
the same transaction. Then the rows are deleted, in transactions of bounded size. A removal may be interrupted
at any moment and called again.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.db import removal
from app.db.removal import LARGE, Kind, Subject, UnfinishedOrder
from app.domain.actor import Principal
from app.domain.errors import Conflict, FieldError, NotFound
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime

log = logger("removal")

MOST_NAMED: Final = 100
"""The most obstacles named; all are counted."""
ORDERS_AT_A_TIME: Final = 20
ATTEMPTS: Final = 10
UNKNOWN: Final = {
    Kind.CONNECTION: "unknown_connection",
    Kind.CUSTOMER: "unknown_customer",
    Kind.PARTNER: "not_found",
}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """An order or import that has to be finished first."""

    kind: str
    """order or import."""
    id: UUID
    name: str
    words: str
    """What is not finished, and what to do."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What was found, and the result."""

    name: str
    counts: Mapping[str, int]
    """Rows by table when the call begins, counted up to COUNTED_TO."""
    obstacles: Sequence[Obstacle] = field(default=())
    finished: bool = False
    """Everything is deleted. False after `look`, and if time ran out: call again."""


class _TimeIsUp(Exception):
    pass


async def look(runtime: Runtime, principal: Principal, subject: Subject) -> Removal:
    """What `remove` would delete, and what blocks it. Changes nothing. Raises NotFound, or Busy."""
    async with runtime.reading(principal) as tx:
        return await _look(tx, subject, hold=False)


async def _look(tx: PartnerTx, subject: Subject, *, hold: bool) -> Removal:
    row = await removal.find(tx, subject, hold=hold)
    if row is None:
        raise NotFound(UNKNOWN[subject.kind], f"There is no {subject.kind.value} {subject.id}.")
    obstacles = [_order_obstacle(found) for found in await removal.unfinished_orders(tx, subject)]
    obstacles += [
        Obstacle(
            "import",
            found.id,
            found.reference,
            f"It is {found.state}: commit it, or discard it (POST /v1/imports/{{id}}:discard).",
        )
        for found in await removal.waiting_imports(tx, subject)
    ]
    return Removal(row.name, await removal.counts(tx, subject), obstacles)


def _order_obstacle(row: UnfinishedOrder) -> Obstacle:
    devices, unknown = row.devices or 0, row.unknown or 0
    words = f"{devices} device(s) have no outcome yet, in {row.batches} open batch(es)"
    if unknown and not row.batches:
        words += f"; the outcome of {unknown} is unknown: retry the order, or record it"
    else:
        words += ": wait for it, cancel it, or record a portal's outcome"
    return Obstacle("order", row.id, row.reference, f"{words}.")


async def remove(
    runtime: Runtime,
    principal: Principal,
    subject: Subject,
    *,
    everything: bool,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Removal:
    """Deletes the subject. Without `everything`, only if it has no orders and no customers.

    Stops after so many `seconds`, and is then not finished. Raises NotFound, or Conflict with the obstacles.
    """
    ends = None if seconds is None else clock() + seconds
    found = await _begin(runtime, principal, subject, everything=everything)

    def check_time() -> None:
        if ends is not None and clock() > ends:
            raise _TimeIsUp

    try:
        await _delete_all(runtime, principal, subject, check_time)
    except _TimeIsUp:
        return found
    log.info("removal_finished", kind=subject.kind.value, id=str(subject.id), rows=sum(found.counts.values()))
    return Removal(found.name, found.counts, finished=True)


async def _begin(runtime: Runtime, principal: Principal, subject: Subject, *, everything: bool) -> Removal:
    now = runtime.now()
    # Check without the lock first: while work is under way, a removal must not make workers wait.
    if (found := await look(runtime, principal, subject)).obstacles:
        raise _refusal(subject, found)
    async with runtime.transaction(principal) as tx:
        found = await _look(tx, subject, hold=True)
        if found.obstacles:
            raise _refusal(subject, found)
        contents = [noun for noun in ("customers", "orders") if found.counts.get(noun, 0)]
        if subject.kind is Kind.CUSTOMER:
            contents = [noun for noun in contents if noun != "customers"]
        if contents and not everything:
            words = " and ".join(f"{found.counts[noun]:,} {noun}" for noun in contents)
            raise Conflict("removal_not_confirmed", f"The {subject.kind.value} has {words}.")
        await removal.mark(tx, subject, now)
        if subject.kind is Kind.PARTNER:
            await removal.revoke_keys(tx, now)
        gone = await removal.connection_ids(tx, subject)
    for connection_id in gone:
        runtime.token_cache.forget(connection_id)
        await runtime.budgets.forget(connection_id)
    return found


def _refusal(subject: Subject, found: Removal) -> Conflict:
    errors = [
        FieldError(f"/{each.kind}s/{each.id}", "removal_blocked", f"{each.name}: {each.words}")
        for each in found.obstacles[:MOST_NAMED]
    ]
    words = f"Not finished: {len(found.obstacles):,} order(s) or import(s) of the {subject.kind.value}."
    return Conflict("removal_blocked", words, errors)


async def _delete_all(
    runtime: Runtime, principal: Principal, subject: Subject, check_time: Callable[[], None]
) -> None:
    async def until_none(some: Callable[[PartnerTx], Awaitable[int]]) -> None:
        while True:
            check_time()
            if not await _in_one(runtime, principal, some):
                return

    for next_ones, some_of_one in (
        (removal.next_orders, _some_of_order),
        (removal.next_imports, _some_of_import),
    ):
        while True:
            async with runtime.transaction(principal) as tx:
                ids = await next_ones(tx, subject, ORDERS_AT_A_TIME)
            if not ids:
                break
            for each in ids:
                await until_none(partial(some_of_one, each))
    if subject.kind is Kind.PARTNER:
        for table in LARGE:
            await until_none(partial(_some_of_table, table))
    else:
        await until_none(lambda tx: removal.some_of_customers(tx, subject))
    await until_none(lambda tx: removal.some_customers(tx, subject))
    await _in_one(runtime, principal, partial(_delete_rest, subject))


async def _in_one(runtime: Runtime, principal: Principal, work: Callable[[PartnerTx], Awaitable[int]]) -> int:
    """Runs `work` in one transaction, again after a deadlock: others may be changing the same rows."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with runtime.transaction(principal) as tx:
                return await work(tx)
        except DBAPIError as error:
            if attempt == ATTEMPTS or not removal.is_deadlock(error):
                raise
            log.info("removal_tries_again", attempt=attempt)
    raise AssertionError("the last attempt returns or raises")


async def _delete_rest(subject: Subject, tx: PartnerTx) -> int:
    if subject.kind is Kind.PARTNER:
        await removal.partner(tx)
        return 0
    if subject.kind is Kind.CONNECTION:
        await removal.connection(tx, subject)
    await removal.unmark(tx, subject)
    return 0


async def _some_of_order(order_id: UUID, tx: PartnerTx) -> int:
    """Deletes the order last, when little is left that is deleted with it."""
    gone = await removal.some_registrations(tx, order_id)
    if not gone:
        gone = await removal.some_events(tx, order_id)
    if not gone:
        await removal.order(tx, order_id)
    return gone


async def _some_of_import(import_id: UUID, tx: PartnerTx) -> int:
    return await removal.some_of_import(tx, import_id)


async def _some_of_table(table: str, tx: PartnerTx) -> int:
    return await removal.some_of_table(tx, table)
