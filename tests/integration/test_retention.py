"""Retention: old finished imports and unused API keys are deleted in limited steps."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from app.db import imports
from app.domain import api_key
from app.domain.scope import Scope
from app.services.access import identities
from app.services.access.identities import NewKey
from app.services.operations import retention, sweep
from tests.integration.test_api_keys import bearer, rotate
from tests.support.import_scene import commit, committed, look, preview, tuple_sheet, upload, work_imports
from tests.support.plans import vacuum
from tests.support.world import Partner, World

DAY = timedelta(days=1)


async def imports_of(world: World, partner: Partner) -> set[str]:
    response = await world.client.get("/v1/imports", headers=partner.headers)
    return {item["id"] for item in response.json()["items"]}


async def test_finished_imports_are_forgotten_after_their_time_and_their_orders_stay(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(3), customer_id=str(partner.customer_id))
    [made] = (await committed(world, partner, found["id"]))["orders"]
    refused = await preview(world, partner, b"\x00\x01", customer_id=str(partner.customer_id))
    assert refused["state"] == "refused"
    discarded = await upload(world, partner, tuple_sheet(1, "D"))
    path = f"/v1/imports/{discarded}:discard"
    assert (await world.client.post(path, headers=partner.headers)).status_code == 200
    left_alone = await preview(world, partner, tuple_sheet(1, "E"), customer_id=str(partner.customer_id))
    days = world.runtime.settings

    await work_imports(world)
    assert len(await imports_of(world, partner)) == 4
    world.clock.advance(days=days.import_retention_days + 1)
    await work_imports(world)
    assert (await look(world, partner, left_alone["id"]))["state"] == "expired"
    assert await world.count("import_rows") == 0
    waits = await upload(world, partner, tuple_sheet(1, "W"))
    world.clock.advance(days=days.import_record_retention_days - 1)
    await sweep.tidy(world.runtime)
    assert await imports_of(world, partner) == {found["id"], left_alone["id"], waits}, "the rest is older"

    world.clock.advance(days=2)
    await sweep.tidy(world.runtime)
    assert await imports_of(world, partner) == {waits}, "its file still waits to be read, however old it is"
    order = await world.client.get(f"/v1/orders/{made['order_id']}", headers=partner.headers)
    assert order.status_code == 200
    assert len(await world.rows(partner, UUID(made["order_id"]))) == 3
    assert (await world.count("import_orders"), await world.count("import_rows")) == (0, 0)


async def test_an_import_is_kept_while_its_rows_are_there(world: World) -> None:
    """No worker has deleted them yet."""
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(3), customer_id=str(partner.customer_id))
    assert (await commit(world, partner, found["id"])).status_code == 202
    world.clock.advance(days=world.runtime.settings.import_record_retention_days + 30)
    await sweep.tidy(world.runtime)
    assert await imports_of(world, partner) == {found["id"]}
    assert (await committed(world, partner, found["id"]))["state"] == "committed"


async def test_a_round_forgets_a_bounded_number_and_the_next_one_goes_on(world: World) -> None:
    partner = await world.partner()
    for number in range(3):
        assert (await preview(world, partner, b"\x00%d" % number))["state"] == "refused"
    await work_imports(world)
    ended = [await key_of(world, partner, days=1) for _ in range(3)]
    world.clock.advance(days=1000)
    assert await retention.forget_imports(world.runtime, chunk=1, chunks=2) == 2
    assert await retention.forget_imports(world.runtime, chunk=1, chunks=2) == 1
    assert await retention.forget_keys(world.runtime, chunk=1, chunks=2) == 2
    assert await retention.forget_keys(world.runtime, chunk=1, chunks=2) == 1
    assert not {key.prefix for key in ended} & await prefixes(world)


async def test_no_plan_of_postgresql_takes_more_imports_than_the_limit(world: World) -> None:
    """A nested loop runs the subquery of IN (...) once for each row."""
    partner = await world.partner()
    for number in range(3):
        assert (await preview(world, partner, b"\x00%d" % number))["state"] == "refused"
    await work_imports(world)
    world.clock.advance(days=1000)
    await vacuum(world, "imports")
    async with world.runtime.system_transaction() as tx:
        for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            await tx.session.execute(text(f"SET LOCAL enable_{way} = off"))
        assert await imports.purge(tx, ended_before=world.clock.now(), limit=1) == 1


# --- keys -----------------------------------------------------------------------------------------


async def key_of(world: World, partner: Partner, *, days: float) -> NewKey:
    """A key that expires after `days`."""
    ends = world.clock.now() + days * DAY
    return await identities.create_key(
        world.runtime, partner, name="ends", scopes=[Scope.ORDERS_WRITE], expires_at=ends
    )


async def prefixes(world: World) -> set[str]:
    return {row["prefix"] for row in await world.select("SELECT prefix FROM api_keys")}


async def order_by(world: World, partner: Partner, key: NewKey) -> UUID:
    response = await world.post_order(
        partner,
        [{"serial_number": "A1", "manufacturer": "Contoso", "model": "Book"}],
        headers=bearer(key.secret),
    )
    assert response.status_code == 201, response.text
    return UUID(response.json()["id"])


async def test_ended_keys_are_forgotten_unless_something_names_them(world: World) -> None:
    partner = await world.partner()
    idle, revoked = await key_of(world, partner, days=1), await key_of(world, partner, days=2000)
    author, later = await key_of(world, partner, days=1), await key_of(world, partner, days=300)
    order_id = await order_by(world, partner, author)
    response = await world.client.post("/v1/me/key:revoke", headers=bearer(revoked.secret))
    assert response.status_code < 300
    kept = world.runtime.settings.ended_key_retention_days

    world.clock.advance(days=kept - 1)
    await sweep.tidy(world.runtime)
    assert {idle.prefix, revoked.prefix, author.prefix, later.prefix} < await prefixes(world)

    world.clock.advance(days=3)
    await sweep.tidy(world.runtime)
    left = await prefixes(world)
    assert not {idle.prefix, revoked.prefix} & left
    assert {author.prefix, later.prefix, api_key.prefix_of(partner.key)} <= left
    [named] = await world.select(
        "SELECT k.prefix FROM orders o JOIN api_keys k ON k.id = o.created_by WHERE o.id = :id", id=order_id
    )
    assert named["prefix"] == author.prefix


async def test_the_note_of_a_rotation_goes_with_the_key(world: World) -> None:
    partner = await world.partner(consented=False)
    former = await key_of(world, partner, days=10)
    replacing = (await rotate(world, former.secret)).json()["key"]
    assert await world.count("api_key_successors") == 1
    world.clock.advance(days=world.runtime.settings.ended_key_retention_days + 2)
    await sweep.tidy(world.runtime)
    assert former.prefix not in await prefixes(world)
    assert api_key.prefix_of(replacing) in await prefixes(world), "it ended later"
    assert await world.count("api_key_successors") == 0


async def test_a_key_that_replaced_one_that_still_works_is_kept_however_long_it_is_revoked(
    world: World,
) -> None:
    """Without it, the former key could be rotated again."""
    partner = await world.partner(consented=False)
    former = await key_of(world, partner, days=5000)
    week = 7 * 24 * 3600
    replacing = (await rotate(world, former.secret, week)).json()["key"]
    await world.client.post("/v1/me/key:revoke", headers=bearer(replacing))
    async with world.another(ended_key_retention_days=0.01, idempotency_hours=1) as impatient:
        world.clock.advance(days=2)
        await sweep.tidy(impatient.runtime)
        assert api_key.prefix_of(replacing) in await prefixes(world)
        assert (await rotate(world, former.secret)).status_code == 409
        world.clock.advance(days=6)
        await sweep.tidy(impatient.runtime)
    assert not {former.prefix, api_key.prefix_of(replacing)} & await prefixes(world)


async def test_nothing_is_forgotten_before_the_answers_of_its_idempotency_keys(world: World) -> None:
    partner = await world.partner(consented=False)
    former = await key_of(world, partner, days=1)
    first = await rotate(world, former.secret, 0, once="rotation-1")
    async with world.another(ended_key_retention_days=0.01, import_record_retention_days=0.01) as impatient:
        world.clock.advance(hours=world.runtime.settings.idempotency_hours - 1)
        await sweep.tidy(impatient.runtime)
    assert former.prefix in await prefixes(world)
    assert first.status_code == 200
