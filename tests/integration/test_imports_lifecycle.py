"""The life of an import: listed, discarded, expired and reported; and hidden from other partners."""

from uuid import uuid4

import pytest
from sqlalchemy import text

from tests.integration.test_api_bad_input import problem_of
from tests.support.import_scene import (
    commit,
    committed,
    look,
    preview,
    sheet,
    tuple_rows,
    tuple_sheet,
    upload,
    work_imports,
)
from tests.support.world import Partner, World

STAGED = ("import_pieces", "import_rows", "import_hashes")


async def discard(world: World, partner: Partner, import_id: str):  # type: ignore[no-untyped-def]
    return await world.client.post(f"/v1/imports/{import_id}:discard", headers=partner.headers)


async def staged(world: World) -> int:
    return sum([await world.count(table) for table in STAGED])


@pytest.mark.parametrize("read_first", [False, True])
async def test_a_discarded_import_keeps_its_name_and_loses_its_rows(world: World, read_first: bool) -> None:
    partner = await world.partner()
    import_id = await upload(world, partner, tuple_sheet(5))
    if read_first:
        await work_imports(world)
    assert await staged(world) > 0
    response = await discard(world, partner, import_id)
    assert (response.status_code, response.json()["state"]) == (200, "discarded")
    assert (await discard(world, partner, import_id)).status_code == 200
    await work_imports(world)
    assert await staged(world) == 0
    problem_of(await commit(world, partner, import_id), 409, "invalid_state")
    assert await world.count("orders") == 0


async def test_an_import_that_became_orders_can_not_be_discarded(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(2))
    await commit(world, partner, found["id"])
    problem_of(await discard(world, partner, found["id"]), 409, "invalid_state")
    await work_imports(world)
    problem_of(await discard(world, partner, found["id"]), 409, "invalid_state")
    assert await world.count("orders") == 1


async def test_an_import_that_nobody_commits_expires(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(5))
    world.clock.advance(days=6.9)
    await work_imports(world)
    assert (await look(world, partner, found["id"]))["state"] == "ready"
    world.clock.advance(days=0.2)
    await work_imports(world)
    assert (await look(world, partner, found["id"]))["state"] == "expired"
    assert await staged(world) == 0
    problem_of(await commit(world, partner, found["id"]), 409, "invalid_state")
    assert await work_imports(world) == 0, "nothing is looked at forever"


async def test_a_committed_import_stays_committed_when_its_rows_go(world: World) -> None:
    partner = await world.partner()
    final = await committed(world, partner, (await preview(world, partner, tuple_sheet(5)))["id"])
    assert await staged(world) == 5
    world.clock.advance(days=7.1)
    await work_imports(world)
    kept = await look(world, partner, final["id"])
    assert (kept["state"], kept["orders"], kept["counts"]) == ("committed", final["orders"], final["counts"])
    assert await staged(world) == 0
    assert await world.count("registrations") == 5


async def test_an_unfinished_import_is_found_by_the_sweep(world: World) -> None:
    from app.services.operations import sweep

    partner = await world.partner()
    await upload(world, partner, tuple_sheet(2))
    assert (await sweep.sweep(world.runtime))["imports"] == 1
    await work_imports(world)
    assert (await sweep.sweep(world.runtime))["imports"] == 0


async def test_imports_are_listed_newest_first_page_by_page(world: World) -> None:
    partner = await world.partner()
    ids = [await upload(world, partner, tuple_sheet(1, f"S{n}")) for n in range(5)]
    seen: list[str] = []
    token = None
    while True:
        given = {"page_size": 2, **({"page_token": token} if token else {})}
        response = await world.client.get("/v1/imports", params=given, headers=partner.headers)
        seen += [found["id"] for found in response.json()["items"]]
        token = response.json()["next_page_token"]
        if token is None:
            break
    assert seen == ids[::-1]
    await work_imports(world)
    await discard(world, partner, ids[0])
    only = await world.client.get("/v1/imports?state=discarded", headers=partner.headers)
    assert [found["id"] for found in only.json()["items"]] == [ids[0]]


async def test_rows_are_paged_in_the_files_order(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(7))
    first = await look(world, partner, found["id"], "/rows", page_size=4)
    rest = await look(world, partner, found["id"], "/rows", page_size=4, page_token=first["next_page_token"])
    assert [row["row"] for row in (*first["items"], *rest["items"])] == list(range(1, 8))
    assert rest["next_page_token"] is None


async def test_another_partners_import_looks_unknown(world: World) -> None:
    owner, stranger = await world.partner(), await world.partner()
    found = await preview(world, owner, sheet(("Serial Number",), [["X"]]))
    before = await world.dump()
    for method, path in (
        ("GET", ""),
        ("GET", "/rows"),
        ("GET", "/problems"),
        ("GET", "/errors.csv"),
        ("POST", ":commit"),
        ("POST", ":discard"),
    ):
        answers = []
        for import_id in (found["id"], str(uuid4())):
            response = await world.client.request(
                method,
                f"/v1/imports/{import_id}{path}",
                headers=stranger.headers,
                json={} if path == ":commit" else None,
            )
            problem_of(response, 404, "not_found")
            answers.append(
                response.text.replace(import_id, "*").replace(response.headers["x-correlation-id"], "*")
            )
        assert answers[0] == answers[1]
    listed = await world.client.get("/v1/imports", headers=stranger.headers)
    assert listed.json()["items"] == []
    assert await world.dump() == before


async def test_a_customer_of_another_partner_is_never_found_by_its_name(world: World) -> None:
    owner, stranger = await world.partner(), await world.partner()
    data = sheet(
        ("Serial Number", "Manufacturer", "Model", "Customer"),
        tuple_rows(1, "SYN", str(owner.tenant_id)),
    )
    found = await preview(world, stranger, data, customer_id=None)
    assert [p["code"] for p in found["preview"]["problems"]] == ["customer_not_found"]


async def test_subscribers_hear_of_imports(world: World) -> None:
    partner = await world.partner()
    await committed(world, partner, (await preview(world, partner, tuple_sheet(3)))["id"])
    await preview(world, partner, b"%PDF-1.7 nothing")
    events = await world.select("SELECT type, data FROM events WHERE type LIKE 'import.%' ORDER BY id")
    assert [event["type"] for event in events] == ["import.ready", "import.committed", "import.refused"]
    ready, made, refused = (event["data"] for event in events)
    assert (ready["rows"], ready["counts"]["valid"], ready["orders"]) == (3, 3, [])
    assert [order["reference"] for order in made["orders"]] == [made["reference"]]
    assert (refused["state"], refused["failure"]) == ("refused", "file_is_pdf")
    accepted = await world.select("SELECT data FROM events WHERE type = 'order.accepted'")
    assert [event["data"]["order_id"] for event in accepted] == [made["orders"][0]["order_id"]]


async def test_nothing_of_the_rows_is_told_or_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    partner = await world.partner()
    caplog.set_level("DEBUG")
    found = await preview(world, partner, sheet(("Serial Number",), [["SECRETSERIAL"]]))
    await look(world, partner, found["id"])
    events = await world.select("SELECT CAST(data AS text) AS data FROM events")
    assert all("SECRETSERIAL" not in event["data"] for event in events)
    assert "SECRETSERIAL" not in caplog.text


async def test_codes_that_the_release_before_stored_are_shown_under_their_present_names(world: World) -> None:
    partner = await world.partner()
    refused = await preview(world, partner, b"%PDF-1.7 nothing")
    header = ("Serial Number", "Manufacturer", "Model", "Order line")
    ready = await preview(world, partner, sheet(header, tuple_rows(1, "SYN", "4711")))
    assert refused["failure"]["code"] == "file_is_pdf"
    assert [notice["code"] for notice in ready["dialect"]["notices"]] == ["column_not_sent"]
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE imports SET failure_code = 'pdf' WHERE failure_code = 'file_is_pdf'")
        )
        await tx.session.execute(
            text(
                "UPDATE imports SET dialect = jsonb_set(dialect, '{notices,0,code}', CAST(:code AS jsonb)) "
                "WHERE id = :id"
            ),
            {"id": ready["id"], "code": '"column_own"'},
        )
    assert (await look(world, partner, refused["id"]))["failure"] == refused["failure"]
    assert (await look(world, partner, ready["id"]))["dialect"] == ready["dialect"]
    former = await world.client.get("/v1/error-codes/pdf")
    assert (former.status_code, former.json()["code"]) == (200, "file_is_pdf")
