"""One partner's endpoints do not delay another's webhooks: turns, shares of the lanes, cheap claims."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import pytest_asyncio
from sqlalchemy import text

from app.db.delivery_claims import DeliveryClaim
from app.db.ids import new_row_ids
from app.domain import endpoint_health
from app.domain.endpoint_health import WINDOW
from app.domain.ids import PartnerId
from app.services.webhooks import deliveries
from tests.support.receiver import Answer, Receiver, open_receiver, subscribe, until
from tests.support.world import World, tuples

FILL = """
WITH p AS (
    INSERT INTO partners (id, name, role, created_at)
    VALUES (:partner, :name, 'direct_bill', :now) RETURNING id
), e AS (
    INSERT INTO webhook_endpoints (id, partner_id, url, event_types, secret, state, consecutive_failures,
        created_at, updated_at)
    SELECT u.id, p.id, 'https://hooks.example.com/', '{}', '', 'enabled', :failures, :now, :now
    FROM p, unnest(CAST(:endpoints AS uuid[])) AS u(id) RETURNING id, partner_id
), v AS (
    INSERT INTO events (id, partner_id, type, occurred_at, data)
    SELECT CAST(:event AS uuid), id, 'endpoint.test', :now,
        jsonb_build_object('endpoint_id', CAST(:event AS uuid), 'message', 'Test')
    FROM p RETURNING id
)
INSERT INTO deliveries (id, partner_id, event_id, endpoint_id, state, due_at, created_at)
SELECT gen_random_uuid(), e.partner_id, v.id, e.id, 'pending', CAST(:now AS timestamptz), :now
FROM e, v, generate_series(1, :each)
"""


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


@dataclass(frozen=True)
class Waiting:
    """A partner with waiting deliveries to endpoints that have not been tried yet."""

    id: PartnerId
    endpoints: list[UUID]


async def waiting(world: World, name: str, *, endpoints: int, each: int, failures: int = 0) -> Waiting:
    partner = Waiting(PartnerId(uuid4()), sorted(new_row_ids(endpoints)))
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text(FILL),
            {
                "partner": partner.id,
                "name": name,
                "endpoints": partner.endpoints,
                "failures": failures,
                "event": uuid4(),
                "each": each,
                "now": world.clock.now(),
            },
        )
    return partner


async def claim_all(world: World) -> list[DeliveryClaim]:
    """Claims deliveries until none can be claimed, without making any."""
    found: list[DeliveryClaim] = []
    while (claim := await deliveries.claim_next(world.runtime)) is not None:
        found.append(claim)
    return found


async def finish(world: World, claim: DeliveryClaim) -> None:
    async with world.runtime.transaction(claim) as tx:
        await tx.session.execute(
            text(
                "UPDATE deliveries SET state = 'succeeded', owner = NULL, lease_until = NULL WHERE id = :id"
            ),
            {"id": claim.id},
        )


def bounds(world: World, workers: int = 1) -> endpoint_health.LaneBounds:
    return endpoint_health.lane_bounds(world.runtime.settings.delivery_lanes * workers)


async def test_partner_alone_leaves_a_quarter_of_the_lanes_to_whoever_comes_next(world: World) -> None:
    attacker = await waiting(world, "A", endpoints=25, each=20)
    assert Counter(claim.partner_id for claim in await claim_all(world)) == {
        attacker.id: bounds(world).one_partner
    }
    neighbour = await waiting(world, "B", endpoints=1, each=1)
    assert [claim.partner_id for claim in await claim_all(world)] == [neighbour.id]


async def test_lane_that_becomes_free_goes_to_the_partner_that_holds_the_fewest(world: World) -> None:
    attacker = await waiting(world, "A", endpoints=25, each=20)
    held = await claim_all(world)
    neighbour = await waiting(world, "B", endpoints=3, each=20)
    for expected in (neighbour.id, neighbour.id, neighbour.id):
        claim = await deliveries.claim_next(world.runtime)
        assert claim is not None
        assert claim.partner_id == expected
        await finish(world, held.pop())
    assert {claim.partner_id for claim in held} == {attacker.id}


async def test_rounds_go_over_partners_and_inside_each_over_its_endpoints(world: World) -> None:
    a = await waiting(world, "A", endpoints=3, each=4)
    b = await waiting(world, "B", endpoints=1, each=4)
    turns: list[tuple[PartnerId, UUID]] = []
    for _ in range(8):
        claim = await deliveries.claim_next(world.runtime)
        assert claim is not None
        turns.append((claim.partner_id, claim.endpoint_id))
        await finish(world, claim)
        world.clock.advance(seconds=0.01)
    of_a = [endpoint for partner, endpoint in turns if partner == a.id]
    assert of_a == [*a.endpoints, a.endpoints[0]]
    assert {turns[n][0] for n in (0, 1)} == {a.id, b.id}
    assert all(turns[n][0] != turns[n + 1][0] for n in range(7)), "in turn"


async def test_endpoints_that_fail_have_few_lanes_and_one_of_each_is_tried_at_a_time(world: World) -> None:
    a = await waiting(world, "A", endpoints=25, each=20, failures=1)
    b = await waiting(world, "B", endpoints=2, each=20, failures=3)
    c = await waiting(world, "C", endpoints=1, each=1)
    claims = await claim_all(world)
    limit = bounds(world)
    held = Counter(claim.partner_id for claim in claims)
    assert held == {a.id: limit.failing_of_one_partner, b.id: limit.failing_of_one_partner, c.id: 1}
    assert held[a.id] + held[b.id] == limit.failing
    assert max(Counter(claim.endpoint_id for claim in claims).values()) == 1


async def test_bounds_hold_over_all_workers_that_claim_at_the_same_moment(world: World) -> None:
    attacker = await waiting(world, "A", endpoints=25, each=20)
    one = await waiting(world, "B", endpoints=1, each=20)

    async def worker(there: World) -> list[DeliveryClaim]:
        return [
            claim for part in await asyncio.gather(*(claim_all(there) for _ in range(3))) for claim in part
        ]

    async with world.another() as other:
        claims = [claim for part in await asyncio.gather(worker(world), worker(other)) for claim in part]
    assert Counter(claim.partner_id for claim in claims) == {
        attacker.id: bounds(world).one_partner,
        one.id: WINDOW,
    }
    assert len({claim.id for claim in claims}) == len(claims)


async def test_each_worker_that_is_alive_brings_its_lanes(world: World) -> None:
    async with world.runtime.system_transaction() as tx:
        for name, age in (("one", 0), ("two", 1), ("gone", 3600)):
            await tx.session.execute(
                text(
                    "INSERT INTO worker_heartbeats (worker_id, started_at, beat_at) VALUES (:name, :at, :at)"
                ),
                {"name": name, "at": world.clock.now() - timedelta(seconds=age)},
            )
    await waiting(world, "A", endpoints=25, each=20)
    assert len(await claim_all(world)) == bounds(world, workers=2).one_partner


async def test_neighbours_webhook_arrives_while_all_of_anothers_endpoints_hang(
    world: World, receiver: Receiver
) -> None:
    attacker, neighbour = await world.partner(consented=False), await world.partner(consented=False)
    forever = asyncio.Event()
    receiver.usual = Answer(hold=forever)
    for number in range(10):
        hanging = await subscribe(world, attacker, receiver.url(f"/hanging/{number}"))
        for _ in range(2):
            path = f"/v1/webhook-endpoints/{hanging.id}:test"
            assert (await world.client.post(path, headers=attacker.headers)).status_code == 202
    lanes = [
        asyncio.create_task(deliveries.deliver_next(world.runtime))
        for _ in range(world.runtime.settings.delivery_lanes)
    ]
    share = bounds(world).one_partner
    await until(lambda: sum(lane.done() for lane in lanes) == len(lanes) - share, patience=45)
    await until(lambda: len(receiver.messages) == share, patience=45)

    receiver.usual = Answer()
    healthy = await subscribe(world, neighbour, receiver.url("/healthy"))
    path = f"/v1/webhook-endpoints/{healthy.id}:test"
    assert (await world.client.post(path, headers=neighbour.headers)).status_code == 202
    assert await deliveries.deliver_next(world.runtime)
    assert len(receiver.of_path("/healthy")) == 1
    forever.set()
    await asyncio.gather(*lanes)


async def test_degraded_endpoint_is_left_alone_for_its_pause_unless_a_person_asks(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    test = f"/v1/webhook-endpoints/{endpoint.id}:test"
    receiver.usual = Answer(500)
    for _ in range(endpoint_health.DEGRADED_AFTER):
        await world.client.post(test, headers=partner.headers)
        await world.deliver()
    made = len(receiver.messages)
    await world.order(partner, tuples(1))
    assert await world.deliver() == 0, "the endpoint has a pause, whatever is due"

    world.clock.advance(seconds=endpoint_health.FIRST_PAUSE.total_seconds() + 1)
    assert await world.deliver() == 1, "one look, which fails and begins the next pause"
    receiver.usual = Answer()
    await world.client.post(test, headers=partner.headers)
    assert await world.deliver() > 1, "all that waited follows the first success"
    assert len(receiver.messages) > made + 2
