"""Uploading a file: raw or in a form, whole or interrupted, repeated, too large, or hostile."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.api.http.multipart import MAX_FIELD, MAX_FIELDS
from app.services.imports import imports
from tests.integration.test_api_bad_input import problem_of
from tests.support.import_scene import look, preview, send, tuple_sheet, upload, work_imports
from tests.support.serving import serving
from tests.support.world import World

BOUNDARY = "a-boundary-of-the-form"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def form(data: bytes, file_name: str = "supplier.csv", **fields: str) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: text/csv\r\n\r\n"
    )
    return b"".join((*parts, head.encode(), data, f"\r\n--{BOUNDARY}--\r\n".encode()))


async def nothing_is_left(world: World) -> bool:
    return (await world.count("imports"), await world.count("import_pieces")) == (0, 0)


async def test_a_bare_file_is_taken_and_says_where_it_is(world: World) -> None:
    partner = await world.partner()
    data = tuple_sheet(3)
    response = await send(
        world,
        partner,
        data,
        customer_id=str(partner.customer_id),
        reference=" PO-1 ",
        purchase_order="4711",
        group_tag="Kiosk",
        file_name="a b.csv",
    )
    assert response.status_code == 201, response.text
    found = response.json()
    assert response.headers["location"] == f"/v1/imports/{found['id']}"
    assert (found["state"], found["reference"], found["purchase_order"]) == ("uploaded", "PO-1", "4711")
    assert (found["group_tag"], found["file_name"]) == ("Kiosk", "a b.csv")
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert found["progress"]["size_bytes"] == len(data)
    waiting = await world.client.get(response.headers["location"], headers=partner.headers)
    assert waiting.headers["retry-after"] == "2"


async def test_a_file_in_a_form_is_read_like_a_bare_one(world: World) -> None:
    partner = await world.partner()
    body = form(tuple_sheet(3), customer_id=str(partner.customer_id), reference="PO-2")
    response = await send(world, partner, body, headers=FORM)
    assert response.status_code == 201, response.text
    found = response.json()
    assert (found["file_name"], found["reference"]) == ("supplier.csv", "PO-2")
    assert found["sha256"] == hashlib.sha256(tuple_sheet(3)).hexdigest()
    await work_imports(world)
    read = await look(world, partner, found["id"])
    assert (read["state"], read["counts"]["valid"]) == ("ready", 3)


async def test_a_form_is_taken_apart_wherever_its_chunks_are_cut(world: World) -> None:
    partner = await world.partner()
    body = form(tuple_sheet(3), customer_id=str(partner.customer_id))

    async def bit_by_bit() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    response = await world.client.post(
        "/v1/imports", content=bit_by_bit(), headers={**partner.headers, **FORM}
    )
    assert response.json()["sha256"] == hashlib.sha256(tuple_sheet(3)).hexdigest()


async def test_a_file_of_several_pieces_comes_out_as_it_went_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "PIECE", 1000)
    partner = await world.partner()
    data = tuple_sheet(400)
    import_id = await upload(world, partner, data)
    assert await world.count("import_pieces") == -(-len(data) // 1000)
    await work_imports(world)
    found = await look(world, partner, import_id)
    assert (found["counts"]["valid"], found["progress"]["bytes_read"]) == (400, len(data))


async def test_without_a_reference_the_file_itself_is_one(world: World) -> None:
    partner = await world.partner()
    first = await send(world, partner, tuple_sheet(1), file_name="June.csv")
    again = await send(world, partner, tuple_sheet(1), file_name="June.csv")
    other = await send(world, partner, tuple_sheet(2), file_name="June.csv")
    assert first.json()["reference"] == again.json()["reference"] != other.json()["reference"]
    assert first.json()["reference"].startswith("June ")


# --- twice ----------------------------------------------------------------------------------------


async def test_a_key_gives_the_first_answer_again_and_keeps_no_second_file(world: World) -> None:
    partner = await world.partner()
    key = {"Idempotency-Key": "k-1"}
    first = await send(world, partner, tuple_sheet(2), headers=key, reference="PO-1")
    again = await send(world, partner, tuple_sheet(2), headers=key, reference="PO-1")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await world.count("imports"), await world.count("import_pieces")) == (1, 1)


async def test_a_key_with_another_file_or_other_words_is_refused(world: World) -> None:
    partner = await world.partner()
    key = {"Idempotency-Key": "k-1"}
    await send(world, partner, tuple_sheet(2), headers=key)
    other = await send(world, partner, tuple_sheet(3), headers=key)
    problem_of(other, 422, "idempotency_key_reused")
    renamed = await send(world, partner, tuple_sheet(2), headers=key, reference="PO-2")
    problem_of(renamed, 422, "idempotency_key_reused")
    assert await world.count("imports") == 1


async def test_one_key_at_the_same_time_makes_one_import(world: World) -> None:
    partner = await world.partner()
    answers = await asyncio.gather(
        *(send(world, partner, tuple_sheet(2), headers={"Idempotency-Key": "k-1"}) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert await world.count("imports") == 1


# --- refused --------------------------------------------------------------------------------------


async def test_what_can_be_refused_beforehand_is_refused_before_the_file_is_taken(world: World) -> None:
    partner, stranger = await world.partner(), await world.partner()
    data = tuple_sheet(1)
    problem_of(await send(world, partner, data, customer_id=str(uuid4())), 404, "unknown_customer")
    theirs = await send(world, partner, data, customer_id=str(stranger.customer_id))
    problem_of(theirs, 404, "unknown_customer")
    problem_of(await send(world, partner, data, profile="Nobody's"), 404, "unknown_profile")
    problem_of(await send(world, partner, data, customer_id="12"), 422, "validation_failed")
    problem_of(await send(world, partner, data, group_tag="x" * 200), 422, "validation_failed")
    problem_of(await send(world, partner, data, reference="x" * 241), 422, "validation_failed")
    unknown = problem_of(await send(world, partner, data, encoding="klingon"), 422, "validation_failed")
    assert "cp1251" in unknown["errors"][0]["detail"]
    problem_of(await send(world, partner, data, refrence="PO"), 422, "invalid_parameter")
    coded = await send(world, partner, data, headers={"Content-Encoding": "br"})
    problem_of(coded, 415, "unsupported_media_type")
    assert await nothing_is_left(world)


async def test_a_file_over_the_limit_is_refused_and_leaves_nothing(world: World) -> None:
    partner = await world.partner()
    limit = {"max_import_bytes": 5000}
    async with world.served(**limit):
        found = problem_of(await send(world, partner, tuple_sheet(400)), 413, "import_too_large")
    assert "5,000" in found["detail"]
    assert await nothing_is_left(world)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "upload_broken_off"),
        (b"no form at all", "validation_failed"),
        (form(b"a,b\r\n")[:-30], "upload_broken_off"),
        (f"--{BOUNDARY}\r\n\r\nvalue\r\n--{BOUNDARY}--\r\n".encode(), "validation_failed"),
        (form(b"x", reference="y" * (MAX_FIELD + 1)), "validation_failed"),
        (form(b"x", **{f"f{n}": "" for n in range(MAX_FIELDS + 1)}), "validation_failed"),
        (form(b"x", refrence="PO-1"), "validation_failed"),
        (form(b"x", customer_id="\x00"), "validation_failed"),
        (form(b"x").replace(b"--\r\n", b"\r\n") + form(b"y"), "validation_failed"),
        (b"--" + BOUNDARY.encode() + b"\r\n" + b"x" * 20_000, "validation_failed"),
        (os.urandom(3000), "validation_failed"),
    ],
)
async def test_a_form_that_is_none_is_refused_in_words_and_leaves_nothing(
    world: World, body: bytes, code: str
) -> None:
    partner = await world.partner()
    problem_of(await send(world, partner, body, headers=FORM), 422, code)
    assert await nothing_is_left(world)


@pytest.mark.parametrize("content_type", ["multipart/form-data", f"multipart/form-data; boundary={'x' * 71}"])
async def test_a_form_without_a_usable_boundary_is_refused(world: World, content_type: str) -> None:
    partner = await world.partner()
    response = await send(world, partner, form(b"x"), headers={"Content-Type": content_type})
    problem_of(response, 422, "validation_failed")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + os.urandom(200), "file_is_pdf"),
        (b"<html><body>Sign in</body></html>", "file_is_web_page"),
        (b"Device Serial Number,Manufacturer name,Device model\r\n", None),
    ],
)
async def test_a_file_that_gives_no_rows_ends_as_refused_with_words(
    world: World, data: bytes, code: str | None
) -> None:
    partner = await world.partner()
    found = await preview(world, partner, data)
    assert found["state"] == "refused"
    assert found["failure"]["detail"]
    assert found["failure"]["remedy"]
    assert code is None or found["failure"]["code"] == code
    assert (await world.count("import_pieces"), await world.count("import_rows")) == (0, 0)


async def test_hostile_bytes_never_break_the_reading(world: World) -> None:
    partner = await world.partner()
    for data, state in (
        (b"\x00" * 5000, "refused"),
        (random.Random(1).randbytes(20_000), "refused"),
        (b"Device Serial Number\r\n" + b'"' * 50_000, "ready_with_errors"),
        (b"Device Serial Number,Manufacturer name,Device model\r\n" + b"," * 100_000, "ready_with_errors"),
        ("Serial Number,Manufacturer\r\n\u202e=cmd|,'; DROP TABLE,\ud7ff\r\n".encode(), "ready_with_errors"),
        (b"Device Serial Number,Manufacturer name,Device model\r\nS\x001,M\xff,\x1b[31m\r\n", "refused"),
    ):
        found = await preview(world, partner, data)
        assert found["state"] == state, found


# --- broken off -----------------------------------------------------------------------------------


async def test_an_upload_whose_connection_ends_leaves_nothing(world: World) -> None:
    partner = await world.partner()
    async with serving(world) as (host, port):
        _, line = await asyncio.open_connection(host, port)
        line.write(
            f"POST /v1/imports HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {partner.key}\r\n"
            f"Content-Length: {3 * imports.PIECE}\r\n\r\n".encode()
        )
        line.write(b"x" * (imports.PIECE + 1))
        await line.drain()
        await until(world, "SELECT count(*) AS n FROM import_pieces", 1)
        line.transport.abort()
        await until(world, "SELECT count(*) AS n FROM imports", 0)
    assert await nothing_is_left(world)


async def until(world: World, statement: str, wanted: int, *, within: float = 45.0) -> None:
    async with asyncio.timeout(within):
        while (await world.select(statement))[0]["n"] != wanted:  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.02)


async def test_an_upload_whose_process_died_is_discarded_when_nothing_comes_any_more(world: World) -> None:
    partner = await world.partner()
    begun = await imports.Upload.begin(world.runtime, partner)
    await begun.feed(b"x" * imports.PIECE)
    assert (await look(world, partner, str(begun.id)))["state"] == "uploading"
    assert await work_imports(world) == 0
    world.clock.advance(hours=1.1)
    assert await work_imports(world) == 2
    assert (await look(world, partner, str(begun.id)))["state"] == "discarded"
    assert await world.count("import_pieces") == 0
    assert await work_imports(world) == 0
