"""Answers are compressed if the caller accepts that, and 304 if the caller already has them."""

import gzip
import re

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from app.api.http.conditional import ConditionalGet
from app.main import COMPRESSED_FROM
from app.services.connections import customer_readings
from tests.integration.test_api_auth import everything
from tests.support.world import Partner, World, tuples


async def raw(world: World, path: str, partner: Partner, **headers: str) -> tuple[httpx.Response, bytes]:
    """The response, and its body before decoding."""
    async with world.client.stream(
        "GET", path, headers={"Accept-Encoding": "identity", **partner.headers, **headers}
    ) as response:
        return response, b"".join([piece async for piece in response.aiter_raw()])


# --- content codings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br", "br"),
        ("gzip, br", "br"),
        ("br, gzip, zstd", "zstd"),
        ("gzip;q=0, br;q=0.5", "br"),
        ("deflate", None),
        ("gzip;q=0", None),
    ],
)
async def test_large_answers_are_compressed_as_the_caller_reads(
    world: World, accepted: str, coding: str | None
) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(20))
    path = f"/v1/orders/{order.view.record.id}/registrations"
    plain_response, plain = await raw(world, path, partner)
    response, body = await raw(world, path, partner, **{"Accept-Encoding": accepted})
    assert response.headers.get("content-encoding") == coding
    assert int(response.headers["content-length"]) == len(body)
    for answer in (response, plain_response):
        assert "accept-encoding" in answer.headers["vary"].lower()
    assert (len(body) < len(plain) / 2) is (coding is not None)
    if coding in {None, "gzip", "br"}:  # codings that the test's client decodes
        read = await world.client.get(path, headers={**partner.headers, "Accept-Encoding": accepted})
        assert read.content == plain


async def test_small_answers_travel_as_they_are(world: World) -> None:
    partner = await world.partner()
    response, body = await raw(world, "/v1/me", partner, **{"Accept-Encoding": "gzip"})
    assert len(body) < COMPRESSED_FROM
    assert "content-encoding" not in response.headers


async def test_downloads_and_problems_are_compressed_too(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(30))
    path = f"/v1/orders/{order.view.record.id}/result.csv"
    _, plain = await raw(world, path, partner)
    response, body = await raw(world, path, partner, **{"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == plain
    assert len(plain.splitlines()) == 31
    refused = await world.post_order(
        partner, [{"line_ref": str(number)} for number in range(20)], on_invalid="reject",
        headers={"Accept-Encoding": "gzip"},
    )  # fmt: skip
    assert (refused.status_code, refused.headers["content-encoding"]) == (422, "gzip")


async def test_what_is_compressed_already_is_not_compressed_again(world: World) -> None:
    response = await world.client.get("/docs/favicon-32x32.png", headers={"Accept-Encoding": "gzip, br"})
    assert "content-encoding" not in response.headers


# --- If-None-Match ------------------------------------------------------------------------------------


async def tag(world: World, path: str, partner: Partner) -> str:
    response = await world.client.get(path, headers=partner.headers)
    assert response.status_code == 200, response.text
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', response.headers["etag"])
    return response.headers["etag"]


async def again(world: World, path: str, partner: Partner, given: str) -> httpx.Response:
    return await world.client.get(path, headers={**partner.headers, "If-None-Match": given})


@pytest.mark.parametrize(
    "path",
    [
        "/v1/orders/{order_id}",
        "/v1/customers/{customer_id}",
        "/v1/orders",
        "/v1/customers",
        "/v1/error-codes",
    ],
)
async def test_who_has_the_present_answer_is_told_so(world: World, path: str) -> None:
    partner = await world.partner()
    path = path.format(**await everything(world, partner))
    present = await tag(world, path, partner)
    for given in (present, present.removeprefix("W/"), f'"other", {present}', "*"):
        response = await again(world, path, partner, given)
        assert (response.status_code, response.content) == (304, b""), given
        assert response.headers["etag"] == present
        assert "content-type" not in response.headers
        assert response.headers["x-correlation-id"]
    for given in ('"other"', present[:-3] + '"', "W/", ""):
        assert (await again(world, path, partner, given)).status_code == 200, given
    assert (await world.client.head(path, headers=partner.headers)).headers["etag"] == present


async def test_the_tag_changes_with_everything_that_is_shown(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(3), customer_id=partner.other_customer_id)
    path, customer = f"/v1/orders/{order.view.record.id}", f"/v1/customers/{partner.other_customer_id}"
    seen, seen_customer = [await tag(world, path, partner)], await tag(world, customer, partner)
    await world.set_consent(partner.other_tenant_id, given=True)
    await customer_readings.read_customers(world.runtime, partner, partner.connection_id)
    seen.append(await tag(world, path, partner))
    assert (await again(world, customer, partner, seen_customer)).status_code == 200
    await world.work()
    seen.append(await tag(world, path, partner))
    assert len(set(seen)) == 3
    final = await again(world, path, partner, seen[1])
    assert (final.status_code, final.json()["counts"]["registered"]) == (200, 3)
    assert (await again(world, path, partner, seen[2])).status_code == 304


async def test_who_looks_while_an_order_moves_hears_when_to_look_again(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(1))
    path = f"/v1/orders/{order.view.record.id}"
    response = await again(world, path, partner, await tag(world, path, partner))
    assert (response.status_code, response.headers["retry-after"]) == (304, "2")


async def test_refusals_and_streams_have_no_tag(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(1))
    assert "etag" not in (await world.client.get("/v1/orders", headers={"If-None-Match": "*"})).headers
    path = f"/v1/orders/{order.view.record.id}/result.csv"
    response = await again(world, path, partner, "*")
    assert response.status_code == 200
    assert "etag" not in response.headers


async def test_json_that_is_written_piece_by_piece_passes_as_it_is() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, more in ((b"[1,", True), (b"2]", False)):
            await send({"type": "http.response.body", "body": number, "more_body": more})

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(ConditionalGet(app)), base_url="http://here"
    ) as client:
        response = await client.get("/", headers={"If-None-Match": "*"})
    assert (response.status_code, response.json()) == (200, [1, 2])
    assert "etag" not in response.headers
