"""Reading an import: each row's content and verdict, and the preview of a commit."""

import gzip

import pytest

from app.domain.identity import IdentityKind
from app.local.synthetic import devices
from app.services.imports import turns, work
from app.services.imports.reading import CHUNK, Stopping
from tests.support.import_scene import (
    HEADER,
    look,
    preview,
    sheet,
    tuple_rows,
    tuple_sheet,
    upload,
    work_imports,
)
from tests.support.workbooks import workbook
from tests.support.world import World


async def test_a_file_becomes_a_preview_with_every_row_judged(world: World) -> None:
    partner = await world.partner()
    rows = [*tuple_rows(3), ["SYN00009", "Contoso", ""], ["SYN00001", "Contoso", "Contoso Book 14"]]
    found = await preview(world, partner, sheet(HEADER, rows), file_name="supplier.csv")

    assert found["state"] == "ready_with_errors"
    assert found["counts"] == {"total": 5, "valid": 3, "warning": 0, "invalid": 2}
    assert found["progress"] == {
        "rows_read": 5,
        "bytes_read": len(sheet(HEADER, rows)),
        "size_bytes": len(sheet(HEADER, rows)),
    }
    assert [column["field"] for column in found["dialect"]["columns"]] == [
        "serial_number",
        "manufacturer",
        "model",
    ]
    assert found["preview"]["batches"] == 1
    assert found["preview"]["group_tags"] == [
        {"customer_id": str(partner.customer_id), "group_tag": "Standard", "devices": 3, "batches": 1}
    ]
    problems = {p["code"]: p["first_rows"] for p in found["preview"]["problems"]}
    assert problems == {"incomplete_tuple": [4], "duplicate_in_order": [5]}

    shown = (await look(world, partner, found["id"], "/rows", verdict="invalid"))["items"]
    assert [(row["row"], row["line"], row["verdict"]) for row in shown] == [
        (4, 5, "invalid"),
        (5, 6, "invalid"),
    ]
    only = (await look(world, partner, found["id"], "/rows", code="incomplete_tuple"))["items"]
    assert [row["row"] for row in only] == [4]
    listed = (await look(world, partner, found["id"], "/problems"))["items"]
    assert [(p["row"], p["code"], p["severity"]) for p in listed] == [
        (4, "incomplete_tuple", "error"),
        (5, "duplicate_in_order", "error"),
    ]
    assert all(p["remedy"] for p in listed)


async def test_a_clean_file_is_ready_and_its_bytes_are_gone(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, tuple_sheet(2500))
    assert found["state"] == "ready"
    assert found["counts"] == {"total": 2500, "valid": 2500, "warning": 0, "invalid": 0}
    assert found["preview"]["batches"] == 3
    assert await world.count("import_pieces") == 0
    assert await world.count("import_rows") == 2500


async def test_a_stated_encoding_is_used_and_outranks_the_guess(world: World) -> None:
    partner = await world.partner()
    data = "Serial Number,Manufacturer,Model,Group Tag\r\nSYN1,HP,X,Gdańsk\r\n".encode("cp1250")
    guessed = await preview(world, partner, data)
    assert "encoding_guessed" in [notice["code"] for notice in guessed["dialect"]["notices"]]
    found = await preview(world, partner, data, encoding="windows-1250")
    assert found["dialect"]["encoding"] == "cp1250"
    assert found["dialect"]["notices"] == []
    assert [tag["group_tag"] for tag in found["preview"]["group_tags"]] == ["Gdańsk"]


async def test_two_devices_of_one_line_are_two_rows_with_its_number(world: World) -> None:
    partner = await world.partner()
    data = b"Serial,Make,Model,Serial,Make,Model\nSYN1,HP,X,SYN2,Dell Inc.,\nSYN3,HP,X,,,\n"
    found = await preview(world, partner, data)
    rows = (await look(world, partner, found["id"], "/rows"))["items"]
    assert [(row["row"], row["line"], row["verdict"]) for row in rows] == [
        (1, 2, "valid"),
        (2, 2, "invalid"),
        (3, 3, "valid"),
    ]


async def test_a_compressed_file_is_read_like_a_bare_one(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, gzip.compress(tuple_sheet(3)))
    assert (found["state"], found["counts"]["valid"]) == ("ready", 3)


async def test_json_lines_and_workbooks_are_read_too(world: World) -> None:
    partner = await world.partner()
    lines = b"".join(
        b'{"serial_number": "SYN%d", "manufacturer": "Contoso", "model": "Book"}\n' % number
        for number in range(3)
    )
    found = await preview(world, partner, lines)
    assert (found["state"], found["dialect"]["format"]) == ("ready", "jsonl"), found["failure"]
    book = workbook({"Devices": [list(HEADER), *tuple_rows(3)]})
    found = await preview(world, partner, book)
    assert (found["state"], found["dialect"]["format"], found["counts"]["valid"]) == ("ready", "xlsx", 3)


async def test_two_rows_that_a_third_one_shows_to_be_one_device_become_one(world: World) -> None:
    """The first rows were checked long before; the second row's verdict is corrected at the end."""
    partner = await world.partner()
    [device] = devices(1, seed=7, kind=IdentityKind.HARDWARE_HASH)
    header = ("Device Serial Number", "Windows Product ID", "Hardware Hash", "Manufacturer", "Model")
    rows = [
        [device.serial_number, "", "", device.manufacturer, device.model],
        ["", device.product_key, "", "", ""],
        [device.serial_number, "", str(device.hardware_hash), "", ""],
    ]
    found = await preview(world, partner, sheet(header, rows))
    assert found["counts"] == {"total": 3, "valid": 1, "warning": 0, "invalid": 2}
    assert found["preview"]["changed"] == 0
    invalid = (await look(world, partner, found["id"], "/rows", verdict="invalid"))["items"]
    assert [row["row"] for row in invalid] == [2, 3]
    assert found["preview"]["group_tags"][0]["devices"] == 1


async def test_a_file_whose_columns_change_on_its_way_is_given_back_as_it_was(world: World) -> None:
    partner = await world.partner()
    data = (
        b"Serial Number,Manufacturer,Model\r\nSYN1,Contoso,\r\n"
        b"Model,Serial Number,Manufacturer\r\nBook,SYN2,Contoso\r\n,SYN3,Contoso\r\n"
    )
    found = await preview(world, partner, data)
    assert found["counts"] == {"total": 3, "valid": 0, "warning": 1, "invalid": 2}, found["preview"]
    response = await world.client.get(f"/v1/imports/{found['id']}/errors.csv", headers=partner.headers)
    again = await preview(world, partner, response.content)
    listed = (await look(world, partner, again["id"], "/rows"))["items"]
    assert [(row["serial_number"], row["manufacturer"], row["model"]) for row in listed] == [
        ("SYN1", "Contoso", None),
        ("SYN3", "Contoso", None),
    ]


async def test_progress_is_visible_while_a_file_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICE", 3600.0)  # it also checks between slices
    partner = await world.partner()
    import_id = await upload(world, partner, tuple_sheet(3 * CHUNK))
    seen = []

    def stop_after_a_chunk() -> bool:
        seen.append(True)
        return len(seen) > 2  # checks happen before the claim and before each chunk

    with pytest.raises(Stopping):
        await work.advance_next(world.runtime, stop_after_a_chunk)
    found = await look(world, partner, import_id)
    assert (found["state"], found["progress"]["rows_read"]) == ("reading", CHUNK)
    assert 0 < found["progress"]["bytes_read"] <= found["progress"]["size_bytes"]
    assert found["counts"]["valid"] == CHUNK
    assert found["dialect"]["format"] == "delimited"
    assert found["preview"] is None
    assert len((await look(world, partner, import_id, "/rows"))["items"]) == 50
    await work_imports(world)
    assert (await look(world, partner, import_id))["counts"]["valid"] == 3 * CHUNK


async def test_a_file_that_breaks_off_far_behind_is_refused_and_nothing_of_it_stays(world: World) -> None:
    partner = await world.partner()
    broken = gzip.compress(tuple_sheet(5 * CHUNK))[:-20]
    found = await preview(world, partner, broken)
    assert found["state"] == "refused"
    assert found["progress"]["rows_read"] == 0, "its lines were counted before a row was staged"
    assert found["failure"]["remedy"]
    assert [await world.count(name) for name in ("import_rows", "import_pieces")] == [0, 0]
