"""Helpers for tests of imports: make files, upload them, read them."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import httpx

from app.services.imports import work
from tests.support.world import Partner, World

HEADER = ("Device Serial Number", "Manufacturer name", "Device model")


def sheet(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def tuple_rows(count: int, prefix: str = "SYN", *more: str) -> list[list[str]]:
    return [[f"{prefix}{number:05d}", "Contoso", "Contoso Book 14", *more] for number in range(1, count + 1)]


def tuple_sheet(count: int, prefix: str = "SYN") -> bytes:
    return sheet(HEADER, tuple_rows(count, prefix))


async def send(
    world: World, partner: Partner, data: bytes, *, headers: dict[str, str] | None = None, **given: Any
) -> httpx.Response:
    return await world.client.post(
        "/v1/imports", content=data, params=given, headers={**partner.headers, **(headers or {})}
    )


async def upload(world: World, partner: Partner, data: bytes, **given: Any) -> str:
    """The id of the import, by default for the partner's customer."""
    if "customer_id" not in given:
        given["customer_id"] = str(partner.customer_id)
    given = {name: value for name, value in given.items() if value is not None}
    response = await send(world, partner, data, **given)
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


async def work_imports(world: World, *, limit: int = 50) -> int:
    """Does all work of imports that is due."""
    for done in range(limit):
        if not await work.advance_next(world.runtime):
            return done
    raise AssertionError(f"still work after {limit} steps")


async def look(world: World, partner: Partner, import_id: str, path: str = "", **given: Any) -> Any:
    response = await world.client.get(f"/v1/imports/{import_id}{path}", params=given, headers=partner.headers)
    assert response.status_code == 200, response.text
    return response.json()


async def preview(world: World, partner: Partner, data: bytes, **given: Any) -> Any:
    """Uploads and reads a file. Returns the import as the API shows it."""
    import_id = await upload(world, partner, data, **given)
    await work_imports(world)
    return await look(world, partner, import_id)


async def commit(world: World, partner: Partner, import_id: str, **body: Any) -> httpx.Response:
    return await world.client.post(f"/v1/imports/{import_id}:commit", json=body, headers=partner.headers)


async def committed(world: World, partner: Partner, import_id: str, **body: Any) -> Any:
    """Commits and creates the orders. Returns the import as the API shows it."""
    response = await commit(world, partner, import_id, **body)
    assert response.status_code == 202, response.text
    await work_imports(world)
    return await look(world, partner, import_id)
