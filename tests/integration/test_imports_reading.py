"""From a file to a preview: what was read, row by row, and what committing would do."""

import gzip

from tests.import_scene import HEADER, look, preview, sheet, tuple_rows, tuple_sheet
from tests.world import World


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


async def test_a_compressed_file_is_read_like_a_bare_one(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, gzip.compress(tuple_sheet(3)))
    assert (found["state"], found["counts"]["valid"]) == ("ready", 3)
