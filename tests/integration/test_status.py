"""`GET /v1/status` and its command: whether everything works, and what needs a person."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from typer.testing import CliRunner, Result

from app.cli import app as program
from app.db import figures
from app.domain.budget import Budget, BudgetPolicy
from app.domain.quota import Quota
from app.domain.scope import Scope
from app.domain.upstream import ConnectionTrouble, Said
from app.kernel.budgets import Budgets
from app.kernel.queue import Queue
from app.services.access import identities, quotas
from app.services.connections import access
from app.services.operations import sweep
from app.services.registering import batches
from tests.support.import_scene import upload, work_imports
from tests.support.serving import serving
from tests.support.world import Partner, World, tuples


async def status(world: World, partner: Partner) -> dict[str, Any]:
    response = await world.client.get("/v1/status", headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def registrar(world: World, partner: Partner, *arguments: str) -> Result:
    """Runs the command against the real API; returns its lines as a pipe gets them."""
    async with serving(world) as (host, port):
        environment = {"REGISTRAR_API_KEY": partner.key, "REGISTRAR_API_URL": f"http://{host}:{port}"}
        return await asyncio.to_thread(CliRunner().invoke, program, list(arguments), env=environment)


def line_of(result: Result, name: str) -> str:
    [line] = [line for line in result.stdout.splitlines() if f" {name} " in line]
    return " ".join(line.split())


async def test_when_all_is_well_the_command_ends_with_0_and_says_so(world: World) -> None:
    partner = await world.partner()
    await sweep.beat(world.runtime)
    found = await status(world, partner)
    assert (found["level"], found["database"], found["redis"]) == ("ok", True, True)
    assert found["schema"]["ok"] is True
    assert found["schema"]["at"] == found["schema"]["wanted"]
    assert found["workers"]["alive"] == len(found["workers"]["items"]) == 1
    assert found["work"] == found["waiting_for"] == found["connections"] == found["stuck"] == []
    assert found["connections_total"] == 1
    result = await registrar(world, partner, "status")
    assert result.exit_code == 0, result.output
    assert "All is well." in result.stdout
    assert line_of(result, "Workers").startswith("ok Workers 1 alive, last heartbeat ")
    assert line_of(result, "Connections") == "ok Connections 1 connection, none in trouble"


async def test_without_a_worker_something_is_down_and_the_oldest_work_is_told(world: World) -> None:
    partner = await world.partner()
    await sweep.beat(world.runtime)
    await world.order(partner, tuples(3))
    await world.order(partner, tuples(2), customer_id=partner.other_customer_id)
    world.clock.advance(hours=3)
    found = await status(world, partner)
    assert (found["level"], found["workers"]["ok"], found["workers"]["alive"]) == ("down", False, 0)
    assert [(work["state"], work["devices"], work["batches"]) for work in found["work"]] == [
        ("held", 2, 1),
        ("queued", 3, 1),
    ]
    for work in found["work"]:
        assert world.clock.now() - datetime.fromisoformat(work["oldest_at"]) > timedelta(hours=3)
    assert [each["code"] for each in found["waiting_for"]] == ["no_worker_alive", "consent_missing"]
    result = await registrar(world, partner, "status")
    assert result.exit_code == 1, result.output
    assert line_of(result, "Workers") == "DOWN Workers none is alive, the last was seen 3 hours ago"
    assert "3 devices waiting to be sent, the oldest for 3 hours" in result.stdout
    assert "Start one with `registrar worker`" in result.stdout


async def test_a_redis_that_is_away_is_down(world: World) -> None:
    partner = await world.partner()
    await sweep.beat(world.runtime)
    runtime = world.runtime
    queue, known = runtime.queue, runtime.budgets
    nowhere = "redis://127.0.0.1:1/0"
    runtime.queue, runtime.budgets = (
        Queue(nowhere),
        Budgets.open(nowhere, BudgetPolicy(), world.clock.now),
    )
    try:
        found = await status(world, partner)
    finally:
        await runtime.budgets.close()
        runtime.queue, runtime.budgets = queue, known
    assert (found["level"], found["redis"]) == ("down", False)


async def test_trouble_breaker_webhook_import_and_batch_need_a_person(world: World) -> None:
    partner = await world.partner()
    trouble = ConnectionTrouble("access_denied", Said(403))
    now = world.clock.now()
    await access.note_trouble(world.runtime, partner, partner.connection_id, trouble, began=now)

    def opened(known: Budget, now: datetime, _: BudgetPolicy) -> tuple[Budget, None]:
        return replace(known, failures=9, opened=1, open_until=now + timedelta(seconds=50)), None

    await world.runtime.budgets.change(partner.connection_id, world.clock.now, opened)
    response = await world.client.post(
        "/v1/webhook-endpoints", headers=partner.headers, json={"url": "http://127.0.0.1:1/a-secret-path"}
    )
    assert response.status_code == 201, response.text
    await world.select(
        "UPDATE webhook_endpoints SET state = 'degraded', consecutive_failures = 7 RETURNING id"
    )
    await sweep.beat(world.runtime)
    found = await status(world, partner)
    assert found["level"] == "attention"
    [connection] = found["connections"]
    assert (connection["name"], connection["trouble"], connection["breaker"]) == (
        "main",
        "access_denied",
        "open",
    )
    assert datetime.fromisoformat(connection["trouble_since"]) <= world.clock.now()
    assert "partner agreement" in connection["remedy"]
    [endpoint] = found["webhooks"]
    assert (endpoint["host"], endpoint["state"], endpoint["consecutive_failures"]) == (
        "127.0.0.1",
        "degraded",
        7,
    )
    assert "a-secret-path" not in str(found)
    result = await registrar(world, partner, "status")
    assert result.exit_code == 2, result.output
    assert "look Connection main: access_denied for " in line_of(result, "Connection")
    assert line_of(result, "Webhook") == "look Webhook 127.0.0.1 is degraded, 7 failures in a row"
    assert "partner agreement" in result.stdout


async def test_work_that_nobody_takes_up_is_stuck(world: World) -> None:
    partner = await world.partner()
    await world.switch(processing_min_ms=60_000, processing_max_ms=60_000)
    await world.order(partner, tuples(1))
    await batches.advance_next(world.runtime)
    await upload(world, partner, b"serial number,manufacturer,model\nS1,Contoso,Book\n")
    world.clock.advance(minutes=30)
    await sweep.beat(world.runtime)
    found = await status(world, partner)
    assert found["level"] == "attention"
    assert {(each["kind"], each["state"]) for each in found["stuck"]} == {
        ("batch", "submitted"),
        ("import", "uploaded"),
    }
    assert found["imports"]["waiting"] == 1
    result = await registrar(world, partner, "status")
    assert result.exit_code == 2
    assert "is stuck in uploaded for 30 minutes" in line_of(result, "Import")


async def test_an_import_that_is_ready_waits_for_no_worker(world: World) -> None:
    partner = await world.partner()
    await upload(world, partner, b"serial number,manufacturer,model\nS1,Contoso,Book\n")
    await work_imports(world)
    assert (await status(world, partner))["imports"] == {"waiting": 0, "oldest_due_at": None}


async def test_a_database_that_is_away_is_a_status_too(world: World) -> None:
    partner = await world.partner()
    async with world.another(database_url="postgresql://nobody@127.0.0.1:1/none") as other:
        other.app.state.runtime = other.runtime
        try:
            result = await registrar(other, partner, "status")
            document = await registrar(other, partner, "status", "--json")
        finally:
            world.app.state.runtime = world.runtime
    assert result.exit_code == document.exit_code == 1
    assert "DOWN Database" in line_of(result, "Database")
    assert '"level": "down"' in document.stdout


async def test_a_partner_sees_the_service_and_its_own_work_only(world: World) -> None:
    mine, theirs = await world.partner(), await world.partner()
    await sweep.beat(world.runtime)
    await world.order(theirs, tuples(2))
    trouble = ConnectionTrouble("access_denied", Said(403))
    now = world.clock.now()
    await access.note_trouble(world.runtime, theirs, theirs.connection_id, trouble, began=now)
    found = await status(world, mine)
    assert (found["level"], found["work"], found["connections"]) == ("ok", [], [])
    assert world.runtime.presence.worker_id not in str(found), "no name of a machine"
    narrow = await identities.create_key(world.runtime, mine, name="n", scopes=[Scope.WEBHOOKS_READ])
    refused = await world.client.get("/v1/status", headers=replace(mine, key=narrow.secret).headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


async def test_an_endpoint_that_was_deleted_is_no_failing_one(world: World) -> None:
    partner = await world.partner()
    made = await world.client.post(
        "/v1/webhook-endpoints", headers=partner.headers, json={"url": "http://127.0.0.1:1/hooks"}
    )
    deleted = await world.client.delete(f"/v1/webhook-endpoints/{made.json()['id']}", headers=partner.headers)
    assert deleted.status_code == 204, deleted.text
    assert (await status(world, partner))["webhooks"] == []
    async with world.runtime.system_transaction() as tx:
        assert await figures.endpoints(tx) == {}


async def test_a_quota_that_is_nearly_used_up_is_told_and_one_that_is_used_up_needs_a_person(
    world: World,
) -> None:
    partner = await world.partner()
    await sweep.beat(world.runtime)
    assert (await status(world, partner))["quotas"] == []
    for limit, level, code, mark in ((3, "ok", 0, None), (2, "attention", 2, "look Quota")):
        await quotas.change(world.runtime, partner.id, Quota.CUSTOMERS, limit)
        found = await status(world, partner)
        assert found["level"] == level
        assert [each["quota"] for each in found["quotas"]] == (["customers"] if mark else [])
        result = await registrar(world, partner, "status")
        assert result.exit_code == code
        if mark:
            assert line_of(result, "Quota").startswith(f"{mark} customers: 2 of 2 used")
    await quotas.change(world.runtime, partner.id, Quota.CUSTOMERS, 1)
    assert (await status(world, partner))["quotas"][0]["used"] == 2
