"""API keys: their scopes, rotation and revocation by their holders, which never give them more rights."""

import asyncio
import hashlib
from datetime import datetime, timedelta

import httpx

from app.db import partners
from app.db.ids import new_row_id
from app.domain import api_key
from app.domain.scope import Scope
from app.services.access import identities
from app.services.access.identities import PRESETS, NewKey, Preset
from tests.integration.test_api_bad_input import problem_of
from tests.support.statements import sent_by
from tests.support.world import Partner, World

ROTATE, REVOKE = "/v1/me/key:rotate", "/v1/me/key:revoke"
DAY = timedelta(days=1)


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **more}


async def rotate(
    world: World, key: str, overlap: int | None = None, *, once: str | None = None
) -> httpx.Response:
    body = None if overlap is None else {"overlap_seconds": overlap}
    more = {} if once is None else {"Idempotency-Key": once}
    return await world.client.post(ROTATE, headers=bearer(key, **more), json=body)


async def works(world: World, key: str) -> bool:
    response = await world.client.get("/v1/me", headers=bearer(key))
    assert response.status_code in (200, 401)
    return response.status_code == 200


async def narrow_key(world: World, partner: Partner, **fields: datetime) -> NewKey:
    return await identities.create_key(
        world.runtime, partner, name="narrow", scopes=[Scope.WEBHOOKS_READ], **fields
    )


async def test_a_key_with_a_wrong_checksum_is_refused_without_the_database(world: World) -> None:
    partner = await world.partner(consented=False)
    async with sent_by(world.runtime.engine) as sent:
        wrong = partner.key[:-1] + ("0" if partner.key[-1] != "0" else "1")
        problem_of(await world.client.get("/v1/me", headers=bearer(wrong)), 401, "unauthenticated")
    assert sent.trips == []
    async with sent_by(world.runtime.engine) as sent:
        assert await works(world, partner.key)
    assert sent.trips


async def test_a_key_of_a_release_before_goes_on_working_and_is_rotated_into_a_new_one(world: World) -> None:
    partner = await world.partner(consented=False)
    former = "rk_0a1b2c3d_" + "a2" * 26
    async with world.runtime.transaction(partner) as tx:
        await partners.add_key(
            tx,
            id=new_row_id(),
            name="former",
            prefix="0a1b2c3d",
            secret_digest=hashlib.sha256(former.encode()).digest(),
            scopes=["orders:read"],
            expires_at=None,
            now=world.clock.now(),
        )
    assert await works(world, former)
    new = (await rotate(world, former)).json()
    assert new["scopes"] == ["orders:read"]
    assert api_key.prefix_of(new["key"]) == new["prefix"]
    assert await works(world, new["key"])


async def test_both_keys_work_for_the_stated_time_and_then_the_new_one_alone(world: World) -> None:
    partner = await world.partner(consented=False)
    began = world.clock.now()
    response = await rotate(world, partner.key, 3600)
    assert response.status_code == 200, response.text
    new = response.json()
    until = datetime.fromisoformat(new["previous_key_until"])
    assert timedelta(seconds=3599) < until - began < timedelta(seconds=3700)
    assert await works(world, partner.key)
    assert await works(world, new["key"])
    me = (await world.client.get("/v1/me", headers=bearer(new["key"]))).json()
    assert me["key"] == {"prefix": new["prefix"], "name": "test", "expires_at": None}
    world.clock.advance(hours=1, seconds=1)
    assert not await works(world, partner.key)
    assert await works(world, new["key"])


async def test_overlap_nothing_ends_the_old_key_at_once(world: World) -> None:
    partner = await world.partner(consented=False)
    new = (await rotate(world, partner.key, 0)).json()
    assert not await works(world, partner.key)
    assert await works(world, new["key"])


async def test_a_rotated_key_has_no_more_scopes_and_no_longer_life_however_often(world: World) -> None:
    partner = await world.partner(consented=False)
    ends = world.clock.now() + 30 * DAY
    narrow = await narrow_key(world, partner, expires_at=ends)
    held = narrow.secret
    for _ in range(3):
        new = (await rotate(world, held, 7 * 24 * 3600)).json()
        assert new["scopes"] == ["webhooks:read"]
        assert abs(datetime.fromisoformat(new["expires_at"]) - ends) < timedelta(seconds=1)
        held = new["key"]
    # Also if the answer was lost, and the old key, which now expires sooner, asks again.
    again = (await rotate(world, held, 60)).json()
    again = (await rotate(world, held, 60)).json()
    assert abs(datetime.fromisoformat(again["expires_at"]) - ends) < timedelta(seconds=1)
    problem_of(await world.client.get("/v1/orders", headers=bearer(again["key"])), 403, "scope_missing")
    for strange in ({"scopes": ["orders:write"]}, {"expires_at": None}, {"overlap_seconds": 7 * 86400 + 1}):
        response = await world.client.post(ROTATE, headers=bearer(again["key"]), json=strange)
        problem_of(response, 422, "validation_failed")
    world.clock.advance(days=31)
    assert not await works(world, again["key"])


async def test_the_old_key_lives_no_longer_by_its_overlap(world: World) -> None:
    partner = await world.partner(consented=False)
    ends = world.clock.now() + timedelta(hours=1)
    narrow = await narrow_key(world, partner, expires_at=ends)
    new = (await rotate(world, narrow.secret, 24 * 3600)).json()
    assert abs(datetime.fromisoformat(new["previous_key_until"]) - ends) < timedelta(seconds=1)
    world.clock.advance(hours=1, seconds=1)
    assert not await works(world, narrow.secret)


async def test_a_lost_answer_is_asked_for_again_until_the_new_key_is_used(world: World) -> None:
    partner = await world.partner(consented=False)
    lost = (await rotate(world, partner.key)).json()["key"]
    held = (await rotate(world, partner.key)).json()
    assert not await works(world, lost)
    assert await world.count("api_keys") == 2, "unused keys do not pile up"
    assert await works(world, held["key"])
    refused = problem_of(await rotate(world, partner.key), 409, "key_rotated_already")
    assert held["prefix"] in refused["detail"]
    assert await works(world, held["key"])


async def test_an_idempotency_key_shows_the_answer_again_and_to_no_other_key_of_the_partner(
    world: World,
) -> None:
    partner = await world.partner(consented=False)
    narrow = await narrow_key(world, partner)
    first = await rotate(world, partner.key, once="rotation")
    again = await rotate(world, partner.key, once="rotation")
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await rotate(world, narrow.secret, once="rotation")
    assert "Another API key" in problem_of(other, 422, "idempotency_key_reused")["detail"]
    assert first.json()["key"] not in other.text


async def test_two_rotations_at_once_leave_one_new_key(world: World) -> None:
    partner = await world.partner(consented=False)
    answers = await asyncio.gather(*(rotate(world, partner.key) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    alive = [key for answer in answers if await works(world, key := answer.json()["key"])]
    assert len(alive) == 1
    found = await identities.list_keys(world.runtime, partner)
    (old,) = [row for row in found if row.prefix == partner.key.split("_")[1]]
    assert old.replaced_by == alive[0].split("_")[1]


async def test_a_holder_ends_its_own_key_and_no_other(world: World) -> None:
    partner = await world.partner(consented=False)
    narrow = await narrow_key(world, partner)
    response = await world.client.post(REVOKE, headers=bearer(narrow.secret))
    assert response.status_code == 204
    assert not await works(world, narrow.secret)
    assert await works(world, partner.key)
    problem_of(await rotate(world, narrow.secret), 401, "unauthenticated")


async def test_a_preset_is_stored_as_the_scopes_it_has_today(world: World) -> None:
    partner = await world.partner(consented=False)
    for preset in Preset:
        key = await identities.create_key(world.runtime, partner, name=preset.value, scopes=PRESETS[preset])
        me = (await world.client.get("/v1/me", headers=bearer(key.secret))).json()
        assert me["scopes"] == [scope.value for scope in PRESETS[preset]]
    stored = await world.select("SELECT scopes FROM api_keys WHERE name = 'read-only'")
    assert stored == [{"scopes": [scope.value for scope in PRESETS[Preset.READ_ONLY]]}]


async def test_no_secret_of_a_key_is_stored(world: World) -> None:
    partner = await world.partner(consented=False)
    new = (await rotate(world, partner.key, once="once")).json()["key"]
    dump = await world.dump()
    for key in (partner.key, new):
        assert key.split("_")[2] not in dump
