"""Quotas: exactly as many are created as there is room for, and other partners are not affected."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app.db import quotas as table
from app.domain.quota import QUOTAS, Quota
from app.kernel import metrics
from app.services.access import identities, quotas
from tests.attacks.attack import Target
from tests.attacks.creates import NOUNS
from tests.support.import_scene import preview, send, tuple_sheet, work_imports
from tests.support.world import Partner, World

CREATES = {
    Quota.CUSTOMERS: "customers",
    Quota.CONNECTIONS: "connections",
    Quota.VENDOR_PROFILES: "vendor-profiles",
    Quota.WEBHOOK_ENDPOINTS: "webhook-endpoints",
}


async def set_quota(world: World, partner: Partner, quota: Quota, amount: int) -> None:
    async with world.runtime.system_transaction() as tx:
        await table.set_amount(tx, partner.id, quota, amount, world.runtime.now())


async def used(world: World, partner: Partner, quota: Quota) -> int:
    async with world.runtime.transaction(partner) as tx:
        return next(use.used for use in await quotas.look(tx) if use.quota is quota)


def body_for(quota: Quota, partner: Partner) -> dict[str, Any]:
    """The body that the attack `tests.attacks.creates` sends."""
    connection, customers = str(partner.connection_id), (str(partner.customer_id),)
    return NOUNS[CREATES[quota]](Target("http://registrar.test", partner.key, connection, customers, 0, 0))


async def create(world: World, partner: Partner, quota: Quota, key: str | None = None) -> httpx.Response:
    headers = partner.headers | ({"Idempotency-Key": key} if key else {})
    return await world.client.post(f"/v1/{CREATES[quota]}", json=body_for(quota, partner), headers=headers)


@pytest.mark.parametrize("quota", sorted(CREATES))
async def test_of_many_at_once_exactly_as_many_are_made_as_there_is_room_for(
    world: World, quota: Quota
) -> None:
    partner, other = await world.partner(), await world.partner()
    before = await used(world, partner, quota)
    await set_quota(world, partner, quota, before + 3)
    answers = await asyncio.gather(*(create(world, partner, quota) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [422] * 5
    assert await used(world, partner, quota) == before + 3
    problem = next(answer.json() for answer in answers if answer.status_code == 422)
    assert problem["code"] == "quota_exceeded"
    assert (
        f"The quota {quota.value} is used up: {before + 3} of {before + 3} {QUOTAS[quota].noun}"
        in problem["detail"]
    )
    assert QUOTAS[quota].remedy in problem["detail"]
    assert (await create(world, other, quota)).status_code == 201


async def test_new_keys_are_bounded_and_known_ones_go_on_being_answered(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.IDEMPOTENCY_ANSWERS, 2)
    bodies = [body_for(Quota.CUSTOMERS, partner) for _ in range(6)]

    async def post(number: int) -> httpx.Response:
        headers = partner.headers | {"Idempotency-Key": f"key-{number}"}
        return await world.client.post("/v1/customers", json=bodies[number], headers=headers)

    answers = await asyncio.gather(*(post(number) for number in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [429] * 4
    assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 429} == {"600"}
    assert await used(world, partner, Quota.IDEMPOTENCY_ANSWERS) == 2
    for number, answer in enumerate(answers):
        again = await post(number)
        assert again.status_code == answer.status_code
        if answer.status_code == 201:
            assert again.headers["Idempotency-Replayed"] == "true"
            assert again.content == answer.content
    # Deleted keys make room.
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text("DELETE FROM idempotency_keys"))
    assert await used(world, partner, Quota.IDEMPOTENCY_ANSWERS) == 0
    refused = next(number for number, answer in enumerate(answers) if answer.status_code == 429)
    assert (await post(refused)).status_code == 201


async def test_a_refused_request_takes_no_room(world: World) -> None:
    partner = await world.partner()
    refused = await create(world, partner, Quota.CUSTOMERS)
    assert refused.status_code == 201
    body = body_for(Quota.CUSTOMERS, partner) | {"connection_id": str(uuid4())}
    headers = partner.headers | {"Idempotency-Key": "one"}
    assert (await world.client.post("/v1/customers", json=body, headers=headers)).status_code == 404
    assert await used(world, partner, Quota.IDEMPOTENCY_ANSWERS) == 0
    assert await used(world, partner, Quota.CUSTOMERS) == 3


async def test_revoked_keys_make_room_for_new_ones(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.API_KEYS, 1)
    with pytest.raises(Exception, match="quota_exceeded"):
        await identities.create_key(world.runtime, partner, name="second")
    await identities.revoke_key(world.runtime, partner, partner.caller.key_prefix)
    await identities.create_key(world.runtime, partner, name="second")
    assert await used(world, partner, Quota.API_KEYS) == 1


async def post_order(world: World, partner: Partner, devices: int, key: str | None = None) -> httpx.Response:
    body = {
        "customer_id": str(partner.customer_id),
        "reference": key or uuid4().hex,
        "devices": [
            {"serial_number": f"SYN{uuid4().hex[:12]}", "manufacturer": "Contoso", "model": "Book 14"}
            for _ in range(devices)
        ],
    }
    headers = partner.headers | {"Idempotency-Key": key or uuid4().hex}
    return await world.client.post("/v1/orders", json=body, headers=headers)


async def test_an_order_is_taken_whole_or_refused_whole_and_other_partners_are_not_held_up(
    world: World,
) -> None:
    partner, other = await world.partner(), await world.partner()
    await set_quota(world, partner, Quota.DEVICES, 25)
    answers = await asyncio.gather(*(post_order(world, partner, 10) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 422, 422, 422, 422]
    refused = next(answer for answer in answers if answer.status_code == 422).json()
    assert refused["code"] == "quota_exceeded"
    assert "this would add 10" in refused["detail"]
    assert await used(world, partner, Quota.DEVICES) == 20
    assert (await world.count("orders"), await world.count("registrations")) == (2, 20)
    assert await used(world, partner, Quota.IDEMPOTENCY_ANSWERS) == 2
    assert (await post_order(world, other, 10)).status_code == 201
    assert (await post_order(world, partner, 5)).status_code == 201
    # Devices accepted before the quota was used up are registered like any others.
    await world.work()
    async with world.runtime.system_transaction() as tx:
        states = await tx.session.execute(text("SELECT DISTINCT state FROM registrations"))
        assert states.scalars().all() == ["registered"]
        await tx.session.execute(text("DELETE FROM events"))
        await tx.session.execute(text("DELETE FROM orders WHERE partner_id = :id"), {"id": partner.id})
    assert await used(world, partner, Quota.DEVICES) == 0


async def test_an_import_over_the_quota_stays_ready_and_loses_nothing(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.DEVICES, 2)
    import_id = (await preview(world, partner, tuple_sheet(3)))["id"]
    refused = await world.client.post(f"/v1/imports/{import_id}:commit", headers=partner.headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "quota_exceeded")
    found = (await world.client.get(f"/v1/imports/{import_id}", headers=partner.headers)).json()
    assert found["state"] == "ready"
    await set_quota(world, partner, Quota.DEVICES, 3)
    taken = await world.client.post(f"/v1/imports/{import_id}:commit", headers=partner.headers)
    assert taken.status_code == 202, taken.text
    await work_imports(world)
    assert await used(world, partner, Quota.DEVICES) == 3


def scans_of(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(kind, table) of everything that a plan reads."""
    own = [(plan["Node Type"], plan["Relation Name"])] if "Relation Name" in plan else []
    return own + [scan for part in plan.get("Plans", ()) for scan in scans_of(part)]


async def test_counting_reads_no_table_whole_and_of_what_there_is_much_a_kept_count_only(
    world: World,
) -> None:
    partner = await world.partner()
    async with world.runtime.transaction(partner) as tx:
        # These tables are small here: plan as for large ones.
        await tx.session.execute(text("SET LOCAL enable_seqscan = off"))
        for quota, statement in table.USED.items():
            explained = await tx.session.execute(
                text(f"EXPLAIN (FORMAT JSON) {statement}"),
                {"partner": partner.id, "now": world.runtime.now()}
                if ":now" in statement
                else {"partner": partner.id},
            )
            scans = scans_of(explained.scalar_one()[0]["Plan"])
            assert scans, quota
            assert [scan for scan in scans if scan[0] == "Seq Scan"] == [], quota
            if quota in (Quota.DEVICES, Quota.CUSTOMERS, Quota.IDEMPOTENCY_ANSWERS):
                assert {name for _, name in scans} == {"partner_uses"}


async def test_kept_counts_are_those_of_the_rows(world: World) -> None:
    partner, other = await world.partner(), await world.partner()
    for who, devices in ((partner, 3), (partner, 2), (other, 1)):
        assert (await post_order(world, who, devices)).status_code == 201
    async with world.runtime.system_transaction() as tx:
        kept = await tx.session.execute(text("SELECT partner_id, quota, used FROM partner_uses"))
        counted = await tx.session.execute(
            text(
                "SELECT partner_id, 'customers', count(*) FROM customers GROUP BY 1 UNION ALL "
                "SELECT partner_id, 'idempotency_answers', count(*) FROM idempotency_keys GROUP BY 1 "
                "UNION ALL "
                "SELECT partner_id, 'devices', sum(device_count) FROM orders GROUP BY 1"
            )
        )
        assert set(map(tuple, kept.all())) == set(map(tuple, counted.all()))
        # One statement that deletes rows of several partners, as the sweep does.
        await tx.session.execute(text("DELETE FROM idempotency_keys"))
        left = await tx.session.execute(
            text("SELECT used FROM partner_uses WHERE quota = 'idempotency_answers'")
        )
        assert left.scalars().all() == [0, 0]


async def test_a_refusal_is_counted_by_quota_and_by_nothing_that_names_a_partner(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.CONNECTIONS, 1)
    line = 'registrar_quota_refusals_total{quota="connections"} '

    def refusals() -> float:
        [found] = [row for row in metrics.page()[0].decode().splitlines() if row.startswith(line)]
        return float(found.removeprefix(line))

    before = refusals()
    assert (await create(world, partner, Quota.CONNECTIONS)).status_code == 422
    assert refusals() == before + 1


async def test_a_repeated_upload_is_answered_also_while_no_import_may_wait(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.WAITING_IMPORTS, 1)

    async def post(key: str) -> httpx.Response:
        given = {"customer_id": str(partner.customer_id)}
        return await send(world, partner, tuple_sheet(2), headers={"Idempotency-Key": key}, **given)

    first = await post("one")
    assert first.status_code == 201, first.text
    refused = await post("two")
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    again = await post("one")
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (201, "true")
    assert again.content == first.content
    assert await world.count("imports") == 1
    await work_imports(world)
    assert (await post("two")).status_code == 201


async def test_a_repeated_upload_is_answered_also_while_no_bytes_may_be_staged(world: World) -> None:
    partner = await world.partner()

    async def post() -> httpx.Response:
        given = {"customer_id": str(partner.customer_id)}
        return await send(world, partner, tuple_sheet(2), headers={"Idempotency-Key": "one"}, **given)

    first = await post()
    assert first.status_code == 201, first.text
    await set_quota(world, partner, Quota.STAGED_BYTES, len(tuple_sheet(2)))
    again = await post()
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (201, "true"), again.text
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE idempotency_keys SET created_at = created_at - interval '1 year'")
        )
    forgotten = await post()
    assert forgotten.json()["code"] == "quota_exceeded"
    assert await world.count("imports") == 1
