"""Rotating a signing secret: receivers can verify every webhook throughout."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
import standardwebhooks
from sqlalchemy import text

from app.services.operations import sweep
from app.services.webhooks.endpoint_secrets import MAX_SECRETS
from tests.integration.test_api_bad_input import problem_of
from tests.support.receiver import Endpoint, Message, Receiver, open_receiver, subscribe
from tests.support.world import Partner, World

NOT_VERIFIED = standardwebhooks.webhooks.WebhookVerificationError


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


async def rotate(
    world: World, partner: Partner, endpoint: Endpoint, body: Any = None, **headers: str
) -> httpx.Response:
    path = f"/v1/webhook-endpoints/{endpoint.id}:rotate-secret"
    return await world.client.post(path, headers={**partner.headers, **headers}, json=body)


async def told(world: World, partner: Partner, endpoint: Endpoint, receiver: Receiver) -> Message:
    """The message of a test event."""
    await world.client.post(f"/v1/webhook-endpoints/{endpoint.id}:test", headers=partner.headers)
    await world.deliver()
    return receiver.messages[-1]


async def test_both_secrets_sign_for_the_stated_time_and_then_the_new_one_alone(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    began = world.clock.now()
    response = await rotate(world, partner, endpoint, {"overlap_seconds": 3600})
    assert response.status_code == 200, response.text
    new = response.json()["secret"]
    assert new != endpoint.secret
    until = datetime.fromisoformat(response.json()["previous_secret_until"])
    assert timedelta(seconds=3599) < until - began < timedelta(seconds=3610)

    message = await told(world, partner, endpoint, receiver)
    message.verify(new)
    message.verify(endpoint.secret)
    assert len(message.headers["webhook-signature"].split(" ")) == 2
    shown = await world.client.get(f"/v1/webhook-endpoints/{endpoint.id}", headers=partner.headers)
    assert "whsec_" not in shown.text

    world.clock.reach(until)
    message = await told(world, partner, endpoint, receiver)
    message.verify(new)
    with pytest.raises(NOT_VERIFIED):
        message.verify(endpoint.secret)


async def test_without_a_body_the_overlap_is_a_day(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    began = world.clock.now()
    until = datetime.fromisoformat((await rotate(world, partner, endpoint)).json()["previous_secret_until"])
    assert abs(until - began - timedelta(days=1)) < timedelta(seconds=10)


async def test_no_overlap_ends_every_older_secret_at_once(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    second = (await rotate(world, partner, endpoint)).json()["secret"]
    third = (await rotate(world, partner, endpoint, {"overlap_seconds": 0})).json()["secret"]
    message = await told(world, partner, endpoint, receiver)
    message.verify(third)
    for old in (endpoint.secret, second):
        with pytest.raises(NOT_VERIFIED):
            message.verify(old)
    assert await world.count("webhook_secrets") == 0


async def test_no_older_secret_outlives_the_last_overlap(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    second = (await rotate(world, partner, endpoint, {"overlap_seconds": 7200})).json()["secret"]
    await rotate(world, partner, endpoint, {"overlap_seconds": 60})
    message = await told(world, partner, endpoint, receiver)
    message.verify(endpoint.secret)
    message.verify(second)
    world.clock.advance(seconds=61)
    message = await told(world, partner, endpoint, receiver)
    for old in (endpoint.secret, second):
        with pytest.raises(NOT_VERIFIED):
            message.verify(old)


async def test_a_repetition_with_the_same_key_shows_the_same_secret(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    first, again = [
        await rotate(world, partner, endpoint, {"overlap_seconds": 60}, **{"Idempotency-Key": "once"})
        for _ in range(2)
    ]
    assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")
    assert await world.count("webhook_secrets") == 1
    (await told(world, partner, endpoint, receiver)).verify(first.json()["secret"])


async def test_only_so_many_secrets_sign_at_a_time(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    for _ in range(MAX_SECRETS - 1):
        assert (await rotate(world, partner, endpoint)).status_code == 200
    found = problem_of(await rotate(world, partner, endpoint), 409, "invalid_state")
    assert "overlap_seconds" in found["detail"]
    message = await told(world, partner, endpoint, receiver)
    message.verify(endpoint.secret)
    assert len(message.headers["webhook-signature"].split(" ")) == MAX_SECRETS
    world.clock.advance(days=1, seconds=1)
    assert (await rotate(world, partner, endpoint)).status_code == 200


@pytest.mark.parametrize("overlap", [-1, 7 * 24 * 3600 + 1, "60", 1.5, None])
async def test_an_overlap_is_seconds_up_to_a_week(world: World, receiver: Receiver, overlap: Any) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    problem_of(await rotate(world, partner, endpoint, {"overlap_seconds": overlap}), 422, "validation_failed")
    (await told(world, partner, endpoint, receiver)).verify(endpoint.secret)


async def test_old_secrets_lie_sealed_and_are_forgotten_when_their_time_is_over(
    world: World, receiver: Receiver
) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    await rotate(world, partner, endpoint, {"overlap_seconds": 60})
    (stored,) = await world.select("SELECT secret FROM webhook_secrets")
    assert endpoint.secret.removeprefix("whsec_").encode() not in bytes(stored["secret"])
    await sweep.tidy(world.runtime)
    assert await world.count("webhook_secrets") == 1
    world.clock.advance(seconds=61)
    await sweep.tidy(world.runtime)
    assert await world.count("webhook_secrets") == 0


async def test_an_old_secret_that_does_not_open_stops_no_webhook(world: World, receiver: Receiver) -> None:
    partner = await world.partner(consented=False)
    endpoint = await subscribe(world, partner, receiver.url())
    new = (await rotate(world, partner, endpoint)).json()["secret"]
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(text("UPDATE webhook_secrets SET secret = 'damaged'"))
    (await told(world, partner, endpoint, receiver)).verify(new)
