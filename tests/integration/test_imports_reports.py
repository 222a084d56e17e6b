"""Downloads: rows to correct and upload again, and the outcome of every row of an order."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from app.cli import app
from app.domain.identity import Device, IdentityKind
from app.domain.imports import Verdict
from app.domain.masking import holds_hash
from app.domain.scope import Scope
from app.intake.corrections import ADDED
from app.local.synthetic import devices
from app.services.access import identities
from app.services.imports.reports import RESULT_COLUMNS
from tests.integration.test_api_bad_input import problem_of
from tests.support.import_scene import (
    HEADER,
    committed,
    look,
    preview,
    send,
    sheet,
    tuple_rows,
    tuple_sheet,
    upload,
    work_imports,
)
from tests.support.world import Partner, World


async def download(world: World, partner: Partner, path: str) -> str:
    response = await world.client.get(path, headers=partner.headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in response.headers["content-disposition"]
    return response.content.decode("utf-8-sig")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


async def test_errors_come_back_as_they_were_sent_with_what_to_do(world: World) -> None:
    partner = await world.partner()
    header = (*HEADER, "Colour")
    rows = [*tuple_rows(2, "SYN", "red"), [" SYN9 ", "Contoso", "", "blue, or so"]]
    found = await preview(world, partner, sheet(header, rows))
    [row] = table(await download(world, partner, f"/v1/imports/{found['id']}/errors.csv"))
    assert [row[name] for name in header] == rows[2]
    assert (row["row"], row["code"]) == ("3", "incomplete_tuple value_trimmed")
    assert row["problem"]
    assert row["remedy"]


async def without_hashes(world: World, partner: Partner) -> Partner:
    """The partner with a key that may do everything except read hashes."""
    scopes = [scope for scope in Scope if scope is not Scope.HASHES_READ]
    key = await identities.create_key(world.runtime, partner, name="no hashes", scopes=scopes)
    return replace(partner, key=key.secret)


async def test_hashes_come_back_only_to_who_may_read_them(world: World) -> None:
    """Whole, cut, with a repaired letter, and in another column: other keys get no part of one."""
    partner = await world.partner()
    reader = await without_hashes(world, partner)
    given = [str(device.hardware_hash) for device in devices(4, seed=7, kind=IdentityKind.HARDWARE_HASH)]
    header = (*HEADER, "Hardware Hash", "Remark")
    hashes = [given[0], given[1][:-8], given[2] + "\n", ""]
    marked = [*hashes[:3], given[3]]
    rows = [["N/A", "", "", cell, "x"] for cell in hashes[:3]]
    rows.append(["", "Contoso", "", "", given[3]])
    found = await preview(world, partner, sheet(header, rows))
    path = f"/v1/imports/{found['id']}/errors.csv?verdict={{}}"
    whole = shown = ""
    for verdict in Verdict:
        whole += await download(world, partner, path.format(verdict.value))
        shown += await download(world, reader, path.format(verdict.value))
    assert given[0] in whole
    assert given[1][:-8] in whole
    assert len(table(shown)) == len(table(whole))
    for text in marked:
        assert text[:60] not in shown
        assert text[-60:].strip() not in shown
    assert not holds_hash(shown)


async def test_a_25_character_product_key_is_neither_kept_nor_given_back(world: World) -> None:
    partner = await world.partner()
    key = "-".join(f"{letter}1234" for letter in "ABCDE")
    header = (*HEADER, "Product Key", "Sticker")
    rows = [[*tuple_rows(1)[0], "", key], ["SYN8", "Contoso", "Book", key.replace("-", ""), "red"]]
    found = await preview(world, partner, sheet(header, rows))
    [row] = table(await download(world, partner, f"/v1/imports/{found['id']}/errors.csv"))
    assert (row["code"], row["Product Key"]) == ("product_key_is_license_key", "")
    assert (row[HEADER[0]], row["Sticker"]) == ("SYN8", "red")
    kept = await world.dump()
    assert "SYN8" in kept
    assert key not in kept
    assert key.replace("-", "") not in kept


async def test_a_secret_in_any_column_is_neither_kept_nor_given_back(world: World) -> None:
    partner = await world.partner()
    key = "-".join(["VK7JG", "NPHTM", "C97JM", "9MPGT", "3V66T"])
    [device] = devices(1, seed=8, kind=IdentityKind.HARDWARE_HASH)
    piece = str(device.hardware_hash)[40:120]
    header = (*HEADER, "Customer", "Purchase Order", "Assigned User", "Line", "Sticker")
    rows = [
        ["SYN1", "Contoso", "Book", key, f"PO {key}", key, key, f"{key} {piece}"],
        ["SYN2", "Contoso", "", key, piece, piece, key, f"{key} {piece}"],
        [piece, "Contoso", "Book", "", "", "", "", ""],
    ]
    found = await preview(world, partner, sheet(header, rows))
    assert (found["counts"]["valid"] + found["counts"]["warning"], found["counts"]["invalid"]) == (1, 2)
    errors = await download(world, partner, f"/v1/imports/{found['id']}/errors.csv")
    final = await committed(world, partner, found["id"])
    await world.work()
    results = await download(world, partner, f"/v1/orders/{final['orders'][0]['order_id']}/result.csv")
    seen = errors + results + json.dumps(found) + json.dumps(final) + await world.dump()
    assert "SYN1" in seen
    assert "secret_left_out" in seen
    for part in (key, key[:11], key[-11:], piece):
        assert part not in seen


async def test_mended_errors_can_be_uploaded_again_and_again(world: World) -> None:
    partner = await world.partner()
    [device] = devices(1, seed=8, kind=IdentityKind.HARDWARE_HASH)
    header = (*HEADER, "Hardware Hash")
    rows = [["SYN1", "Contoso", "", ""], [f"{device.serial_number}-other", "", "", str(device.hardware_hash)]]
    data = sheet(header, rows)
    for _ in range(2):
        found = await preview(world, partner, data)
        assert found["counts"]["invalid"] == 2
        data = (await download(world, partner, f"/v1/imports/{found['id']}/errors.csv")).encode("utf-8-sig")
        given_back = table(data.decode("utf-8-sig"))
        assert list(given_back[0]) == [*ADDED, *header]
        assert [[row[name] for name in header] for row in given_back] == rows
    mended = data.replace(b"SYN1,Contoso,,", b"SYN1,Contoso,Book,").replace(b"-other", b"")
    found = await preview(world, partner, mended)
    assert (found["state"], found["counts"]["invalid"]) == ("ready", 0), found["preview"]
    assert found["dialect"]["columns_unused"] == []


async def test_the_service_and_a_dry_run_on_the_spot_write_the_same_errors(
    world: World, tmp_path: Path
) -> None:
    """Warnings of invalid rows, duplicates, and one that only a third row reveals."""
    partner = await world.partner()
    header = (*HEADER, "PKID", "Group Tag")
    rows = [
        ["", "", "", "0284750002680", "Kiosk"],
        ["1", "HP", "X", "", "Sales"],
        ["1", "HP", "X", "0284750002680", ""],
        [" 2", "HP", "", "", ""],
        [" 3", "HP", "X", "", ""],
        ["3", "HP", "X", "", "Standard"],
        ["4", "HP", "X", "", "kiosk"],
    ]
    (tmp_path / "devices.csv").write_bytes(sheet(header, rows))
    found = await preview(world, partner, sheet(header, rows))
    theirs = await download(world, partner, f"/v1/imports/{found['id']}/errors.csv")
    errors = tmp_path / "errors.csv"
    arguments = ["validate", str(tmp_path / "devices.csv"), "--json", "--errors", str(errors)]
    ran = CliRunner().invoke(app, [*arguments, "--group-tag", "Standard"])
    ours = errors.read_bytes().decode("utf-8-sig")
    assert [(row["row"], row["code"]) for row in table(theirs)] == [
        ("2", "duplicate_with_other_tag"),
        ("3", "duplicate_with_other_tag identity_reduced"),
        ("4", "incomplete_tuple value_trimmed"),
        ("6", "duplicate_in_order"),
        ("7", "group_tag_case_conflict"),
    ]
    # Only the service knows who has the other spelling, the customer or an earlier row.
    assert ours.splitlines()[:-1] == theirs.splitlines()[:-1]
    assert ours.splitlines()[-1][:30] == theirs.splitlines()[-1][:30]
    counts = json.loads(ran.stdout)["counts"]
    assert {name: counts[name] for name in ("rows", "valid", "invalid")} == {
        "rows": found["counts"]["total"],
        "valid": found["counts"]["valid"] + found["counts"]["warning"],
        "invalid": found["counts"]["invalid"],
    }


async def test_a_line_without_cells_gets_no_header_and_the_command_line_writes_the_same_bytes(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    lines = [
        '{"serial_number": "SYN1", "manufacturer": "Contoso"}',
        "nonsense",
        '{"serial_number": "SYN2", "manufacturer": "Contoso"}',
        '{"S/N": "SYN3"}',
        "nonsense",
        '{"S/N": "SYN4"}',
    ]
    data = "\n".join(lines).encode()
    (tmp_path / "devices.jsonl").write_bytes(data)
    found = await preview(world, partner, data)
    theirs = await download(world, partner, f"/v1/imports/{found['id']}/errors.csv")
    errors = tmp_path / "errors.csv"
    CliRunner().invoke(app, ["validate", str(tmp_path / "devices.jsonl"), "--errors", str(errors)])

    assert errors.read_bytes().decode("utf-8-sig") == theirs
    told = [line.split(",")[0] for line in theirs.splitlines()]
    assert told == ["line", "line", "1", "2", "3", "line", "4", "5", "6"]


async def test_warnings_can_be_had_too(world: World) -> None:
    partner = await world.partner()
    found = await preview(world, partner, sheet(HEADER, [[" SYN1", "Contoso", "Book"], ["SYN2", "", ""]]))
    path = f"/v1/imports/{found['id']}/errors.csv?verdict=warning"
    [row] = table(await download(world, partner, path))
    assert (row["row"], row["code"]) == ("1", "value_trimmed")


async def test_a_file_without_names_comes_back_with_names_that_are_understood(world: World) -> None:
    partner = await world.partner()
    data = b"9999000000017,Contoso,Book\r\n9999000000024,Contoso,Book\r\n9999000000017,Contoso,Book\r\n"
    found = await preview(world, partner, data)
    assert found["counts"]["invalid"] == 1, found
    text = await download(world, partner, f"/v1/imports/{found['id']}/errors.csv")
    again = await preview(world, partner, text.encode())
    assert again["counts"] == {"total": 1, "valid": 1, "warning": 0, "invalid": 0}, again


async def test_no_cell_of_a_report_is_run_by_a_spreadsheet(world: World) -> None:
    partner = await world.partner()
    header = (*HEADER, "=Note")
    hostile = ["=cmd|'/c calc'!A1", "+1", "-2", "@SUM(A1)"]
    rows = [[text, "Contoso", "Book", text] for text in hostile]
    rows.append(["SYN5", "Contoso", "Book", "x;=1\n=1\t+1|-1"])
    found = await preview(world, partner, sheet(header, [*rows, ["=X", "", "", "\t=1"]]))
    errors = await download(world, partner, f"/v1/imports/{found['id']}/errors.csv")
    final = await committed(world, partner, found["id"])
    await world.work()
    results = await download(world, partner, f"/v1/orders/{final['orders'][0]['order_id']}/result.csv")
    direct = await world.order(
        partner,
        [
            Device(serial_number=f"{text}9", manufacturer="=M", model="+m", line_ref=text, group_tag="-tag")
            for text in hostile
        ],
    )
    of_order = await download(world, partner, f"/v1/orders/{direct.view.record.id}/result.csv")
    for text, expected in ((errors, 2), (results, 6), (of_order, 4)):
        assert len(list(csv.reader(io.StringIO(text)))) == expected + 1
        # Whatever separator the spreadsheet assumes.
        cells = [cell.strip('"\t ') for cell in re.split("[,;\t|\r\n]", text)]
        assert [cell for cell in cells if cell.startswith(tuple("=+-@"))] == []
        assert any(cell.startswith("'=") for cell in cells)


async def test_the_result_of_an_import_has_its_columns_and_every_rows_outcome(world: World) -> None:
    partner = await world.partner()
    header = (*HEADER, "Colour")
    rows = [*tuple_rows(1500, "SYN", "red"), ["SYN9", "Contoso", "", "blue"]]
    found = await preview(world, partner, sheet(header, rows))
    final = await committed(world, partner, found["id"])
    path = f"/v1/orders/{final['orders'][0]['order_id']}/result.csv"
    waiting = table(await download(world, partner, path))
    assert {row["state"] for row in waiting} == {"queued", "invalid"}
    await world.work()
    ended = table(await download(world, partner, path))
    assert [[row[name] for name in header] for row in ended] == rows
    assert [int(row["row"]) for row in ended] == list(range(1, 1502))
    assert {row["state"] for row in ended[:-1]} == {"registered"}
    assert (ended[-1]["state"], ended[-1]["code"]) == ("invalid", "incomplete_tuple")
    assert ended[-1]["remedy"]


async def test_the_result_of_an_order_by_json_has_its_fields(world: World) -> None:
    partner = await world.partner()
    order = await world.order(
        partner,
        [
            Device(serial_number="S1", manufacturer="Contoso", model="Book", line_ref="10"),
            Device(serial_number="S2", line_ref="20"),
        ],
    )
    await world.work()
    text = await download(world, partner, f"/v1/orders/{order.view.record.id}/result.csv")
    first, second = table(text)
    assert list(first)[: len(RESULT_COLUMNS)] == list(RESULT_COLUMNS)
    assert (first["line_ref"], first["state"]) == ("10", "registered")
    assert (second["line_ref"], second["code"]) == ("20", "incomplete_tuple")


async def test_an_expired_import_leaves_its_orders_a_result_all_the_same(world: World) -> None:
    partner = await world.partner()
    final = await committed(world, partner, (await preview(world, partner, tuple_sheet(2)))["id"])
    world.clock.advance(days=8)
    await work_imports(world)
    text = await download(world, partner, f"/v1/orders/{final['orders'][0]['order_id']}/result.csv")
    assert [row["Device Serial Number"] for row in table(text)] == ["SYN00001", "SYN00002"]
    response = await world.client.get(f"/v1/imports/{final['id']}/errors.csv", headers=partner.headers)
    problem_of(response, 409, "invalid_state")


async def test_there_are_no_errors_to_give_before_the_file_is_read(world: World) -> None:
    partner = await world.partner()
    import_id = await upload(world, partner, tuple_sheet(2))
    response = await world.client.get(f"/v1/imports/{import_id}/errors.csv", headers=partner.headers)
    problem_of(response, 409, "invalid_state")
    assert (await look(world, partner, import_id))["state"] == "uploaded"
    assert (await send(world, partner, b"")).status_code == 201
