"""Commands against the real API: its answers have the shape that the unit tests' stand-in gives them."""

import asyncio
import csv
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from typer.testing import CliRunner, Result

from app.cli import app, references
from app.cli.outcome import ExitCode
from app.cli.surroundings import Surroundings
from tests.integration.test_find_and_choose import failed_order
from tests.support.serving import serving
from tests.support.world import Partner, World, tuples

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def scene(world: World) -> AsyncIterator[tuple[Partner, Run]]:
    partner = await world.partner()
    async with serving(world) as (host, port):
        address = ["--api-url", f"http://{host}:{port}/v1", "--api-key", partner.key]

        async def run(*arguments: str) -> Result:
            # No pause is needed, because nothing changes while the command runs.
            surroundings = Surroundings(sleep=lambda _: None)
            given = [*arguments, *address]
            return await asyncio.to_thread(CliRunner().invoke, app, given, obj=surroundings)

        yield partner, run


async def test_orders_are_listed_cut_found_and_exported(
    world: World, scene: tuple[Partner, Run], tmp_path: Path
) -> None:
    partner, run = scene
    order_id = await failed_order(world, partner)
    await world.order(partner, tuples(1, "HELD"), customer_id=partner.other_customer_id)

    listed = orjson.loads((await run("list", "--json", "--state", "completed_with_errors")).stdout)
    assert [order["id"] for order in listed] == [str(order_id)]
    assert len(orjson.loads((await run("list", "--json", "--since", "1w")).stdout)) == 2
    shown = await run("list", "--customer", "Consented Ltd")
    assert listed[0]["reference"] in shown.stdout, shown.output
    batches = await run("batches", listed[0]["reference"])
    assert "over" in batches.stdout, batches.output

    found = orjson.loads((await run("find", "yn0003", "--json")).stdout)
    assert [row["serial_number"] for row in found] == ["SYN0003"]
    assert [row["row"] for row in orjson.loads((await run("find", "--line", "L2", "--json")).stdout)] == [2]
    assert listed[0]["reference"] in (await run("find", "0001")).stdout

    target = tmp_path / "result.csv"
    assert (await run("export", str(order_id), "--out", str(target))).exit_code == ExitCode.DONE
    rows = list(csv.reader(target.read_text("utf-8-sig").splitlines()))
    assert [row[1] for row in rows[1:]] == ["failed", "failed", "failed", "registered"]
    filtered = await run("export", "--state", "failed", "--customer", "Consented Ltd")
    assert filtered.exit_code == ExitCode.DONE, filtered.output
    assert len(filtered.stdout.splitlines()) == 4
    lines = (await run("export", "--format", "jsonl", "--since", "1w")).stdout.splitlines()
    assert len(lines) == 5


async def test_chosen_rows_are_tried_again(world: World, scene: tuple[Partner, Run]) -> None:
    partner, run = scene
    order_id = await failed_order(world, partner)
    result = await run("retry", str(order_id), "--row", "2", "--row", "4", "--json")
    assert orjson.loads(result.stdout)["retried"] == 1
    nothing = await run("retry", str(order_id), "--row", "4", "--json")
    assert orjson.loads(nothing.stdout)["code"] == "invalid_state"
    assert (await run("retry", str(order_id))).exit_code == ExitCode.DONE
    assert [row["attempt"] for row in await world.rows(partner, order_id)] == [2, 2, 2, 1]


async def test_a_reference_in_parts_is_cancelled_as_a_whole(
    world: World, scene: tuple[Partner, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    partner, run = scene
    monkeypatch.setattr(references, "MAX_DEVICES", 2)
    for number, size in enumerate((2, 2, 1), start=1):
        devices = tuples(size, f"SYN{number}")
        await world.order(partner, devices, reference=f"PO-1-{number}")
    cancelled = orjson.loads((await run("cancel", "PO-1", "--json")).stdout)
    assert [order["state"] for order in cancelled["orders"]] == ["cancelled"] * 3


async def test_customers_connections_and_webhooks(world: World, scene: tuple[Partner, Run]) -> None:
    _, run = scene
    tenant = str(uuid4())
    made = orjson.loads((await run("customer", "add", "Northwind", "--tenant", tenant, "--json")).stdout)
    assert (made["name"], made["entra_tenant_id"]) == ("Northwind", tenant)
    twice = orjson.loads((await run("customer", "add", "Northwind", "--tenant", tenant, "--json")).stdout)
    assert twice["code"] == "already_exists"
    edited = await run("customer", "edit", "Northwind", "--domain", "northwind.example", "--json")
    assert orjson.loads(edited.stdout)["domain"] == "northwind.example"
    assert "Northwind" in (await run("customer", "list")).stdout

    (connection,) = orjson.loads((await run("connection", "list", "--json")).stdout)
    assert (await run("connection", "show", connection["id"])).exit_code == ExitCode.DONE
    assert (await run("connection", "show", connection["name"])).exit_code == ExitCode.DONE
    checked = await run("connection", "check", connection["name"])
    assert checked.exit_code == ExitCode.DONE, checked.output

    url = "https://hooks.example/registrar"
    added = orjson.loads((await run("webhook", "add", url, "--event", "order.completed", "--json")).stdout)
    assert added["secret"].startswith("whsec_")
    assert "order.completed" in (await run("webhook", "list")).stdout
    waiting = await run("webhook", "test", url)
    assert waiting.exit_code == ExitCode.ERROR
    assert "has not been sent yet" in waiting.stdout, waiting.output
    wrong = orjson.loads((await run("webhook", "add", url, "--event", "no.such", "--json")).stdout)
    assert wrong["code"] == "validation_failed"
    assert wrong["errors"]
