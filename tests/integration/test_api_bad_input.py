"""Bad input gets a clear error that says what to do. Nothing is stored, and no secret is repeated."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.api.http import repeated_keys
from app.db.paging import PageRequest, bind, cut
from app.domain.catalogue import CATALOGUE
from app.domain.identity import IdentityKind
from app.local.synthetic import devices as synthetic
from app.main import build
from tests.support.world import Partner, World

TUPLE = {"serial_number": "SYN1", "manufacturer": "Contoso", "model": "Book"}
LICENSE_KEY = "SYNTH-ABCDE-FGHIJ-KLMNP-QRSTV"
STORED = ("orders", "registrations", "device_hashes", "batches", "events", "idempotency_keys")


def a_hash() -> dict[str, str]:
    return next(synthetic(1, seed=7, kind=IdentityKind.HARDWARE_HASH)).fields()


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem in the answer, after checks of what every problem must have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    entry = CATALOGUE[code]
    assert (found["code"], found["status"]) == (code, status)
    assert (found["title"], found["remedy"]) == (entry.title, entry.remedy)
    assert found["detail"]
    assert found["type"] == f"/v1/error-codes/{code}"
    assert found["correlation_id"] == response.headers["x-correlation-id"]
    for error in found["errors"]:
        assert error["code"]
        assert error["detail"]
        assert error["remedy"]
    return found


async def assert_nothing_stored(world: World) -> None:
    assert {table: await world.count(table) for table in STORED} == dict.fromkeys(STORED, 0)


async def send(world: World, partner: Partner, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await world.client.post(
        "/v1/orders",
        headers={"Content-Type": "application/json", **partner.headers, **headers},
        content=content,
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"customer,reference",
        b'{"reference": ',
        b"\xff\xfe{}",
        b'{"reference": "\xc3\x28"}',
        b'{"reference": "\\ud800"}',
        '{"reference": "R"}'.encode("utf-16"),
        b'{"reference": NaN}garbage',
    ],
    ids=[
        "empty",
        "csv",
        "cut off",
        "not utf-8",
        "broken utf-8",
        "lone surrogate",
        "utf-16",
        "garbage",
    ],
)
async def test_what_is_not_json_is_refused_as_such(world: World, body: bytes) -> None:
    partner = await world.partner(consented=False)
    problem_of(await send(world, partner, body, **{"Idempotency-Key": "k"}), 400, "not_json")
    await assert_nothing_stored(world)


async def test_a_byte_order_mark_in_front_of_json_is_passed_over(world: World) -> None:
    """Windows PowerShell writes one into every file."""
    partner = await world.partner(consented=False)
    order = {"customer_id": str(partner.customer_id), "reference": "BOM", "devices": [TUPLE]}
    response = await send(world, partner, b"\xef\xbb\xbf" + json.dumps(order).encode())
    assert (response.status_code, response.json()["reference"]) == (201, "BOM"), response.text


async def test_a_missing_content_type_is_said_in_words(world: World) -> None:
    partner = await world.partner(consented=False)
    response = await world.client.post("/v1/orders", headers=partner.headers, content=b"{}")
    found = problem_of(response, 415, "unsupported_media_type")
    assert found["detail"] == "Content-Type is missing; send application/json."


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "identity, gzip", "X-GZIP", "rot13"])
@pytest.mark.parametrize("path", ["/v1/orders", "/v1/webhook-endpoints", "/v1/batches/{id}/portal-result"])
async def test_a_body_in_a_coding_that_nothing_decodes_is_refused_by_its_name(
    world: World, path: str, coding: str
) -> None:
    partner = await world.partner(consented=False)
    response = await world.client.post(
        path.replace("{id}", str(partner.customer_id)),
        headers={**partner.headers, "Content-Type": "application/json", "Content-Encoding": coding},
        content=gzip.compress(b"{}"),
    )
    found = problem_of(response, 415, "unsupported_media_type")
    assert repr(coding.casefold().removeprefix("identity, ")) in found["detail"]
    assert response.headers["accept-encoding"] == "identity"


async def test_a_body_whose_coding_is_identity_is_read(world: World) -> None:
    partner = await world.partner()
    response = await world.post_order(partner, [TUPLE], headers={"Content-Encoding": "Identity"})
    assert response.status_code == 201, response.text


@pytest.mark.parametrize("kind", ["text/csv", "multipart/form-data; boundary=x", "application/x-json", ""])
async def test_another_content_type_is_refused_before_the_body_is_looked_at(world: World, kind: str) -> None:
    partner = await world.partner()
    problem_of(
        await send(world, partner, b"{", **{"Content-Type": kind}),
        415,
        "unsupported_media_type",
    )


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/x+json"]
)
async def test_every_spelling_of_json_is_taken(world: World, kind: str) -> None:
    partner = await world.partner()
    problem_of(await send(world, partner, b"{", **{"Content-Type": kind}), 400, "not_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"text"', b"true"])
async def test_json_that_is_no_object_is_a_problem_of_the_whole_body(world: World, body: bytes) -> None:
    partner = await world.partner()
    found = problem_of(await send(world, partner, body), 422, "validation_failed")
    assert [(e["pointer"], e["field"], e["row"]) for e in found["errors"]] == [("", None, None)]


class TestSmallLimit:
    """An API that accepts bodies of up to 2,000 bytes."""

    @pytest.fixture
    async def client(self, world: World) -> AsyncIterator[httpx.AsyncClient]:
        app = build(world.runtime.settings.model_copy(update={"max_body_bytes": 2_000}))
        app.state.runtime = world.runtime
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://small") as client:
            yield client

    async def test_an_announced_body_over_the_limit_is_refused_unread(
        self, world: World, client: httpx.AsyncClient
    ) -> None:
        partner = await world.partner()
        for announced in ("2001", "9" * 5_000):
            response = await client.post(
                "/v1/orders",
                headers={
                    **partner.headers,
                    "Content-Type": "application/json",
                    "Content-Length": announced,
                },
                content=b"{}",
            )
            found = problem_of(response, 413, "body_too_large")
            assert "2,000" in found["detail"]
            assert response.headers["connection"] == "close"

    async def test_a_body_in_chunks_is_refused_as_soon_as_it_is_over_the_limit(
        self, world: World, client: httpx.AsyncClient
    ) -> None:
        partner = await world.partner(consented=False)
        sent = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 100:
                sent += 1
                yield b" " * 500

        response = await client.post(
            "/v1/orders",
            headers={**partner.headers, "Content-Type": "application/json", "Idempotency-Key": "k"},
            content=chunks(),
        )
        problem_of(response, 413, "body_too_large")
        assert response.headers["connection"] == "close"
        assert sent == 5
        await assert_nothing_stored(world)

    async def test_a_body_at_the_limit_is_read(self, world: World, client: httpx.AsyncClient) -> None:
        partner = await world.partner()
        body = json.dumps(
            {"customer_id": str(partner.customer_id), "reference": "fits", "devices": [TUPLE]}
        ).encode()
        response = await client.post(
            "/v1/orders",
            headers={**partner.headers, "Content-Type": "application/json"},
            content=body.ljust(2_000),
        )
        assert response.status_code == 201, response.text


Change = Callable[[dict[str, Any]], Any]


def _set(**fields: Any) -> Change:
    return lambda body: body.update(fields)


def _device(**fields: Any) -> Change:
    return lambda body: body["devices"].append({**TUPLE, **fields})


SHAPES: dict[str, tuple[Change, str, int | None, str | None]] = {
    "unknown field": (_set(devcies=[]), "/devcies", None, "devcies"),
    "unknown device field": (_device(Serial="x"), "/devices/1/Serial", 2, "Serial"),
    "escaped field": (_device(**{"a/b~c": "x"}), "/devices/1/a~1b~0c", 2, "a~1b~0c"),
    "no reference": (lambda body: body.pop("reference"), "/reference", None, "reference"),
    "null reference": (_set(reference=None), "/reference", None, "reference"),
    "numeric reference": (_set(reference=4711), "/reference", None, "reference"),
    "blank reference": (_set(reference=" \t "), "/reference", None, "reference"),
    "empty reference": (_set(reference=""), "/reference", None, "reference"),
    "long reference": (_set(reference="x" * 101), "/reference", None, "reference"),
    "NUL in reference": (_set(reference="a\x00b"), "/reference", None, "reference"),
    "NUL in purchase order": (_set(purchase_order="a\x00b"), "/purchase_order", None, "purchase_order"),
    "newline in group tag": (_set(group_tag="a\nb"), "/group_tag", None, "group_tag"),
    "invisible in group tag": (_set(group_tag="a\u200bb"), "/group_tag", None, "group_tag"),
    "blank group tag": (_set(group_tag="  "), "/group_tag", None, "group_tag"),
    "huge group tag": (_set(group_tag="x" * 100_000), "/group_tag", None, "group_tag"),
    "group tag over the setting": (_set(group_tag="x" * 129), "/group_tag", None, "group_tag"),
    "customer no id": (_set(customer_id="nobody"), "/customer_id", None, "customer_id"),
    "customer a number": (_set(customer_id=1), "/customer_id", None, "customer_id"),
    "devices an object": (_set(devices={}), "/devices", None, "devices"),
    "devices text": (_set(devices="SYN1"), "/devices", None, "devices"),
    "no devices": (_set(devices=[]), "/devices", None, "devices"),
    "10,001 devices": (_set(devices=[{}] * 10_001), "/devices", None, "devices"),
    "device null": (_set(devices=[TUPLE, None]), "/devices/1", 2, None),
    "device text": (_set(devices=[TUPLE, "SYN2"]), "/devices/1", 2, None),
    "numeric serial": (_device(serial_number=12345), "/devices/1/serial_number", 2, "serial_number"),
    "numeric key": (_device(product_key=3.2e12), "/devices/1/product_key", 2, "product_key"),
    "list as model": (_device(model=["Book"]), "/devices/1/model", 2, "model"),
    "huge serial": (_device(serial_number="x" * 4_097), "/devices/1/serial_number", 2, "serial_number"),
    "huge hash": (_device(hardware_hash="T0" * 10_001), "/devices/1/hardware_hash", 2, "hardware_hash"),
    "huge line_ref": (_device(line_ref="x" * 256), "/devices/1/line_ref", 2, "line_ref"),
    "on_invalid": (_set(on_invalid="ignore"), "/on_invalid", None, "on_invalid"),
    "validate_only text": (_set(validate_only="yes"), "/validate_only", None, "validate_only"),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dry", [False, True], ids=["real", "dry"])
async def test_a_wrong_shape_names_the_field_and_stores_nothing(world: World, name: str, dry: bool) -> None:
    change, pointer, row, field = SHAPES[name]
    partner = await world.partner(consented=False)
    body: dict[str, Any] = {"customer_id": str(partner.customer_id), "reference": "R", "devices": [TUPLE]}
    if dry and name != "validate_only text":
        body["validate_only"] = True
    change(body)

    found = problem_of(await send(world, partner, body, **{"Idempotency-Key": "k"}), 422, "validation_failed")

    assert [(e["pointer"], e["row"], e["field"]) for e in found["errors"]] == [(pointer, row, field)]
    await assert_nothing_stored(world)


async def test_an_order_with_too_many_devices_says_so_by_code(world: World) -> None:
    partner = await world.partner(consented=False)
    response = await world.post_order(partner, [{}] * 10_001)
    (error,) = problem_of(response, 422, "validation_failed")["errors"]
    assert (error["code"], error["remedy"]) == ("too_many_devices", CATALOGUE["too_many_devices"].remedy)


async def test_a_body_wrong_in_many_places_is_answered_in_bounds(world: World) -> None:
    partner = await world.partner(consented=False)
    body = {
        "customer_id": str(partner.customer_id),
        "reference": "R",
        "devices": [{"x" * 3_000: 1, "serial_number": 1}] * 2_000,
    }
    response = await send(world, partner, body)
    found = problem_of(response, 422, "validation_failed")
    assert "4000" in found["detail"]
    assert len(found["errors"]) == 100
    assert len(response.content) < 100_000


@pytest.mark.parametrize("field", ["serial_number", "manufacturer", "model", "product_key", "hardware_hash"])
@pytest.mark.parametrize(
    "value",
    ["a\x00b", "\x00", "\ufffe\U0010ffff", "\u202edrowssap", "x" * 4_096, "\r\n", "'; DROP TABLE orders"],
)
async def test_no_text_in_a_device_breaks_anything(world: World, field: str, value: str) -> None:
    partner = await world.partner(consented=False)
    response = await world.post_order(
        partner, [{**TUPLE, field: value, "line_ref": value[:255], "group_tag": value}]
    )
    assert response.status_code == 201, response.text
    listed = await world.rows(partner, response.json()["id"])
    assert [row["row"] for row in listed] == [1]
    assert "\x00" not in json.dumps(listed, ensure_ascii=False)


NAMES = ["R\x00", "\ud800", "x" * 60_000, "\x1b[31m", "a\u0000b"]


@pytest.mark.parametrize("value", NAMES, ids=["nul", "surrogate", "huge", "escape", "inner nul"])
async def test_no_text_in_any_other_body_breaks_anything(world: World, value: str) -> None:
    partner = await world.partner(consented=False)
    connection = {
        "name": "n",
        "entra_tenant_id": str(uuid4()),
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
        "region": "eu",
        "default_group_tag": "tag",
        "platform": "partner_center",
    }
    customer = {
        "connection_id": str(partner.connection_id),
        "entra_tenant_id": str(uuid4()),
        "name": "n",
        "domain": "d",
        "default_group_tag": "tag",
    }
    endpoint = {"url": "https://hooks.example.com", "description": "d", "event_types": ["order.accepted"]}
    before = {table: await world.count(table) for table in ("connections", "customers", "webhook_endpoints")}
    for path, body in (
        ("connections", connection),
        ("customers", customer),
        ("webhook-endpoints", endpoint),
    ):
        for field in body:
            wrong = {**body, field: [value] if field == "event_types" else value}
            response = await world.client.post(
                f"/v1/{path}",
                headers={**partner.headers, "Content-Type": "application/json"},
                content=json.dumps(wrong).encode(),
            )
            assert response.status_code in (400, 422), (path, field, response.text)
            assert len(response.content) < 20_000
    assert before == {table: await world.count(table) for table in before}


async def test_nothing_may_be_emptied_that_is_needed_and_the_rest_may(world: World) -> None:
    partner = await world.partner(consented=False)
    path = f"/v1/customers/{partner.customer_id}"
    set_ = await world.client.patch(
        path, headers=partner.headers, json={"domain": "contoso.example", "default_group_tag": " Kiosk "}
    )
    assert (set_.json()["domain"], set_.json()["default_group_tag"]) == ("contoso.example", "Kiosk")
    found = problem_of(
        await world.client.patch(path, headers=partner.headers, json={"name": None}), 422, "validation_failed"
    )
    assert found["errors"][0]["pointer"] == "/name"
    emptied = await world.client.patch(
        path, headers=partner.headers, json={"domain": None, "default_group_tag": None}
    )
    assert (emptied.json()["domain"], emptied.json()["default_group_tag"]) == (None, None)
    assert emptied.json()["name"] == "Consented Ltd"


QUERIES = {
    "/v1/orders?page_token=!!!": "invalid_page_token",
    "/v1/orders?page_token=dXJuOnV1aWQ6": "invalid_page_token",
    "/v1/orders?page_token=%00": "invalid_page_token",
    "/v1/orders?page_token=" + "A" * 501: "invalid_parameter",
    "/v1/orders?page_size=0": "invalid_parameter",
    "/v1/orders?page_size=ten": "invalid_parameter",
    "/v1/orders?since=yesterday": "invalid_parameter",
    "/v1/orders?since=2026-01-01T00:00:00": "invalid_parameter",
    "/v1/orders?since=0.5": "invalid_parameter",
    "/v1/orders?since=1767225600": "invalid_parameter",
    "/v1/orders?since=-1": "invalid_parameter",
    "/v1/registrations?since=1e9": "invalid_parameter",
    "/v1/orders?since=2026-01-01": "invalid_parameter",
    "/v1/orders?since=0001-01-01T00:00:00%2B14:00": "invalid_parameter",
    "/v1/orders?since=9999-12-31T23:59:59-14:00": "invalid_parameter",
    "/v1/orders?reference=a%00b": "invalid_parameter",
    "/v1/orders?customer_id=x": "invalid_parameter",
    "/v1/registrations?state=lost": "invalid_parameter",
    "/v1/registrations?state=held&state=queued": "invalid_parameter",
    "/v1/registrations?serial_prefix=%00": "invalid_parameter",
    "/v1/registrations?line_ref=" + "x" * 256: "invalid_parameter",
    "/v1/batches?state=lost": "invalid_parameter",
    "/v1/customers?domain=%00": "invalid_parameter",
    "/v1/webhook-deliveries?state=lost": "invalid_parameter",
    "/v1/orders/not-an-id": "invalid_parameter",
    "/v1/orders/%00": "invalid_parameter",
}


@pytest.mark.parametrize("path", QUERIES, ids=[path[:60] for path in QUERIES])
async def test_a_parameter_that_can_not_be_used_is_named(world: World, path: str) -> None:
    partner = await world.partner(consented=False)
    found = problem_of(await world.client.get(path, headers=partner.headers), 422, QUERIES[path])
    name = path.partition("?")[2].partition("=")[0] or "order_id"
    assert [(e["pointer"], e["field"]) for e in found["errors"]] == [(name, name)]


@pytest.mark.parametrize(
    "value",
    ["urn:uuid:019b0000-0000-7000-8000-000000000000", "{019b0000000070008000000000000000}"],
    ids=["urn:uuid:", "braces"],
)
async def test_a_token_that_only_python_takes_for_an_id_is_harmless(world: World, value: str) -> None:
    partner = await world.partner(consented=False)
    token = cut([value, value], PageRequest(1, None, bind(str(partner.id), "/v1/orders", [])), str).next_token
    response = await world.client.get(f"/v1/orders?page_token={token}", headers=partner.headers)
    assert (response.status_code, response.json()["items"]) == (200, [])


ROWS: dict[str, tuple[Callable[[], dict[str, Any]], str, str]] = {
    "no identity": (lambda: {"line_ref": "1"}, "missing_identity", ""),
    "blank identity": (lambda: {"serial_number": "  ", "product_key": ""}, "missing_identity", ""),
    "half a tuple": (lambda: {"serial_number": "SYN1"}, "incomplete_tuple", "manufacturer"),
    "Product ID": (
        lambda: {"product_key": "00330-80000-00000-AA123"},
        "product_key_is_product_id",
        "product_key",
    ),
    "25-character key": (
        lambda: {"product_key": LICENSE_KEY},
        "product_key_is_license_key",
        "product_key",
    ),
    "not base64": (lambda: {"hardware_hash": "T0§"}, "hash_not_base64", "hardware_hash"),
    "not a hash": (lambda: {"hardware_hash": "QUJDRA=="}, "hash_not_a_hash", "hardware_hash"),
    "wrong checksum": (
        lambda: {"hardware_hash": a_hash()["hardware_hash"].replace("/", "A", 1).replace("+", "B", 1)},
        "hash_checksum_mismatch",
        "hardware_hash",
    ),
    "truncated": (
        lambda: {"hardware_hash": a_hash()["hardware_hash"][:400]},
        "hash_truncated",
        "hardware_hash",
    ),
    "other serial": (lambda: {**a_hash(), "serial_number": "OTHER"}, "hash_serial_mismatch", "serial_number"),
    "group tag": (lambda: {**TUPLE, "group_tag": "x" * 129}, "group_tag_too_long", "group_tag"),
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_bad_row_refuses_an_order_that_asks_for_it(world: World, name: str) -> None:
    make, code, field = ROWS[name]
    partner = await world.partner(consented=False)
    bad = make()

    response = await world.post_order(
        partner, [TUPLE, bad], on_invalid="reject", headers={"Idempotency-Key": "k"}
    )

    found = problem_of(response, 422, "order_rejected")
    pointer = f"/devices/1/{field}" if field else "/devices/1"
    assert [(e["pointer"], e["row"], e["field"], e["code"]) for e in found["errors"]] == [
        (pointer, 2, field or None, code)
    ]
    assert found["errors"][0]["remedy"] == CATALOGUE[code].remedy
    if "hardware_hash" in bad and len(bad["hardware_hash"]) > 20:
        assert bad["hardware_hash"][:20] not in response.text
    await assert_nothing_stored(world)


@pytest.mark.parametrize("name", ROWS)
async def test_a_bad_row_is_stored_as_invalid_and_the_rest_goes_on(world: World, name: str) -> None:
    make, code, _ = ROWS[name]
    partner = await world.partner()

    response = await world.post_order(partner, [make(), TUPLE])
    assert response.status_code == 201, response.text
    accepted = response.json()
    assert (accepted["counts"]["invalid"], accepted["counts"]["queued"]) == (1, 1)
    await world.work()

    bad, good = await world.rows(partner, accepted["id"])
    assert (bad["state"], bad["error_code"], bad["remedy"]) == ("invalid", code, CATALOGUE[code].remedy)
    assert bad["error_detail"]
    assert bad["batch_id"] is None
    assert bad["identity"] is None
    assert bad["settled_at"] is not None
    assert good["state"] == "registered"
    held = await world.devices_at_microsoft(partner.tenant_id)
    assert [device["serial"] for device in held] == ["SYN1"]


async def test_one_device_twice_is_registered_once_whatever_identifies_it(world: World) -> None:
    partner = await world.partner()
    synthetic_device = next(synthetic(1, seed=9, kind=IdentityKind.HARDWARE_HASH))
    whole = synthetic_device.fields()
    as_tuple = {
        "serial_number": synthetic_device.serial_number,
        "manufacturer": synthetic_device.manufacturer,
        "model": synthetic_device.model,
    }
    response = await world.post_order(partner, [whole, TUPLE, as_tuple, {**TUPLE, "line_ref": "again"}])
    await world.work()
    rows = await world.rows(partner, response.json()["id"])
    assert [row["state"] for row in rows] == ["registered", "registered", "invalid", "invalid"]
    assert [row["error_code"] for row in rows[2:]] == ["duplicate_in_order"] * 2
    assert "row 1" in rows[2]["error_detail"]
    assert "row 2" in rows[3]["error_detail"]
    assert len(await world.devices_at_microsoft(partner.tenant_id)) == 2


@pytest.mark.parametrize(
    "key",
    [LICENSE_KEY, LICENSE_KEY.lower(), LICENSE_KEY.replace("-", "\u2013"), LICENSE_KEY.replace("-", "")],
)
async def test_a_product_key_is_repeated_nowhere(
    world: World, key: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    partner = await world.partner(consented=False)
    device = {**TUPLE, "product_key": f" {key} "}
    ways: list[dict[str, Any]] = [{}, {"on_invalid": "reject"}, {"validate_only": True}]
    with caplog.at_level(logging.DEBUG):
        answers = [await world.post_order(partner, [device, device], **fields) for fields in ways]
        assert [answer.status_code for answer in answers] == [201, 422, 200]
        rows = await world.rows(partner, answers[0].json()["id"])
    assert {row["error_code"] for row in rows} == {"product_key_is_license_key"}
    seen = "\n".join(answer.text for answer in answers) + json.dumps(rows, ensure_ascii=False)
    seen += await world.dump() + caplog.text + "".join(capfd.readouterr())
    for part in (key, key[:11], key[-11:]):
        assert part.casefold() not in seen.casefold()


@pytest.mark.parametrize("name", ["reference", "purchase_order", "group_tag"])
async def test_an_order_with_a_product_key_among_its_own_fields_is_refused(
    world: World, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner(consented=False)
    with caplog.at_level(logging.DEBUG):
        fields: dict[str, Any] = {name: f"PO {LICENSE_KEY}"}
        response = await world.post_order(partner, [TUPLE], **fields)
    found = problem_of(response, 422, "validation_failed")
    assert [(error["pointer"], error["code"]) for error in found["errors"]] == [
        (f"/{name}", "value_is_secret")
    ]
    await assert_nothing_stored(world)
    assert LICENSE_KEY not in response.text + caplog.text


async def test_a_product_key_as_line_reference_is_left_out(world: World) -> None:
    partner = await world.partner(consented=False)
    order = (await world.post_order(partner, [{**TUPLE, "line_ref": LICENSE_KEY}])).json()
    [row] = await world.rows(partner, order["id"])
    assert (row["state"], row["line_ref"]) == ("held", None)
    assert [finding["code"] for finding in row["findings"]] == ["secret_left_out"]
    assert LICENSE_KEY not in await world.dump() + json.dumps(order)


async def test_a_placeholder_is_no_group_tag_of_an_order(world: World) -> None:
    partner = await world.partner(consented=False)
    response = await world.post_order(partner, [TUPLE], group_tag="N/A")
    found = problem_of(response, 422, "validation_failed")
    assert [(error["pointer"], error["code"]) for error in found["errors"]] == [
        ("/group_tag", "value_placeholder")
    ]
    order = (await world.post_order(partner, [{**TUPLE, "group_tag": "N/A"}])).json()
    [row] = await world.rows(partner, order["id"])
    assert row["group_tag"] == order["group_tag"] != "N/A"
    assert [finding["code"] for finding in row["findings"]] == ["value_placeholder"]


async def test_an_order_in_json_is_judged_as_a_file_is(world: World) -> None:
    partner = await world.partner()
    order = (
        await world.post_order(
            partner,
            [
                {**TUPLE, "product_key": "N/A", "hardware_hash": "-"},
                {**TUPLE, "serial_number": '="SYN2"', "product_key": "NULL"},
                {**TUPLE, "serial_number": "SYN31, SYN32"},
                {**TUPLE, "serial_number": "SYN4", "product_key": "00330-80000-00000-AA123"},
            ],
        )
    ).json()
    await world.work()
    rows = await world.rows(partner, order["id"])
    assert [(row["state"], row["identity"], row["serial_number"]) for row in rows] == [
        ("registered", "tuple", "SYN1"),
        ("registered", "tuple", "SYN2"),
        ("invalid", None, "SYN31, SYN32"),
        ("registered", "tuple", "SYN4"),
    ]
    held = await world.devices_at_microsoft(partner.tenant_id)
    assert sorted(device["serial"] for device in held) == ["SYN1", "SYN2", "SYN4"]


async def test_hashes_and_secrets_are_in_no_answer_and_no_readable_column(
    world: World, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    partner = await world.partner()
    device = a_hash()
    secrets = {"client_secret": "synthetic-client-secret", "refresh_token": "synthetic-refresh-token"}
    with caplog.at_level(logging.DEBUG):
        order = await world.post_order(partner, [device])
        connection = await world.client.post(
            "/v1/connections",
            headers=partner.headers,
            json={
                "name": "second",
                "entra_tenant_id": str(uuid4()),
                "client_id": "app",
                "default_group_tag": "x",
                **secrets,
            },
        )
        assert (order.status_code, connection.status_code) == (201, 201)
        paths = [
            f"/v1/orders/{order.json()['id']}",
            f"/v1/orders/{order.json()['id']}/registrations",
            "/v1/batches",
            "/v1/connections",
            connection.headers["location"],
        ]
        got = await asyncio.gather(*(world.client.get(path, headers=partner.headers) for path in paths))
    assert {response.status_code for response in got} == {200}
    answers = order.text + connection.text + "".join(response.text for response in got)
    everywhere = answers + await world.dump() + caplog.text + "".join(capfd.readouterr())
    for secret in (device["hardware_hash"][:40], *secrets.values(), partner.key):
        assert secret not in everywhere


async def test_a_caller_that_goes_away_in_the_middle_of_a_body_is_no_error_of_ours(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    partner = await world.partner(consented=False)
    order = json.dumps(
        {"customer_id": str(partner.customer_id), "reference": "R", "devices": [TUPLE]}
    ).encode()
    arriving = [
        {"type": "http.request", "body": order[:-1], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return arriving.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    key = ("authorization", partner.headers["Authorization"])
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/orders",
        "query_string": b"",
        "headers": [
            (name.encode(), value.encode()) for name, value in (key, ("content-type", "application/json"))
        ],
    }
    await world.app(scope, receive, send)

    assert sent[0]["status"] == 400
    assert "unexpected_error" not in "".join(capfd.readouterr())
    await assert_nothing_stored(world)


# --- repeated names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ('{"serial_number": "A", "serial_number": "B", "manufacturer": "C", "model": "M"}', "serial_number"),
        ('{"serial_number":"A","manufacturer":"C","model":"M","model" : "M"}', "model"),
        ('{"serial_number":"A","manufacturer":"C","model":"M","mo\\u0064el":"M"}', "model"),
    ],
)
@pytest.mark.parametrize("more", [0, 1_100], ids=["small", "large"])
async def test_a_name_that_stands_twice_is_refused_whoever_is_meant(
    world: World, device: str, name: str, more: int
) -> None:
    """`large`: over the size up to which names are compared without counting first."""
    partner = await world.partner()
    hashes = [json.dumps(d.fields()) for d in synthetic(more, seed=8, kind=IdentityKind.HARDWARE_HASH)]
    assert not more or sum(map(len, hashes)) > repeated_keys.SMALL
    rows = ",".join([*hashes, device])
    body = f'{{"customer_id": "{partner.customer_id}", "reference": "R", "devices": [{rows}]}}'
    problem = problem_of(await send(world, partner, body.encode()), 422, "validation_failed")
    assert [error["code"] for error in problem["errors"]] == ["key_repeated"]
    assert repr(name) in problem["detail"]
    assert await world.count("orders") == 0


async def test_colons_in_values_and_blanks_around_them_repeat_no_name(world: World) -> None:
    partner = await world.partner()
    rows = [
        {**device.fields(), "line_ref": f'"PO" : {number}:\n"serial_number":'.replace("\n", " ")}
        for number, device in enumerate(synthetic(1_100, seed=9, kind=IdentityKind.HARDWARE_HASH))
    ]
    for reference, separators in (("blanks", (" , ", " : ")), ("none", (",", ":"))):
        body = json.dumps(
            {"customer_id": str(partner.customer_id), "reference": reference, "devices": rows},
            separators=separators,
        ).encode()
        assert len(body) > repeated_keys.SMALL
        response = await send(world, partner, body)
        assert response.status_code == 201, response.text
        assert response.json()["counts"]["total"] == len(rows)
