"""`registrar import` against the API on its socket, with a worker beside it."""

import asyncio
from pathlib import Path

import orjson
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.outcome import ExitCode
from app.cli.surroundings import Surroundings
from tests.import_scene import HEADER, sheet, tuple_rows, tuple_sheet, work_imports
from tests.serving import serving
from tests.world import Partner, World


async def run(world: World, partner: Partner, *arguments: str) -> Result:
    """The command in a thread, with imports being worked on meanwhile."""
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
    assert "Only looked at" in looked.output
    assert "Half a tuple" in looked.output
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
