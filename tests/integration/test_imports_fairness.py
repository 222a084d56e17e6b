"""Imports of many partners: whose file is next, how many a partner may run, and how much it may store."""

import asyncio
import gzip
from uuid import UUID, uuid4

import pytest

from app.db import import_claims
from app.db.imports import ImportClaim
from app.domain.quota import Quota
from app.services.imports import reading, turns, work
from app.services.imports.reading import CHUNK, Stopping
from tests.integration.test_api_bad_input import problem_of
from tests.integration.test_imports_crash import held_in_the_second_chunk, open_transaction, until
from tests.integration.test_quotas import set_quota
from tests.support.import_scene import (
    HEADER,
    commit,
    look,
    preview,
    send,
    sheet,
    tuple_sheet,
    upload,
    work_imports,
)
from tests.support.world import Partner, World

PATIENCE = 45.0
"""Seconds."""


async def claim(world: World, *, places: int = 4, each: int = 1) -> ImportClaim | None:
    async with world.runtime.system_transaction() as tx:
        return await import_claims.claim_one(
            tx,
            owner=uuid4(),
            now=world.clock.now(),
            lease=world.runtime.settings.lease,
            places=places,
            each=each,
        )


async def upload_many(world: World, partner: Partner, count: int, prefix: str = "S") -> None:
    for n in range(count):
        await upload(world, partner, tuple_sheet(1, f"{prefix}{n}"))


async def test_one_partners_many_files_leave_places_for_others_that_come_later(world: World) -> None:
    many, one = await world.partner(), await world.partner()
    await upload_many(world, many, 4)
    first = await claim(world, each=2)
    second = await claim(world, each=2)
    assert first is not None
    assert second is not None
    assert {first.partner_id, second.partner_id} == {many.id}
    assert await claim(world, each=2) is None, "its share is used up, though two places are free"
    late = await upload(world, one, tuple_sheet(1))
    found = await claim(world, each=2)
    assert found is not None
    assert str(found.id) == late


async def test_turns_go_round_the_partners_and_then_by_age(world: World) -> None:
    a, b, c = [await world.partner() for _ in range(3)]
    for partner, count in ((a, 3), (b, 2), (c, 1)):
        await upload_many(world, partner, count)
    order = []
    for _ in range(6):
        world.clock.advance(seconds=0.001)
        found = await claim(world, places=8, each=8)
        assert found is not None
        order.append(found.partner_id)
    assert {*order[:3]} == {a.id, b.id, c.id}
    assert {*order[3:5]} == {a.id, b.id}
    assert order[5] == a.id


async def test_claims_of_one_moment_keep_to_the_share_together(world: World) -> None:
    many = await world.partner()
    await upload_many(world, many, 6)
    found = await asyncio.gather(*(claim(world, places=8, each=2) for _ in range(6)))
    assert sum(one is not None for one in found) == 2


# --- quotas ---------------------------------------------------------------------------------------


async def test_a_partner_may_have_so_many_files_waiting_and_others_do_not_mind(world: World) -> None:
    partner, neighbour = await world.partner(), await world.partner()
    await set_quota(world, partner, Quota.WAITING_IMPORTS, 2)
    for n in range(2):
        await upload(world, partner, tuple_sheet(1, f"S{n}"))
    refused = problem_of(await send(world, partner, tuple_sheet(1)), 429, "quota_exceeded")
    assert "waiting_imports" in refused["detail"]
    await upload(world, neighbour, tuple_sheet(1))
    assert await world.count("imports") == 3
    await work_imports(world)
    found = await preview(world, partner, tuple_sheet(1, "T"))
    for n in range(2):
        await upload(world, partner, tuple_sheet(1, f"U{n}"))
    problem_of(await commit(world, partner, found["id"]), 429, "quota_exceeded")
    await work_imports(world)
    assert (await commit(world, partner, found["id"])).status_code == 202


async def test_uploads_at_the_same_time_pass_the_quota_of_waiting_files_together(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.WAITING_IMPORTS, 3)
    customer = str(partner.customer_id)
    answers = await asyncio.gather(
        *(send(world, partner, tuple_sheet(1, f"S{n}"), customer_id=customer) for n in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 5
    assert await world.count("imports") == 3, "what was refused is gone"
    assert await world.count("import_pieces") == 3


async def test_bytes_beyond_the_quota_are_refused_while_they_arrive(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.STAGED_BYTES, 10_000)
    refused = problem_of(await send(world, partner, tuple_sheet(1000)), 422, "quota_exceeded")
    assert "staged_bytes" in refused["detail"]
    assert (await world.count("imports"), await world.count("import_pieces")) == (0, 0)
    await upload(world, partner, tuple_sheet(10))


async def test_rows_beyond_the_quota_refuse_the_file_and_none_of_them_stays(world: World) -> None:
    partner = await world.partner()
    await set_quota(world, partner, Quota.STAGED_ROWS, 30)
    assert (await preview(world, partner, tuple_sheet(20)))["state"] == "ready"
    found = await preview(world, partner, tuple_sheet(11, "T"))
    assert (found["state"], found["failure"]["code"]) == ("refused", "quota_exceeded")
    assert await world.count("import_rows") == 20
    assert (await preview(world, partner, tuple_sheet(10, "U")))["state"] == "ready"


# --- turns ----------------------------------------------------------------------------------------


async def test_a_small_file_is_read_while_a_large_one_is_under_way_with_one_lane(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large file cannot finish earlier: the test's lock stops its second chunk."""
    monkeypatch.setattr(turns, "SLICE", 0.0)
    assert world.runtime.settings.import_lanes == 1
    many, one = await world.partner(), await world.partner()
    more = b"".join(b"LATER%d,Contoso,Book,\r\n" % number for number in range(CHUNK))
    large = await upload(world, many, gzip.compress(held_in_the_second_chunk() + more))
    small = await upload(world, one, tuple_sheet(3))
    same_row = "INSERT INTO import_hashes SELECT partner_id, id, :n, 'x' FROM imports WHERE id = :id"
    async with open_transaction(world, same_row, id=UUID(large), n=CHUNK + 1):
        reading = asyncio.create_task(work.advance_next(world.runtime))
        await until(world, "SELECT 1 FROM imports WHERE rows_read = :n", n=CHUNK)
        async with asyncio.timeout(PATIENCE):
            assert await work.advance_next(world.runtime)
        assert (await look(world, one, small))["state"] == "ready"
        assert (await look(world, many, large))["state"] == "reading"
    await reading
    assert (await look(world, many, large))["counts"]["valid"] == 2 * CHUNK + 5


async def test_a_compressed_file_of_too_many_rows_is_refused_before_one_is_staged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_ROWS", 3000)
    partner = await world.partner()
    found = await preview(world, partner, gzip.compress(tuple_sheet(3001)))
    assert (found["state"], found["failure"]["code"]) == ("refused", "too_many_rows")
    assert "about 3,00" in found["failure"]["detail"]
    assert "room for 3,000" in found["failure"]["detail"]
    assert found["progress"]["rows_read"] == 0
    # Line breaks inside quotation marks do not end a row.
    rows = [[f"SYN{n:05d}", "Contoso", "Book", "a\r\nb\r\nc"] for n in range(1500)]
    found = await preview(world, partner, gzip.compress(sheet((*HEADER, "Remark"), rows)))
    assert (found["state"], found["counts"]["total"]) == ("ready", 1500)


async def test_a_reading_that_waits_for_its_turn_keeps_its_claim_and_stops_when_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    partner = await world.partner()
    import_id = await upload(world, partner, tuple_sheet(3))
    await world.runtime.turns.imports.take("another")
    told = False
    reading = asyncio.create_task(work.advance_next(world.runtime, lambda: told))
    async with asyncio.timeout(PATIENCE):
        while world.runtime.turns.imports.waiting == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await look(world, partner, import_id))["state"] == "reading"
    told = True
    world.runtime.turns.imports.give("another")
    with pytest.raises(Stopping):
        await reading
    [record] = await world.select("SELECT state, owner, attempts FROM imports")
    assert (record["state"], record["owner"], record["attempts"]) == ("reading", None, 0)
    assert world.runtime.turns.imports.held == 0
    await work_imports(world)
    assert (await look(world, partner, import_id))["state"] == "ready"
