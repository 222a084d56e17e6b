"""`registrar import` against the API on its socket, with a worker running."""

import asyncio
from pathlib import Path
from uuid import uuid4

import orjson
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.outcome import ExitCode
from app.cli.surroundings import Surroundings
from tests.support.import_scene import HEADER, sheet, tuple_rows, tuple_sheet, work_imports
from tests.support.serving import serving
from tests.support.world import Partner, World


async def run(world: World, partner: Partner, *arguments: str) -> Result:
    """Runs the command in a thread while imports are processed."""
    async with serving(world) as (host, port):
        given = ["import", *arguments, "--api-url", f"http://{host}:{port}", "--api-key", partner.key]

        def pause(seconds: float) -> None:
            asyncio.run_coroutine_threadsafe(work_imports(world), loop).result(30)

        loop = asyncio.get_running_loop()
        surroundings = Surroundings(sleep=pause)
        return await asyncio.to_thread(CliRunner().invoke, app, given, obj=surroundings)


async def test_a_file_is_looked_at_and_then_ordered_by_the_same_command(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "June.csv"
    file.write_bytes(sheet((*HEADER, "Colour"), [*tuple_rows(3, "SYN", "red"), ["X", "", "", "blue"]]))
    looked = await run(world, partner, str(file), "--customer", "Consented Ltd")
    assert looked.exit_code == ExitCode.PARTIAL, looked.output
    assert "Only checked" in looked.output
    assert "Serial number, manufacturer or model is missing" in looked.output
    assert "Colour" in looked.output
    assert await world.count("orders") == 0

    errors = tmp_path / "errors.csv"
    ordered = await run(
        world, partner, str(file), "--customer", "Consented Ltd", "--commit", "--errors", str(errors)
    )
    assert ordered.exit_code == ExitCode.PARTIAL, ordered.output
    assert "is accepted" in ordered.output
    assert (await world.count("imports"), await world.count("orders")) == (1, 1)
    assert b"X,,,blue" in errors.read_bytes()


async def test_a_program_gets_one_document(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    file.write_bytes(tuple_sheet(3))
    arguments = (str(file), "--customer", str(partner.tenant_id), "--commit", "--json", "--reference", "PO-1")
    result = await run(world, partner, *arguments)
    assert result.exit_code == ExitCode.DONE, result.output
    document = orjson.loads(result.stdout)
    assert document["import"]["state"] == "committed"
    assert [order["reference"] for order in document["orders"]] == ["PO-1"]


async def test_a_file_that_can_not_be_read_ends_in_words(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.pdf"
    file.write_bytes(b"%PDF-1.7 nothing")
    result = await run(world, partner, str(file), "--customer", "Consented Ltd", "--commit")
    assert result.exit_code == ExitCode.REFUSED, result.output
    assert "PDF" in result.stderr
    assert result.stderr.count("Ask its sender") == 1
    missing = await run(world, partner, str(tmp_path / "none.csv"))
    assert missing.exit_code == ExitCode.ERROR


async def test_reject_invalid_orders_nothing(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    file.write_bytes(sheet(HEADER, [*tuple_rows(2), ["X", "", ""]]))
    result = await run(
        world, partner, str(file), "--customer", "Consented Ltd", "--commit", "--reject-invalid"
    )
    assert result.exit_code == ExitCode.REFUSED
    assert "invalid" in result.stderr
    assert await world.count("orders") == 0


async def test_a_file_without_a_valid_row_is_not_offered_to_be_ordered(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    file.write_bytes(sheet(HEADER, [["X", "", ""]]))
    result = await run(world, partner, str(file), "--customer", "Consented Ltd")
    assert result.exit_code == ExitCode.REFUSED, result.output
    assert "Nothing in it can be ordered as it is." in result.stdout
    assert "--commit orders it" not in result.stdout


async def test_the_same_command_reads_anew_what_has_been_mended_meanwhile(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    file.write_bytes(sheet(("Customer", *HEADER), [["Later Ltd", *row] for row in tuple_rows(2)]))
    assert "No customer has this" in (await run(world, partner, str(file))).stdout
    made = await world.client.post(
        "/v1/customers",
        json={
            "connection_id": str(partner.connection_id),
            "entra_tenant_id": str(uuid4()),
            "name": "Later Ltd",
        },
        headers=partner.headers,
    )
    assert made.status_code == 201, made.text
    again = await run(world, partner, str(file))
    assert again.exit_code == ExitCode.DONE, again.output
    ordered = await run(world, partner, str(file), "--commit")
    assert ordered.exit_code == ExitCode.WAITING, ordered.output
    assert (await world.count("imports"), await world.count("orders")) == (2, 1)


async def test_a_discarded_import_does_not_stand_in_the_way_of_its_file(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    file.write_bytes(tuple_sheet(3))
    looked = await run(world, partner, str(file), "--customer", "Consented Ltd", "--json")
    import_id = orjson.loads(looked.stdout)["import"]["id"]
    discarded = await world.client.post(f"/v1/imports/{import_id}:discard", headers=partner.headers)
    assert discarded.status_code == 200
    result = await run(world, partner, str(file), "--customer", "Consented Ltd", "--commit")
    assert result.exit_code == ExitCode.DONE, result.output
    assert await world.count("orders") == 1


async def test_the_invalid_rows_never_overwrite_the_file_and_a_place_that_is_not_there_is_told_in_words(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    content = sheet(HEADER, [*tuple_rows(2), ["X", "", ""]])
    file.write_bytes(content)
    arguments = (str(file), "--customer", "Consented Ltd", "--errors")
    itself = await run(world, partner, *arguments, str(file))
    assert (itself.exit_code, file.read_bytes()) == (ExitCode.ERROR, content)
    assert "would overwrite the file itself" in itself.stderr
    nowhere = await run(world, partner, *arguments, str(tmp_path / "none" / "errors.csv"))
    assert nowhere.exit_code == ExitCode.ERROR
    assert "cannot be written" in nowhere.stderr


async def test_a_name_with_control_characters_is_no_obstacle_and_the_format_is_said_in_words(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    file = tmp_path / "June\x1b[31m\n.csv"
    file.write_bytes(tuple_sheet(2))
    result = await run(world, partner, str(file), "--customer", "Consented Ltd")
    assert result.exit_code == ExitCode.DONE, result.output
    assert "text separated by commas, UTF-8, header in line 1" in result.stdout
    assert "serial number (" in result.stdout


async def test_following_ends_with_5_when_the_time_is_up_and_says_what_holds_the_order(
    world: World, tmp_path: Path
) -> None:
    partner = await world.partner()
    file = tmp_path / "devices.csv"
    file.write_bytes(tuple_sheet(2))
    arguments = (str(file), "--customer", str(partner.tenant_id), "--commit", "--watch", "--timeout", "10s")
    result = await run(world, partner, *arguments)
    assert result.exit_code == ExitCode.STILL_WAITING, result.output
    assert "Waiting: No worker is running." in result.output
    assert "Not over after 10 seconds; the order goes on." in result.output
