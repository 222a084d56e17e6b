"""An order's answer shows why it waits: the same reasons everywhere, with since, until and a remedy."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.domain.budget import Budget, BudgetPolicy
from app.kernel.budgets import Budgets
from app.services.connections import customer_readings
from app.services.operations import sweep
from app.services.registering import batches
from tests.support.portals import TUPLE, portal_partner
from tests.support.statements import sent_by
from tests.support.world import Partner, World, tuples

FIELDS = {"code", "title", "advice", "since", "until", "remedy", "detail", "devices"}


async def get(world: World, partner: Partner, path: str) -> dict[str, Any]:
    response = await world.client.get(f"/v1{path}", headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def waiting_for(world: World, partner: Partner, order_id: UUID) -> list[dict[str, Any]]:
    """The order's reasons, after comparing all places that must show the same, at one moment."""
    looked_at = world.clock.now()
    world.runtime.now = lambda: looked_at
    try:
        return await _compared(world, partner, order_id)
    finally:
        world.runtime.now = world.clock.now


async def _compared(world: World, partner: Partner, order_id: UUID) -> list[dict[str, Any]]:
    order = await get(world, partner, f"/orders/{order_id}")
    reasons: list[dict[str, Any]] = order["waiting_for"]
    listed = await get(world, partner, "/orders")
    assert next(each for each in listed["items"] if each["id"] == str(order_id))["waiting_for"] == reasons
    of_batches = (await get(world, partner, f"/orders/{order_id}/batches"))["items"]
    assert of_batches == (await get(world, partner, f"/batches?order_id={order_id}"))["items"]
    assert {each["code"] for batch in of_batches for each in batch["waiting_for"]} == {
        each["code"] for each in reasons
    }
    for batch in of_batches:
        assert (await get(world, partner, f"/batches/{batch['id']}"))["waiting_for"] == batch["waiting_for"]
    assert all(set(each) == FIELDS for each in reasons)
    return reasons


async def place(world: World, partner: Partner, count: int = 2, **fields: Any) -> UUID:
    await sweep.beat(world.runtime)
    order = await world.order(partner, tuples(count), **fields)
    return UUID(str(order.view.record.id))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def change_budget(world: World, partner: Partner, **changes: Any) -> None:
    def decide(known: Budget, _: datetime, __: BudgetPolicy) -> tuple[Budget, None]:
        return replace(known, **changes), None

    await world.runtime.budgets.change(partner.connection_id, world.clock.now, decide)


async def test_a_revoked_credential_is_what_the_order_waits_for(world: World) -> None:
    partner, other = await world.partner(), await world.partner()
    await world.arm({"operation": "token", "kind": "entra", "aadsts": 50173, "count": None})
    world.runtime.token_cache.tokens.clear()
    order_id = await place(world, partner, 3)
    await batches.advance_next(world.runtime)
    [reason] = await waiting_for(world, partner, order_id)
    assert (reason["code"], reason["advice"], reason["devices"]) == ("sign_in_revoked", "person", 3)
    assert "50173" in reason["detail"]
    assert "`PATCH /v1/connections/{id}`" in reason["remedy"]
    assert moment(reason["since"]) <= world.clock.now()
    assert reason["until"] is None
    later = await place(world, partner, 1)
    [same] = await waiting_for(world, partner, later)
    assert same["code"] == "sign_in_revoked", "also what has not met the trouble itself"
    assert [each["code"] for each in await waiting_for(world, other, await place(world, other))] == [
        "waiting_for_turn"
    ]


async def test_consent_that_is_missing_or_was_taken_back_is_told_in_answers_and_events(world: World) -> None:
    partner = await world.partner()
    await sweep.beat(world.runtime)
    response = await world.post_order(
        partner,
        [{"serial_number": "A1", "manufacturer": "Contoso", "model": "Book"}],
        customer_id=str(partner.other_customer_id),
    )
    accepted = response.json()
    order_id = UUID(accepted["id"])
    [reason] = await waiting_for(world, partner, order_id)
    assert accepted["waiting_for"] == [reason]
    assert (reason["code"], reason["devices"], reason["until"]) == ("consent_missing", 1, None)
    told = await world.select("SELECT type, data FROM events WHERE order_id = :id", id=order_id)
    assert {event["type"] for event in told} == {"order.accepted", "order.held"}
    assert [event["data"]["waiting_for"] for event in told] == [[reason], [reason]]

    going = await place(world, partner)
    await world.set_consent(partner.tenant_id, given=False)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    [reason] = await waiting_for(world, partner, going)
    assert reason["code"] == "consent_revoked"


async def test_without_a_living_worker_everything_waits_for_one(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2), customer_id=partner.other_customer_id)
    order_id = UUID(str(order.view.record.id))
    none, consent = await waiting_for(world, partner, order_id)
    assert (none["code"], none["since"], none["devices"]) == ("no_worker_alive", None, 2)
    assert "registrar worker" in none["remedy"]
    assert consent["code"] == "consent_missing"
    await sweep.beat(world.runtime)
    seen = world.clock.now()
    assert [each["code"] for each in await waiting_for(world, partner, order_id)] == ["consent_missing"]
    world.clock.advance(minutes=5)
    silent, _ = await waiting_for(world, partner, order_id)
    assert abs(moment(silent["since"]) - seen) < timedelta(seconds=5)


async def test_a_redis_that_is_away_is_told(world: World) -> None:
    partner = await world.partner()
    order_id = await place(world, partner)
    settings = world.runtime.settings
    known, lost = (
        world.runtime.budgets,
        Budgets.open("redis://127.0.0.1:1/0", BudgetPolicy(), world.clock.now),
    )
    world.runtime.budgets = lost
    try:
        found = await get(world, partner, f"/orders/{order_id}")
    finally:
        world.runtime.budgets = known
        await lost.close()
    assert settings.redis_url is not None
    [reason] = found["waiting_for"]
    assert (reason["code"], reason["advice"]) == ("redis_unavailable", "person")
    assert world.clock.now() - moment(reason["since"]) < timedelta(seconds=10)


async def test_retry_after_breaker_and_rate_are_told_with_their_ends(world: World) -> None:
    partner = await world.partner()
    order_id = await place(world, partner)
    now = world.clock.now()
    until = now + timedelta(seconds=90)
    await change_budget(world, partner, throttled_at=now, blocked_until=until)
    [reason] = await waiting_for_now(world, partner, order_id)
    assert (reason["code"], reason["advice"]) == ("upstream_throttled", "retry")
    assert abs(moment(reason["until"]) - until) < timedelta(seconds=2)
    assert abs(moment(reason["since"]) - now) < timedelta(seconds=2)

    await change_budget(
        world, partner, blocked_until=None, failures=5, opened=1, open_until=now + timedelta(seconds=30)
    )
    [reason] = await waiting_for_now(world, partner, order_id)
    assert reason["code"] == "upstream_unavailable"
    assert moment(reason["since"]) < moment(reason["until"])

    await change_budget(world, partner, opened=0, open_until=None, tokens=-500.0)
    [reason] = await waiting_for_now(world, partner, order_id)
    assert (reason["code"], reason["advice"]) == ("call_rate_used_up", "none")


async def waiting_for_now(world: World, partner: Partner, order_id: UUID) -> list[dict[str, Any]]:
    """The reasons at one moment: ends that are computed from now differ from call to call."""
    reasons: list[dict[str, Any]] = (await get(world, partner, f"/orders/{order_id}"))["waiting_for"]
    return reasons


async def test_what_waits_for_its_group_tag_names_the_batch_that_creates_it(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "status", "status": 503, "count": None})
    first = await place(world, partner)
    await batches.advance_next(world.runtime)
    second = await place(world, partner)
    await batches.advance_next(world.runtime)
    [creating] = await world.batches(first)
    [reason] = await waiting_for(world, partner, second)
    assert reason["code"] == "group_tag_being_created"
    assert str(creating["id"]) in reason["detail"]
    assert moment(reason["since"]) <= world.clock.now()


async def test_an_answer_that_was_lost_is_told_as_being_looked_up(world: World) -> None:
    partner = await world.partner()
    await world.arm({"operation": "create", "kind": "drop", "phase": "after"})
    order_id = await place(world, partner)
    before = world.clock.now()
    await batches.advance_next(world.runtime)
    [reason] = await waiting_for(world, partner, order_id)
    assert (reason["code"], reason["advice"]) == ("outcome_being_looked_up", "none")
    assert moment(reason["since"]) >= before - timedelta(seconds=1)
    assert moment(reason["until"]) > world.clock.now()
    await world.work()
    assert await waiting_for(world, partner, order_id) == [], "it is over"


async def test_what_microsoft_processes_is_told_and_counts_only_what_has_no_outcome(world: World) -> None:
    partner = await world.partner()
    await world.switch(processing_min_ms=60_000, processing_max_ms=60_000)
    order_id = await place(world, partner)
    await batches.advance_next(world.runtime)
    [reason] = await waiting_for(world, partner, order_id)
    counts = (await get(world, partner, f"/orders/{order_id}"))["counts"]
    assert (reason["code"], reason["devices"]) == ("processing_at_microsoft", counts["processing"])


async def test_a_portal_order_waits_for_a_person_and_for_no_worker(world: World) -> None:
    person = await portal_partner(world, consented=False)
    order = await person.order([TUPLE])
    assert [each["code"] for each in order["waiting_for"]] == ["consent_missing"]
    await person.consent()
    [reason] = (await person.view(order))["waiting_for"]
    assert (reason["code"], reason["advice"], reason["devices"]) == ("portal_upload_due", "person", 1)
    assert "registrar portal files" in reason["remedy"]
    [file] = await person.files(order)
    await person.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    assert [each["code"] for each in (await person.view(order))["waiting_for"]] == ["portal_outcome_due"]


async def test_another_partner_has_no_view_of_the_batches_of_an_order(world: World) -> None:
    mine, theirs = await world.partner(), await world.partner()
    order_id = await place(world, theirs)
    response = await world.client.get(f"/v1/orders/{order_id}/batches", headers=mine.headers)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def statements_of(world: World, partner: Partner, path: str) -> int:
    """The number of statements that one GET sends to the database."""
    async with sent_by(world.runtime.engine) as sent:
        await get(world, partner, path)
    return len(sent.trips)


async def test_a_look_costs_the_same_however_many_batches_an_order_has_and_orders_a_list(
    world: World,
) -> None:
    partner = await world.partner()
    small = await place(world, partner)
    await statements_of(world, partner, f"/orders/{small}")  # opens the pool's first connection
    alone = await statements_of(world, partner, f"/orders/{small}")
    listed = await statements_of(world, partner, "/orders")
    tags = [device for n in range(30) for device in tuples(1, f"T{n}", group_tag=f"Tag {n}")]
    large = (await world.order(partner, tags)).view.record.id
    assert len((await get(world, partner, f"/orders/{large}/batches"))["items"]) == 30
    [reason] = (await get(world, partner, f"/orders/{large}"))["waiting_for"]
    assert (reason["code"], reason["devices"]) == ("waiting_for_turn", 30)
    assert await statements_of(world, partner, f"/orders/{large}") == alone
    assert await statements_of(world, partner, "/orders") == listed


async def test_an_order_that_is_over_costs_no_look_at_what_it_could_wait_for(world: World) -> None:
    partner = await world.partner()
    order_id = await place(world, partner)
    await statements_of(world, partner, f"/orders/{order_id}")
    waiting = await statements_of(world, partner, f"/orders/{order_id}")
    await world.work()
    assert await statements_of(world, partner, f"/orders/{order_id}") < waiting
