"""Removing customers, connections and partners: unfinished work blocks it, and nothing is left behind."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from app.db import removal as removal_db
from app.db.removal import Kind, Subject
from app.db.tables import metadata
from app.domain.actor import ActingFor
from app.domain.errors import Conflict, NotFound
from app.domain.ids import PartnerId
from app.domain.upstream import ConnectionTrouble
from app.platforms.partner_center.driver import app_token, delegated_token
from app.services.connections import customer_readings
from app.services.connections.access import open_access
from app.services.operations import removal
from app.services.operations.removal import Removal
from tests.integration.test_api_auth import everything
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support import rows
from tests.support.import_scene import preview, tuple_sheet
from tests.support.world import Partner, World, tuples


def whole(partner: Partner) -> Subject:
    return Subject(Kind.PARTNER, partner.id, partner.id)


def customer(partner: Partner) -> Subject:
    return Subject(Kind.CUSTOMER, partner.id, partner.customer_id)


def connection(partner: Partner) -> Subject:
    return Subject(Kind.CONNECTION, partner.id, partner.connection_id)


async def remove(world: World, subject: Subject, **how: Any) -> Removal:
    principal = ActingFor(subject.partner_id)
    return await removal.remove(world.runtime, principal, subject, **{"everything": True, **how})


async def discard_imports(world: World, partner: Partner) -> None:
    for row in await world.select("SELECT id FROM imports WHERE partner_id = :p", p=partner.id):
        response = await world.client.post(f"/v1/imports/{row['id']}:discard", headers=partner.headers)
        assert response.status_code == 200, response.text


async def traces(world: World, ids: set[UUID]) -> dict[str, int]:
    """The number of rows per table in which one of the ids appears anywhere, in PostgreSQL's text form."""
    found: dict[str, int] = {}
    async with world.runtime.system_transaction() as tx:
        for table in metadata.sorted_tables:
            listed = (await tx.session.execute(text(f"SELECT CAST(t AS text) FROM {table.name} t"))).scalars()
            n = sum(any(str(id_) in line for id_ in ids) for line in listed)
            if n:
                found[table.name] = n
    return found


async def test_nothing_of_a_partner_stays_in_any_table(world: World) -> None:
    """With one row in every table, including tables that later releases add."""
    async with world.runtime.system_transaction() as tx:
        mine, _ = await rows.fill(tx.session)
        theirs, _ = await rows.fill(tx.session)
        await tx.session.execute(text("UPDATE batches SET state = 'submitted'"))
        await tx.session.execute(text("UPDATE registrations SET state = 'registered'"))
        await tx.session.execute(text("UPDATE batches SET state = 'settled'"))
        await tx.session.execute(text("DELETE FROM registration_counts WHERE state = 'pending'"))
        await tx.session.execute(text("UPDATE imports SET state = 'discarded'"))
    others = {t.name: await owned_by(world, t.name, theirs) for t in rows.OWNED}
    assert min(others.values()) >= 1
    found = await remove(world, Subject(Kind.PARTNER, PartnerId(mine), mine))
    assert found.finished
    assert await traces(world, {mine}) == {}
    assert {t.name: await owned_by(world, t.name, theirs) for t in rows.OWNED} == others
    assert set(found.counts) >= {t.name for t in rows.OWNED} - {"registration_counts"}


async def owned_by(world: World, table: str, partner_id: UUID) -> int:
    (row,) = await world.select(f"SELECT count(*) AS n FROM {table} WHERE partner_id = :p", p=partner_id)
    return int(row["n"])


async def test_a_partner_with_work_of_every_kind_goes_whole_and_its_neighbour_stays(world: World) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    ids = await everything(world, partner)
    await everything(world, neighbour)
    await discard_imports(world, partner)
    await discard_imports(world, neighbour)
    budget = f"registrar:budget:{partner.connection_id}"
    assert await world.runtime.budgets.redis.exists(budget)
    before = await neighbours_rows(world, neighbour)
    found = await remove(world, whole(partner))
    assert found.finished
    assert found.counts["registrations"] == 1
    assert await traces(world, {partner.id, *(UUID(id_) for id_ in ids.values())}) == {}
    assert await neighbours_rows(world, neighbour) == before
    assert not await world.runtime.budgets.redis.exists(budget)
    response = await world.client.get("/v1/me", headers=partner.headers)
    problem_of(response, 401, "unauthenticated")
    assert (await world.client.get("/v1/me", headers=neighbour.headers)).status_code == 200
    with pytest.raises(NotFound):
        await remove(world, whole(partner))


async def neighbours_rows(world: World, neighbour: Partner) -> dict[str, int]:
    return {table.name: await owned_by(world, table.name, neighbour.id) for table in rows.OWNED}


@pytest.mark.parametrize("subject_of", [whole, connection, customer])
async def test_what_is_not_finished_is_named_and_not_lost(world: World, subject_of: Any) -> None:
    partner = await world.partner()
    order_id = (await world.post_order(partner, [TUPLE])).json()["id"]
    file = await preview(world, partner, tuple_sheet(2, "FILE"))
    subject = subject_of(partner)
    before = await world.dump()
    found = await removal.look(world.runtime, partner, subject)
    assert {(each.kind, str(each.id)) for each in found.obstacles} == {
        ("order", order_id),
        ("import", file["id"]),
    }
    with pytest.raises(Conflict) as refused:
        await remove(world, subject)
    assert refused.value.code == "removal_blocked"
    assert {error.pointer for error in refused.value.errors} == {
        f"/orders/{order_id}",
        f"/imports/{file['id']}",
    }
    assert await world.dump() == before
    await world.work()
    await discard_imports(world, partner)
    assert (await remove(world, subject)).finished


@pytest.mark.parametrize("subject_of", [whole, connection, customer])
async def test_a_removal_that_is_refused_waits_for_no_work_and_none_waits_for_it(
    world: World, subject_of: Any
) -> None:
    partner = await world.partner()
    assert (await world.post_order(partner, [TUPLE])).status_code == 201
    async with world.runtime.transaction(partner) as tx:
        for table in ("partners", "connections", "customers"):
            await tx.session.execute(text(f"SELECT FROM {table} FOR KEY SHARE"))
        async with asyncio.timeout(45):
            with pytest.raises(Conflict) as refused:
                await remove(world, subject_of(partner))
    assert refused.value.code == "removal_blocked"


async def test_an_outcome_that_is_not_known_is_in_the_way_also_of_a_settled_batch(world: World) -> None:
    partner = await world.partner()
    order_id = (await world.post_order(partner, [TUPLE])).json()["id"]
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text("UPDATE batches SET state = 'submitted'"))
        await tx.session.execute(text("UPDATE registrations SET state = 'unknown'"))
        await tx.session.execute(text("UPDATE batches SET state = 'settled'"))
    for subject in (whole(partner), connection(partner), customer(partner)):
        (found,) = (await removal.look(world.runtime, partner, subject)).obstacles
        assert str(found.id) == order_id
        assert "is unknown: retry the order" in found.words


async def test_a_customer_goes_with_its_orders_and_nothing_else_does(world: World) -> None:
    partner = await world.partner()
    await world.set_consent(partner.other_tenant_id, given=True)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    gone = (await world.post_order(partner, [TUPLE])).json()
    kept = (await world.post_order(partner, [TUPLE], customer_id=str(partner.other_customer_id))).json()
    await world.work()
    found = await remove(world, customer(partner))
    assert found.finished
    assert found.counts["orders"] == 1
    assert await traces(world, {partner.customer_id, UUID(gone["id"])}) == {}
    assert (await world.client.get(f"/v1/orders/{kept['id']}", headers=partner.headers)).status_code == 200
    assert len(await world.rows(partner, kept["id"])) == 1
    response = await world.client.get(f"/v1/customers/{partner.customer_id}", headers=partner.headers)
    problem_of(response, 404, "unknown_customer")
    # The tenant can become a customer again.
    again = await world.client.post(
        "/v1/customers",
        headers=partner.headers,
        json={
            "connection_id": str(partner.connection_id),
            "entra_tenant_id": str(partner.tenant_id),
            "name": "Again",
        },
    )
    assert again.status_code == 201, again.text


async def delete(world: World, partner: Partner, path: str, **parameters: str) -> httpx.Response:
    return await world.client.delete(path, headers=partner.headers, params=parameters)


async def test_by_api_contents_have_to_be_asked_for_and_a_look_changes_nothing(world: World) -> None:
    partner = await world.partner()
    await world.post_order(partner, [TUPLE])
    await world.work()
    path = f"/v1/customers/{partner.customer_id}"
    before = await world.dump()
    looked = (await delete(world, partner, path, dry_run="true")).json()
    assert (looked["dry_run"], looked["finished"]) == (True, False)
    assert looked["counts"]["registrations"] == 1
    refused = problem_of(await delete(world, partner, path), 409, "removal_not_confirmed")
    assert "1 orders" in refused["detail"]
    assert await world.dump() == before
    done = (await delete(world, partner, path, everything="true")).json()
    assert (done["dry_run"], done["finished"], done["name"]) == (False, True, "Consented Ltd")
    problem_of(await delete(world, partner, path), 404, "unknown_customer")
    connections = f"/v1/connections/{partner.connection_id}"
    problem_of(await delete(world, partner, connections), 409, "removal_not_confirmed")
    done = (await delete(world, partner, connections, everything="true")).json()
    assert done["counts"]["connections"] == 1
    assert await traces(world, {partner.connection_id, partner.other_customer_id}) == {}


async def test_nothing_new_is_taken_for_what_is_being_removed(world: World) -> None:
    partner = await world.partner()
    await world.post_order(partner, [TUPLE])
    await world.work()
    found = await remove(world, customer(partner), seconds=0.0, clock=iter((0.0, *[1.0] * 99)).__next__)
    assert not found.finished
    problem_of(await world.post_order(partner, [TUPLE]), 409, "being_removed")
    assert await world.count("orders") == 1
    assert (await remove(world, customer(partner))).finished
    assert await world.count("removals") == 0

    found = await remove(world, connection(partner), seconds=0.0, clock=iter((0.0, *[1.0] * 99)).__next__)
    assert not found.finished
    response = await world.client.post(
        "/v1/customers",
        headers=partner.headers,
        json={
            "connection_id": str(partner.connection_id),
            "entra_tenant_id": str(partner.tenant_id),
            "name": "New",
        },
    )
    problem_of(response, 409, "being_removed")


async def test_the_keys_of_a_partner_are_refused_from_the_first_moment_of_its_removal(world: World) -> None:
    partner = await world.partner()
    found = await remove(world, whole(partner), seconds=0.0, clock=iter((0.0, *[1.0] * 99)).__next__)
    assert not found.finished
    for path in ("/v1/me", "/v1/orders", f"/v1/customers/{partner.customer_id}"):
        response = await world.client.get(path, headers=partner.headers)
        problem_of(response, 401, "unauthenticated")
    # A call that was accepted earlier still comes too late.
    with pytest.raises(Exception, match="being removed") as refused:
        await world.order(partner, tuples(1))
    assert removal_db.refuses_removed(refused.value)
    assert (await remove(world, whole(partner))).finished


async def test_of_an_order_and_a_removal_at_once_one_wins_whole(world: World) -> None:
    for _ in range(5):
        partner = await world.partner()
        order, removed = await asyncio.gather(
            world.post_order(partner, [TUPLE]),
            remove(world, customer(partner)),
            return_exceptions=True,
        )
        assert isinstance(order, httpx.Response)
        if order.status_code == 201:
            assert isinstance(removed, Conflict)
            assert removed.code in ("removal_blocked", "removal_not_confirmed")
            assert len(await world.rows(partner, order.json()["id"])) == 1
        else:
            assert isinstance(removed, Removal)
            assert order.json()["code"] in ("being_removed", "unknown_customer")
            assert await owned_by(world, "orders", partner.id) == 0


async def test_another_partners_things_cannot_be_removed(world: World) -> None:
    mine, theirs = await world.partner(), await world.partner()
    for path in (f"/v1/customers/{theirs.customer_id}", f"/v1/connections/{theirs.connection_id}"):
        for parameters in ({"dry_run": "true"}, {"everything": "true"}):
            response = await delete(world, mine, path, **parameters)
            assert response.status_code == 404
    strange = Subject(Kind.CUSTOMER, mine.id, theirs.customer_id)
    with pytest.raises(NotFound):
        await remove(world, strange)


async def test_an_order_of_many_devices_goes_in_bounded_transactions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    partner = await world.partner()
    await world.order(partner, tuples(250))
    await world.work()
    monkeypatch.setattr(removal_db, "AT_A_TIME", 100)
    taken: list[int] = []
    some = removal_db.some_registrations

    async def counted(*arguments: Any) -> int:
        taken.append(await some(*arguments))
        return taken[-1]

    monkeypatch.setattr(removal_db, "some_registrations", counted)
    assert (await remove(world, customer(partner))).finished
    assert taken[:4] == [100, 100, 50, 0]


async def test_a_list_of_customers_that_is_being_read_is_no_matter(world: World) -> None:
    """The worker has asked Microsoft for it when first the customer and then the connection are removed."""
    for subject_of in (customer, connection):
        partner = await world.partner()
        await world.arm({"operation": "customers", "kind": "hold", "phase": "after"})
        reading = asyncio.create_task(
            customer_readings.read_customers(world.runtime, partner, partner.connection_id)
        )
        await world.until_held_open(within=45)
        assert (await remove(world, subject_of(partner))).finished
        await world.control("DELETE", "faults")
        await world.let_go()
        await asyncio.wait_for(reading, 45)
        assert await traces(world, {partner.customer_id}) == {}


# --- emptied of its secrets -----------------------------------------------------------------------


async def test_a_refresh_token_is_taken_away_and_no_token_of_it_is_used_any_more(world: World) -> None:
    partner = await world.partner()
    access = await open_access(world.runtime, partner, partner.connection_id)
    assert await access.token(delegated_token(access))
    async with world.another() as elsewhere:
        # Another process, which has a valid token cached.
        access = await open_access(elsewhere.runtime, partner, partner.connection_id)
        assert await access.token(delegated_token(access))
        shown = await patch(world, partner, refresh_token=None)
        assert (shown["has_refresh_token"], shown["has_client_secret"]) == (False, True)
        assert shown["refresh_token_at"] is None
        for process in (world, elsewhere):
            access = await open_access(process.runtime, partner, partner.connection_id)
            with pytest.raises(ConnectionTrouble) as trouble:
                await access.token(delegated_token(access))
            assert trouble.value.code == "credential_missing"
            assert await access.token(app_token(access))


async def test_a_client_secret_is_taken_away_and_the_connection_waits_for_another(world: World) -> None:
    partner = await world.partner()
    (before,) = await world.select("SELECT client_id FROM connections")
    shown = await patch(world, partner, client_secret=None, refresh_token=None)
    assert (shown["has_client_secret"], shown["portal"]) == (False, False)
    assert shown["client_id"] == before["client_id"]
    assert shown["trouble"]["code"] == "credential_missing"
    stored = await world.select("SELECT client_secret, refresh_token FROM connections")
    assert stored == [{"client_secret": b"", "refresh_token": None}], "nothing sealed stays"
    asked = len(await world.calls("token"))
    access = await open_access(world.runtime, partner, partner.connection_id)
    for wanted in (app_token(access), delegated_token(access)):
        with pytest.raises(ConnectionTrouble):
            await access.token(wanted)
    assert len(await world.calls("token")) == asked


async def test_a_portal_connection_has_nothing_to_take_away(world: World) -> None:
    partner = await world.partner()
    async with world.runtime.system_transaction() as tx:
        statement = "UPDATE connections SET mode = 'portal', client_id = NULL, client_secret = NULL"
        await tx.session.execute(text(statement))
    response = await world.client.patch(
        f"/v1/connections/{partner.connection_id}", headers=partner.headers, json={"refresh_token": None}
    )
    problem_of(response, 422, "validation_failed")


async def patch(world: World, partner: Partner, **body: Any) -> dict[str, Any]:
    path = f"/v1/connections/{partner.connection_id}"
    response = await world.client.patch(path, headers=partner.headers, json=body)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown
