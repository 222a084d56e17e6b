"""Workbooks as imports: the sheet that is read, hidden rows and columns, and line numbers."""

from pathlib import Path
from typing import Any

import pytest

from app.cli.outcome import ExitCode
from tests.integration.test_api_bad_input import problem_of
from tests.integration.test_imports_cli import run
from tests.support import workbooks
from tests.support.import_scene import HEADER, committed, look, preview, send, sheet, tuple_rows
from tests.support.world import World


def two_sheets() -> bytes:
    table = [HEADER, *map(tuple, tuple_rows(2))]
    return workbooks.workbook(
        {"Berlin": table, "Hamburg": [*table, ("SYN00009", "Contoso", "Contoso Book 14")]}
    )


def hidden_row() -> bytes:
    rows = [HEADER, *map(tuple, tuple_rows(3))]
    text = workbooks.sheet(rows).replace('<row r="3">', '<row r="3" hidden="1">')
    return workbooks.workbook({"A": []}, shared=False, parts={"xl/worksheets/sheet1.xml": text})


async def test_the_sheet_that_is_asked_for_is_read(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, two_sheets())
    assert (found["dialect"]["sheet"], found["counts"]["total"]) == ("Berlin", 2)
    (notice,) = found["dialect"]["notices"]
    assert (notice["code"], "(3 rows look like devices)" in notice["detail"]) == ("sheets_with_devices", True)
    found = await preview(world, partner, two_sheets(), sheet="Hamburg", reference="other")
    assert (found["dialect"]["sheet"], found["counts"]["total"]) == ("Hamburg", 3)
    found = await preview(world, partner, two_sheets(), sheet="Bremen")
    assert (found["state"], found["failure"]["code"]) == ("refused", "sheet_unknown")


@pytest.mark.parametrize(
    "said, total", [({}, 2), ({"include_hidden": "True"}, 3), ({"include_hidden": "false"}, 2)]
)
async def test_hidden_rows_are_ordered_only_when_asked_for(
    world: World, said: dict[str, Any], total: int
) -> None:
    partner = await world.partner()
    found = await preview(world, partner, hidden_row(), **said)
    assert found["counts"]["total"] == total
    codes = [notice["code"] for notice in found["dialect"]["notices"]]
    assert ("rows_hidden" in codes) is (said == {})
    final = await committed(world, partner, found["id"])
    order = await world.client.get(f"/v1/orders/{final['orders'][0]['order_id']}", headers=partner.headers)
    assert order.json()["counts"]["total"] == total


async def test_what_is_neither_true_nor_false_is_refused(world: World) -> None:
    partner = await world.partner()
    response = await send(
        world, partner, hidden_row(), customer_id=str(partner.customer_id), include_hidden="maybe"
    )
    problem_of(response, 422, "validation_failed")


async def test_a_row_has_its_line_and_its_number_wherever_it_is_shown(world: World) -> None:
    partner = await world.partner()
    rows = [["Delivery of May", "", ""], list(HEADER), *tuple_rows(1), ["SYN9", "", ""]]
    found = await preview(world, partner, sheet(("Contoso", "", ""), rows))
    (problem,) = found["preview"]["problems"]
    assert (problem["first_rows"], problem["first_lines"]) == ([2], [5])
    (row,) = (await look(world, partner, found["id"], "/rows", verdict="invalid"))["items"]
    assert (row["row"], row["line"]) == (2, 5)
    response = await world.client.get(f"/v1/imports/{found['id']}/errors.csv", headers=partner.headers)
    head, line = response.text.lstrip("\ufeff").splitlines()
    assert head.startswith("line,row,code,")
    assert line.startswith("5,2,incomplete_tuple,")


async def test_the_command_says_what_is_not_read_and_ends_accordingly(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "two.xlsx"
    file.write_bytes(two_sheets())
    arguments = (str(file), "--customer", "Consented Ltd")
    looked = await run(world, partner, *arguments)
    assert looked.exit_code == ExitCode.PARTIAL, looked.output
    assert "Not read: 'Hamburg' (3 rows look like devices)" in looked.output
    chosen = await run(world, partner, *arguments, "--sheet", "Hamburg")
    assert chosen.exit_code == ExitCode.DONE, chosen.output
    file.write_bytes(sheet(("Title", "", ""), [list(HEADER), ["SYN9", "", ""]]))
    wrong = await run(world, partner, *arguments)
    assert "Lines of the file" in wrong.output
    assert "1 device left out: invalid." in wrong.output
