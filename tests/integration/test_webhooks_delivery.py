"""Delivering webhooks: the ladder of retries, the endpoint's health, races, crashes and refusals."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text

from app.db.engine import open_engine
from app.domain import endpoint_health
from app.domain.address import Allowance
from app.domain.schedule import SPREAD, WEBHOOK_LADDER
from app.kernel import handover
from app.kernel.outbound import Outbound
from app.kernel.secrets import Secrets
from app.runtime import Runtime
from app.services.operations import sweep
from app.services.webhooks import deliveries
from tests.support.line import line_to_postgres
from tests.support.receiver import Answer, Endpoint, Receiver, open_receiver, subscribe, until
from tests.support.world import Partner, World, tuples
from tests.unit.test_outbound import OK, Authority, receiving
from tests.unit.test_outbound import authority as authority  # the fixture


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


@asynccontextmanager
async def outbound(world: World, **arguments: Any) -> AsyncIterator[Runtime]:
    """A runtime with other outbound rules, for example without the tests' allowance for loopback."""
    client = Outbound.build(**arguments)
    try:
        yield replace(world.runtime, outbound=client)
    finally:
        await client.close()


async def tell(world: World, partner: Partner, endpoint: Endpoint) -> str:
    """Queues a test event; returns the id of its delivery."""
    response = await world.client.post(f"/v1/webhook-endpoints/{endpoint.id}:test", headers=partner.headers)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


async def delivery(world: World, partner: Partner, id: str) -> dict[str, Any]:
    response = await world.client.get(f"/v1/webhook-deliveries/{id}", headers=partner.headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def endpoint_of(world: World, partner: Partner, endpoint: Endpoint) -> dict[str, Any]:
    response = await world.client.get(f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers)
    found: dict[str, Any] = response.json()
    return found


async def set_state(world: World, partner: Partner, endpoint: Endpoint, state: str) -> None:
    response = await world.client.patch(
        f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers, json={"state": state}
    )
    assert response.status_code == 200, response.text


# --- the ladder -----------------------------------------------------------------------------------


async def test_a_dead_receiver_is_tried_ten_times_on_the_ladder_and_then_given_up(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())
    receiver.usual = Answer(500, body=b"<html>Database down</html>")
    id = await tell(world, partner, endpoint)

    for attempt, pause in enumerate(WEBHOOK_LADDER[1:], start=1):
        assert await world.deliver() == 1
        found = await delivery(world, partner, id)
        assert (found["state"], found["attempts"]) == ("retrying", attempt)
        due = datetime.fromisoformat(found["due_at"])
        made = receiver.messages[-1].at
        assert pause * (1 - SPREAD) <= due - made <= pause * (1 + SPREAD) + timedelta(seconds=2)
        world.clock.reach(due - timedelta(seconds=2))
        assert await world.deliver() == 0, "not before it is due"
        world.clock.reach(due + timedelta(milliseconds=1))
    assert await world.deliver() == 1

    found = await delivery(world, partner, id)
    assert (found["state"], found["attempts"], found["due_at"]) == ("exhausted", 10, None)
    assert len(found["attempt_log"]) == 10
    assert {(row["status"], row["kind"]) for row in found["attempt_log"]} == {(500, "rejected")}
    assert found["attempt_log"][0]["excerpt"] == "<html>Database down</html>"
    world.clock.advance(days=10)
    assert await world.deliver() == 0
    assert len(receiver.messages) == 10
    assert len({(m.id, m.body) for m in receiver.messages}) == 1, "the same event, the same bytes"
    assert len({m.headers["webhook-timestamp"] for m in receiver.messages}) >= 9, "signed at each attempt"
    for message in receiver.messages:
        message.verify(endpoint.secret)


@pytest.mark.parametrize(
    "status, kind",
    [(301, "rejected"), (302, "rejected"), (307, "rejected"), (400, "rejected"), (401, "rejected"),
     (404, "rejected"), (429, "rejected"), (503, "rejected")],
)  # fmt: skip
async def test_nothing_but_2xx_is_success(world: World, receiver: Receiver, status: int, kind: str) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url("/first"))
    receiver.script.append(Answer(status, {"Location": receiver.url("/elsewhere")}))
    id = await tell(world, partner, endpoint)
    await world.deliver()

    found = await delivery(world, partner, id)
    assert (found["state"], found["last_status"], found["last_kind"]) == ("retrying", status, kind)
    assert receiver.of_path("/elsewhere") == [], "a redirect is not followed"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_2xx_is_success(world: World, receiver: Receiver, status: int) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    receiver.usual = Answer(status, body=b"")
    id = await tell(world, partner, endpoint)
    await world.deliver()
    found = await delivery(world, partner, id)
    assert (found["state"], found["last_status"], found["due_at"]) == ("succeeded", status, None)
    assert found["settled_at"] is not None


async def test_retry_after_is_honoured_and_can_not_park_a_delivery_for_weeks(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    receiver.script += [Answer(503, {"Retry-After": "45"}), Answer(429, {"Retry-After": str(30 * 86400)})]
    id = await tell(world, partner, endpoint)

    await world.deliver()
    found = await delivery(world, partner, id)
    pause = datetime.fromisoformat(found["due_at"]) - receiver.messages[-1].at
    assert timedelta(seconds=44) <= pause <= timedelta(seconds=45 * (1 + SPREAD) + 2)
    world.clock.reach(datetime.fromisoformat(found["due_at"]) + timedelta(milliseconds=1))

    await world.deliver()
    found = await delivery(world, partner, id)
    pause = datetime.fromisoformat(found["due_at"]) - receiver.messages[-1].at
    assert timedelta(minutes=5) <= pause <= timedelta(minutes=12), "at most twice our own five minutes"


async def test_410_disables_the_endpoint_and_ends_everything_that_waits_for_it(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url("/gone"))
    bystander = await subscribe(world, partner, receiver.url("/bystander"))
    first, second = await tell(world, partner, endpoint), await tell(world, partner, endpoint)
    receiver.script.append(Answer(410))
    await world.deliver()

    assert (await endpoint_of(world, partner, endpoint))["state"] == "disabled"
    assert (await endpoint_of(world, partner, bystander))["state"] == "enabled"
    assert (await delivery(world, partner, first))["last_kind"] == "gone"
    for id in (first, second):
        assert (await delivery(world, partner, id))["state"] == "exhausted"
    assert len(receiver.messages) == 1
    await world.order(partner, tuples(1))
    await world.deliver()
    assert len(receiver.of_path("/gone")) == 1, "nothing new goes there"
    assert len(receiver.of_path("/bystander")) > 0


async def test_a_receiver_that_hangs_is_a_timeout_and_is_tried_again(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    forever = asyncio.Event()
    receiver.script.append(Answer(hold=forever))
    id = await tell(world, partner, endpoint)
    allowed = world.runtime.outbound._allowed
    async with outbound(world, timeout=0.2, allowed=allowed, allow_http=True) as impatient:
        assert await deliveries.deliver_next(impatient)
    forever.set()
    found = await delivery(world, partner, id)
    assert (found["state"], found["last_kind"], found["last_status"]) == ("retrying", "timeout", None)
    assert "did not answer" in found["attempt_log"][0]["excerpt"]


async def test_a_companys_own_authority_is_trusted_where_its_file_is_named(
    world: World, authority: Authority
) -> None:
    partner = await world.partner(consented=False)
    async with receiving(OK, authority.server) as there:
        endpoint = await subscribe(world, partner, f"https://127.0.0.1:{there.port}/hook")
        id = await tell(world, partner, endpoint)
        await world.deliver()
        assert (await delivery(world, partner, id))["last_kind"] == "tls"
        world.clock.advance(seconds=10)
        async with world.another(webhook_ca_file=authority.ca_file) as trusting:
            assert await trusting.deliver() == 1
        assert (await delivery(world, partner, id))["state"] == "succeeded"


async def test_a_receiver_that_is_not_there_is_unreachable(world: World) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, "http://127.0.0.1:1/hook")
    id = await tell(world, partner, endpoint)
    await world.deliver()
    assert (await delivery(world, partner, id))["last_kind"] == "unreachable"


# --- the endpoint's health ------------------------------------------------------------------------


async def test_five_failures_degrade_an_endpoint_which_is_still_tried_and_a_success_mends_it(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    receiver.script += [Answer(500)] * 5
    for _ in range(5):
        assert (await endpoint_of(world, partner, endpoint))["state"] == "enabled"
        await tell(world, partner, endpoint)
        await world.deliver()
    found = await endpoint_of(world, partner, endpoint)
    assert (found["state"], found["consecutive_failures"]) == ("degraded", 5)

    await tell(world, partner, endpoint)
    await world.deliver()
    found = await endpoint_of(world, partner, endpoint)
    assert (found["state"], found["consecutive_failures"]) == ("enabled", 0)


async def test_failures_at_the_same_moment_are_all_counted(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    together = asyncio.Event()
    receiver.usual = Answer(500, hold=together)
    for _ in range(4):
        await tell(world, partner, endpoint)
    running = [asyncio.create_task(deliveries.deliver_next(world.runtime)) for _ in range(4)]
    await until(lambda: len(receiver.messages) == 4)
    together.set()
    await asyncio.gather(*running)
    assert (await endpoint_of(world, partner, endpoint))["consecutive_failures"] == 4


async def test_a_disabled_endpoint_gets_nothing_by_any_way(world: World, receiver: Receiver) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())
    waiting = await tell(world, partner, endpoint)
    await set_state(world, partner, endpoint, "disabled")
    assert (await delivery(world, partner, waiting))["state"] == "exhausted"
    for path in (f"webhook-endpoints/{endpoint.id}:test", f"webhook-deliveries/{waiting}:redeliver"):
        refused = await world.client.post(f"/v1/{path}", headers=partner.headers)
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    await world.order(partner, tuples(1))
    await world.work()
    # A delivery that was stored while the endpoint was being disabled.
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE deliveries SET state = 'pending', settled_at = NULL WHERE id = :id"),
            {"id": UUID(waiting)},
        )
    await world.deliver()
    assert receiver.connections == 0
    assert (await delivery(world, partner, waiting))["state"] == "exhausted"

    await set_state(world, partner, endpoint, "enabled")
    again = await world.client.post(f"/v1/webhook-deliveries/{waiting}:redeliver", headers=partner.headers)
    assert again.status_code == 202
    await world.deliver()
    assert (await delivery(world, partner, waiting))["state"] == "succeeded"


@pytest.mark.parametrize("status", [200, 500])
async def test_an_attempt_that_ends_after_the_endpoint_was_disabled_does_not_enable_it(
    world: World, receiver: Receiver, status: int
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    held = asyncio.Event()
    receiver.usual = Answer(status, hold=held)
    id = await tell(world, partner, endpoint)
    under_way = asyncio.create_task(deliveries.deliver_next(world.runtime))
    await until(lambda: receiver.messages)
    await set_state(world, partner, endpoint, "disabled")
    held.set()
    assert await under_way

    assert (await endpoint_of(world, partner, endpoint))["state"] == "disabled"
    found = await delivery(world, partner, id)
    assert found["state"] == "exhausted"
    assert [row["status"] for row in found["attempt_log"]] == [status], "made, so it is in the log"
    world.clock.advance(days=1)
    assert await world.deliver() == 0


async def test_a_deleted_endpoint_gets_nothing_and_its_deliveries_stay_readable(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner()
    endpoint = await subscribe(world, partner, receiver.url())
    held = asyncio.Event()
    receiver.usual = Answer(hold=held)
    sent = await tell(world, partner, endpoint)
    waiting = await tell(world, partner, endpoint)
    under_way = asyncio.create_task(deliveries.deliver_next(world.runtime))
    await until(lambda: receiver.messages)
    gone = await world.client.delete(f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers)
    assert gone.status_code == 204
    held.set()
    assert await under_way
    await world.order(partner, tuples(1))
    await world.work()
    await world.deliver()

    assert len(receiver.messages) == 1
    for id, attempts in ((sent, 1), (waiting, 0)):
        found = await delivery(world, partner, id)
        assert (found["state"], len(found["attempt_log"])) == ("exhausted", attempts)
        again = await world.client.post(f"/v1/webhook-deliveries/{id}:redeliver", headers=partner.headers)
        assert (again.status_code, again.json()["code"]) == (409, "invalid_state")
        assert "deleted" in again.json()["detail"]
    path = f"/v1/webhook-endpoints/{endpoint.id}"
    listed = await world.client.get(f"{path}/deliveries", headers=partner.headers)
    assert {item["id"] for item in listed.json()["items"]} == {sent, waiting}
    for method, verb in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", ":test"),
        ("POST", ":rotate-secret"),
    ):
        answer = await world.client.request(
            method,
            path + verb,
            headers=partner.headers,
            json={"state": "enabled"} if method == "PATCH" else None,
        )
        assert answer.status_code == 404, (method, verb)
    every = await world.client.get("/v1/webhook-endpoints", headers=partner.headers)
    assert every.json()["items"] == []
    assert [row["secret"] for row in await world.select("SELECT secret FROM webhook_endpoints")] == [b""]


async def test_a_deleted_endpoint_goes_with_the_last_of_its_deliveries(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    other = await subscribe(world, partner, receiver.url())
    await tell(world, partner, endpoint)
    await world.client.delete(f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers)
    world.clock.advance(hours=2)
    await sweep.tidy(world.runtime)
    assert await world.count("webhook_endpoints") == 2
    world.clock.advance(days=world.runtime.settings.event_retention_days)
    await sweep.tidy(world.runtime)
    left = await world.select("SELECT id FROM webhook_endpoints")
    assert [row["id"] for row in left] == [other.id]
    assert await world.count("deleted_webhook_endpoints") == 0


async def test_what_was_written_while_the_endpoint_was_being_deleted_ends_like_the_rest(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    await world.client.delete(f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers)
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text("UPDATE deliveries SET state = 'pending', settled_at = NULL"))
    await world.deliver()
    assert receiver.messages == []
    assert (await delivery(world, partner, id))["state"] == "exhausted"


async def test_a_delivery_shows_the_body_to_the_letter_before_and_after_it_is_sent(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    before = (await delivery(world, partner, id))["payload"]
    await world.deliver()
    assert [before.encode()] == [message.body for message in receiver.messages]
    assert (await delivery(world, partner, id))["payload"] == before


async def test_a_changed_url_counts_from_the_next_attempt(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url("/old"))
    receiver.script.append(Answer(500))
    id = await tell(world, partner, endpoint)
    await world.deliver()
    changed = await world.client.patch(
        f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers, json={"url": receiver.url("/new")}
    )
    assert changed.status_code == 200
    world.clock.advance(seconds=10)
    await world.deliver()
    assert [m.path for m in receiver.messages] == ["/old", "/new"]
    assert (await delivery(world, partner, id))["state"] == "succeeded"


# --- again ----------------------------------------------------------------------------------------


async def test_redelivering_sends_the_same_event_again_from_the_start_of_the_ladder(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    await world.deliver()
    receiver.script.append(Answer(500))
    again = await world.client.post(f"/v1/webhook-deliveries/{id}:redeliver", headers=partner.headers)
    assert (again.status_code, again.json()["state"], again.json()["attempts"]) == (202, "pending", 0)
    await world.deliver()
    found = await delivery(world, partner, id)
    assert (found["state"], found["attempts"]) == ("retrying", 1)
    world.clock.advance(seconds=10)
    await world.deliver()

    found = await delivery(world, partner, id)
    assert (found["state"], found["attempts"], len(found["attempt_log"])) == ("succeeded", 2, 3)
    assert {m.id for m in receiver.messages} == {found["event_id"]}
    assert len({m.body for m in receiver.messages}) == 1


async def test_workers_that_race_for_a_delivery_send_it_once(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    ids = [await tell(world, partner, endpoint) for _ in range(6)]

    async def worker() -> int:
        made = 0
        while await deliveries.deliver_next(world.runtime):
            made += 1
        return made

    made = await asyncio.gather(*(worker() for _ in range(8)))
    await world.deliver()
    assert sum(made) <= 6
    assert len(receiver.messages) == 6
    assert len({m.id for m in receiver.messages}) == 6
    for id in ids:
        found = await delivery(world, partner, id)
        assert (found["state"], found["attempts"]) == ("succeeded", 1)


async def test_a_crash_between_sending_and_recording_sends_again_with_the_same_id(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "PAUSES", (0.0,))  # a killed process does not retry for seconds
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    dying = replace(world.runtime)
    held = asyncio.Event()
    receiver.script.append(Answer(hold=held))
    under_way = asyncio.create_task(deliveries.deliver_next(dying))
    await until(lambda: receiver.messages)
    # From here on this worker no longer reaches the database, as if it had been killed.
    dying.engine = open_engine("postgresql://nobody@127.0.0.1:1/nowhere", pool_size=1, name="dead")
    held.set()
    with pytest.raises(OSError):
        await under_way
    await dying.engine.dispose()

    assert (await delivery(world, partner, id))["state"] == "pending"
    assert await world.deliver() == 0, "the lease still holds"
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    assert await world.deliver() == 1
    assert len(receiver.messages) == 2
    assert len({(m.id, m.body) for m in receiver.messages}) == 1
    assert (await delivery(world, partner, id))["state"] == "succeeded"


async def test_a_moment_without_the_database_costs_a_delivery_no_lease(
    world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    held = asyncio.Event()
    receiver.script.append(Answer(hold=held))
    async with (
        line_to_postgres(str(world.runtime.settings.database_url)) as line,
        world.another(database_url=line.url) as other,
    ):
        runtime = replace(other.runtime, outbound=world.runtime.outbound)
        under_way = asyncio.create_task(deliveries.deliver_next(runtime))
        await until(lambda: receiver.messages)
        line.cut()
        held.set()
        while "delivery_not_handed_over" not in caplog.text:
            assert not under_way.done()
            await asyncio.sleep(0.01)
        line.mend()
        with suppress(OSError):  # raised for the lane, which tries again
            await under_way
    assert await world.deliver() == 1, "without waiting for the lease"
    assert (await delivery(world, partner, id))["state"] == "succeeded"
    assert len({(m.id, m.body) for m in receiver.messages}) == 1


async def test_a_worker_that_is_told_to_stop_hands_its_delivery_over_at_once(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    forever = asyncio.Event()
    receiver.script.append(Answer(hold=forever))
    under_way = asyncio.create_task(deliveries.deliver_next(world.runtime))
    await until(lambda: receiver.messages)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    forever.set()
    assert await world.deliver() == 1, "without waiting for the lease"
    assert (await delivery(world, partner, id))["state"] == "succeeded"


async def test_a_worker_that_comes_back_after_its_lease_does_not_undo_what_was_done_since(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    held = asyncio.Event()
    receiver.script.append(Answer(500, hold=held))
    slow = asyncio.create_task(deliveries.deliver_next(world.runtime))
    await until(lambda: receiver.messages)
    world.clock.advance(seconds=world.runtime.settings.lease_s + 1)
    assert await world.deliver() == 1
    held.set()
    await slow

    found = await delivery(world, partner, id)
    assert (found["state"], found["attempts"]) == ("succeeded", 1)
    assert sorted(row["status"] for row in found["attempt_log"]) == [200, 500]


async def test_one_endpoint_that_hangs_does_not_hold_up_the_others(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    hanging = await subscribe(world, partner, receiver.url("/hanging"))
    forever = asyncio.Event()
    for _ in range(20):
        await tell(world, partner, hanging)
    receiver.usual = Answer(hold=forever)
    lanes = [asyncio.create_task(deliveries.deliver_next(world.runtime)) for _ in range(8)]
    window = endpoint_health.WINDOW
    await until(lambda: sum(lane.done() for lane in lanes) == 8 - window)
    await until(lambda: len(receiver.of_path("/hanging")) == window)

    receiver.usual = Answer()
    healthy = await subscribe(world, partner, receiver.url("/healthy"))
    ids = [await tell(world, partner, healthy) for _ in range(5)]
    assert await world.deliver() == 5
    for id in ids:
        assert (await delivery(world, partner, id))["state"] == "succeeded"
    forever.set()
    await asyncio.gather(*lanes)


async def test_an_endpoint_that_failed_is_tried_by_one_worker_at_a_time(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    receiver.script.append(Answer(500))
    await tell(world, partner, endpoint)
    await world.deliver()
    for _ in range(3):
        await tell(world, partner, endpoint)
    held = asyncio.Event()
    receiver.usual = Answer(hold=held)
    first = asyncio.create_task(deliveries.deliver_next(world.runtime))
    await until(lambda: len(receiver.messages) == 2)
    assert await deliveries.deliver_next(world.runtime) is False
    held.set()
    assert await first
    assert await world.deliver() == 2


async def test_a_secret_that_no_key_opens_is_an_attempt_that_failed_and_stops_no_worker(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    id = await tell(world, partner, endpoint)
    keyless = replace(world.runtime, secrets=Secrets([b"k" * 32]))
    assert await deliveries.deliver_next(keyless)
    found = await delivery(world, partner, id)
    assert (found["state"], found["last_kind"]) == ("retrying", "unsigned")
    assert receiver.connections == 0


# --- where webhooks may not go --------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.7/hook",
        "https://172.16.4.4/hook",
        "https://192.168.1.1/hook",
        "https://127.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:127.0.0.1]/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00:ec2::254]/",
        "https://0.0.0.0/hook",
        "https://2130706433/hook",
        "https://0x7f.1/hook",
        "https://user:secret@hooks.example.com/hook",
        "http://hooks.example.com/hook",
        "https://hooks.example.com:22/hook",
        "ftp://hooks.example.com/hook",
        "file:///etc/passwd",
        "https://hooks.example.com/#fragment",
        "https://hooks.example.com/ blank",
        "not a url",
    ],
)
async def test_a_url_that_leads_inwards_is_refused_when_given_and_when_changed(
    world: World, url: str
) -> None:
    partner = await world.partner(consented=False)
    async with outbound(world) as strict:
        world.app.state.runtime = strict
        try:
            made = await world.client.post(
                "/v1/webhook-endpoints", headers=partner.headers, json={"url": url}
            )
            good = await subscribe(world, partner, "https://hooks.example.com/registrar")
            changed = await world.client.patch(
                f"/v1/webhook-endpoints/{good.id}", headers=partner.headers, json={"url": url}
            )
        finally:
            world.app.state.runtime = world.runtime
    for refused in (made, changed):
        assert (refused.status_code, refused.json()["code"]) == (422, "url_refused"), refused.text
        assert refused.json()["errors"][0]["pointer"] == "/url"
    assert (await endpoint_of(world, partner, good))["url"] == "https://hooks.example.com/registrar"


async def test_cloud_metadata_stays_out_of_reach_even_where_its_network_is_allowed(world: World) -> None:
    partner = await world.partner(consented=False)
    async with outbound(world, allowed=[Allowance.parse("169.254.0.0/16")], allow_http=True) as wide:
        world.app.state.runtime = wide
        try:
            refused = await world.client.post(
                "/v1/webhook-endpoints",
                headers=partner.headers,
                json={"url": "http://169.254.169.254/latest"},
            )
        finally:
            world.app.state.runtime = world.runtime
    assert (refused.status_code, refused.json()["code"]) == (422, "url_refused")


async def test_a_name_that_turns_inwards_after_it_was_accepted_is_not_called(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, f"http://rebound.example.test:{receiver.port}/hook")
    id = await tell(world, partner, endpoint)
    answers: list[Sequence[str]] = [["127.0.0.1"], ["203.0.113.5", "127.0.0.1"], ["169.254.169.254"]]

    async def resolve(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    async with outbound(world, allow_http=True, resolve=resolve) as strict:
        while answers:
            assert await deliveries.deliver_next(strict)
            world.clock.advance(hours=1)
    assert receiver.connections == 0
    found = await delivery(world, partner, id)
    assert (found["state"], found["attempts"]) == ("retrying", 3)
    assert {row["kind"] for row in found["attempt_log"]} == {"refused_address"}
    assert "127.0.0.1" not in str(found), "where the name leads is the operator's to know"
