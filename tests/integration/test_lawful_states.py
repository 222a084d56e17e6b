"""The tables of transitions are law: PostgreSQL accepts every legal move and refuses every other one."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import batches, tables
from app.db.batch_claims import claim_one
from app.db.removal import refuses_removed
from app.db.sqlstate import ILLEGAL_MOVE, sqlstate_of
from app.domain.attempt import DELIVERY_TRANSITIONS
from app.domain.batch import BATCH_TRANSITIONS, BatchState
from app.domain.consent import CONSENT_TRANSITIONS
from app.domain.endpoint_health import ENDPOINT_TRANSITIONS
from app.domain.imports import IMPORT_TRANSITIONS
from app.domain.registration import CORRECTIONS, MOVING_WITH_BATCH, TRANSITIONS
from app.domain.registration import RegistrationState as R
from app.domain.transitions import IllegalMove
from tests.integration.test_api_orders import tuple_of
from tests.support import rows
from tests.support.world import World

Transitions = Mapping[Any, frozenset[Any]]
LAWS: dict[str, Transitions] = {
    "batches": BATCH_TRANSITIONS,
    "consents": CONSENT_TRANSITIONS,
    "deliveries": DELIVERY_TRANSITIONS,
    "imports": IMPORT_TRANSITIONS,
    "webhook_endpoints": ENDPOINT_TRANSITIONS,
}
BATCH_OF = {
    R.HELD: BatchState.HELD,
    R.QUEUED: BatchState.QUEUED,
    R.SUBMITTING: BatchState.SUBMITTING,
    R.PROCESSING: BatchState.SUBMITTED,
    R.UNKNOWN: BatchState.UNKNOWN,
}
"""The state of an open batch that gives its rows this state."""


def pairs(states: Iterable[StrEnum]) -> list[tuple[StrEnum, StrEnum]]:
    return [(old, new) for old, new in product(states, repeat=2) if old is not new]


def moves(transitions: Transitions) -> set[tuple[StrEnum, StrEnum]]:
    return {(old, new) for old, news in transitions.items() for new in news}


@pytest.fixture
async def session(world: World) -> AsyncIterator[AsyncConnection]:
    """A transaction of the system, which is rolled back."""
    async with world.runtime.system_transaction() as tx:
        yield tx.session
        await tx.session.rollback()


async def is_refused(session: AsyncConnection, table: str, what: str, **given: Any) -> str | None:
    """The message with which the UPDATE is refused, or None. It is rolled back either way."""
    saved = await session.begin_nested()
    try:
        done = await session.execute(text(f"UPDATE {table} SET {what}"), given)
    except DBAPIError as error:
        if sqlstate_of(error) != ILLEGAL_MOVE:
            raise
        found = re.search(rf"{table}: a row cannot move from \w+ to \w+", str(error.orig))
        return "" if found is None else found[0]
    else:
        assert done.rowcount == 1
        return None
    finally:
        await saved.rollback()


@pytest.mark.parametrize("table", LAWS)
async def test_a_move_passes_exactly_where_the_table_of_transitions_has_it(
    session: AsyncConnection, table: str
) -> None:
    law = LAWS[table]
    _, made = await rows.fill(session)
    parent = tables.metadata.tables[table]
    key = "customer_id" if table == "consents" else "id"
    refused = {}
    await session.execute(tables.registrations.delete())
    for old in law:
        saved = await session.begin_nested()
        row = made[table] | {"state": old.value}
        await session.execute(parent.delete().where(parent.c[key] == row[key]))
        await session.execute(parent.insert().values(row))
        for new in law:
            found = await is_refused(session, table, f"state = :new WHERE {key} = :id", new=new, id=row[key])
            if found is not None:
                refused[(old, new)] = found
        await saved.rollback()
    assert set(refused) == set(pairs(law)) - moves(law)
    assert set(refused.values()) == {
        f"{table}: a row cannot move from {old} to {new}" for old, new in refused
    }


async def batch_in(session: AsyncConnection, like: rows.Row, state: BatchState) -> UUID:
    row = like | {"id": uuid4(), "state": state.value, "uncertain": False}
    await rows.insert(session, tables.batches, row)
    return UUID(str(row["id"]))


@pytest.mark.parametrize("old", R)
@pytest.mark.parametrize("open_before", [True, False])
async def test_a_registration_moves_only_by_its_table_wherever_its_batch_is(
    session: AsyncConnection, old: R, open_before: bool
) -> None:
    """A row without an outcome has its open batch's state; if the batch has ended, its own stored state."""
    _, made = await rows.fill(session)
    moving = old in MOVING_WITH_BATCH and open_before
    batch = made["batches"]
    before = await batch_in(session, batch, BATCH_OF[old] if moving else BatchState.SETTLED)
    stored = R.QUEUED if moving else old
    row = made["registrations"] | {"id": uuid4(), "batch_id": before, "state": stored.value, "row_number": 7}
    await rows.insert(session, tables.registrations, row)
    refused = {}
    for new in R:
        # Into another batch, as `:retry-failed` and a halved batch do; an outcome is stored where the row is.
        elsewhere = new in MOVING_WITH_BATCH and (new is not old or moving)
        after = await batch_in(session, batch, BATCH_OF[new]) if elsewhere else before
        found = await is_refused(
            session,
            "registrations",
            "state = :state, batch_id = :batch WHERE id = :id",
            state=R.QUEUED if elsewhere else new,
            batch=after,
            id=row["id"],
        )
        if found is not None:
            refused[new] = found
    legal = TRANSITIONS[old] | {new for was, new in CORRECTIONS if was is old} | {old}
    assert set(refused) == set(R) - legal
    assert set(refused.values()) == {
        f"registrations: a row cannot move from {old} to {new}" for new in refused
    }


async def test_one_illegal_move_among_legal_ones_is_found_and_all_are_taken_back(world: World) -> None:
    partner = await world.partner()
    order = (await world.post_order(partner, [tuple_of(k) for k in range(3)])).json()
    await world.work()
    change = (
        "UPDATE registrations SET state = CASE row_number WHEN 2 THEN 'queued' ELSE 'failed' END "
        "WHERE order_id = :id RETURNING id"
    )
    words = "registrations: a row cannot move from registered to queued"
    with pytest.raises(DBAPIError, match=words) as refused:
        await world.select(change, id=UUID(order["id"]))
    assert not refuses_removed(refused.value), "a defect of ours is no removal of somebody's"
    assert {row["state"] for row in await world.rows(partner, order["id"])} == {"registered"}


async def test_a_worker_that_would_make_an_illegal_move_fails_with_its_names(world: World) -> None:
    partner = await world.partner()
    await world.post_order(partner, [tuple_of(1)])
    async with world.runtime.system_transaction() as tx:
        claim = await claim_one(
            tx,
            owner=uuid4(),
            now=world.clock.now(),
            lease=timedelta(minutes=1),
            customer_window=1,
            connection_window=1,
        )
    assert claim is not None

    async def leap() -> None:
        async with world.runtime.transaction(claim) as tx:
            await batches.write_claimed(tx, claim, {"state": BatchState.SUBMITTING.value})
            await batches.write_claimed(tx, claim, {"state": BatchState.CANCELLED.value})

    with pytest.raises(IllegalMove, match="batches: a row cannot move from submitting to cancelled"):
        await leap()
    [stored] = await world.batches(claim.order_id)
    assert stored["state"] == "queued"
