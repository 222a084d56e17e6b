"""Imports: a file of tuples over HTTP, read, previewed and made into one order, beside a bare script.

The bound: the same file taken apart by the csv module and its rows COPYed into a plain table, twice (as
staged and as registered), on the same PostgreSQL, by a script without a service and without a check.
"""

import asyncio
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from tests.benchmarks.world import Bench, open_bench, peak_megabytes

SIZES = (100_000, 1_000_000)
MAKER, MODEL = "Contoso", "Contoso Book 14"
PIECE = 256 * 1024


def pieces(rows: int) -> Iterator[bytes]:
    """The file, as a supplier's system would stream it."""
    held = ["Device Serial Number,Manufacturer name,Device model,Group Tag\r\n"]
    size = 0
    for number in range(rows):
        line = f"SYN{rows % 997:03d}{number:09d},{MAKER},{MODEL},Floor {number % 20}\r\n"
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()


def measure(bench: Bench, rows: int) -> dict[str, float]:
    """Seconds of each part, from the first byte to the order."""
    begun = time.perf_counter()
    response = bench.api.post(
        "/v1/imports",
        params={"customer_id": bench.customers[0], "reference": f"IMPORT-{rows}"},
        content=pieces(rows),
        timeout=3600,
    )
    assert response.status_code == 201, response.text
    path = f"/v1/imports/{response.json()['id']}"
    took = {"upload_s": time.perf_counter() - begun}

    def is_in(*states: str) -> Any:
        return lambda: bench.get(path)["state"] in states

    took["read_s"] = bench.wait_until(is_in("ready", "ready_with_errors", "refused"), patience=3600)
    found = bench.get(path)
    assert found["counts"] == {"total": rows, "valid": rows, "warning": 0, "invalid": 0}, found
    bench.post(f"{path}:commit", {})
    took["commit_s"] = bench.wait_until(is_in("committed"), patience=3600)
    [made] = bench.get(path)["orders"]
    assert bench.get(f"/v1/orders/{made['order_id']}")["counts"]["total"] == rows
    return took


async def measure_bound(database_url: str, rows: int) -> float:
    """Seconds: the csv module, and COPY into two plain tables of the same columns."""
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    columns = ["id", "row_number", "serial_number", "manufacturer", "model", "group_tag"]
    for table in ("bound_staged", "bound_made"):
        await connection.execute(
            f"CREATE TABLE {table} (id uuid PRIMARY KEY, row_number int, serial_number text, "
            "manufacturer text, model text, group_tag text)"
        )
    begun = time.perf_counter()
    text = io.StringIO(b"".join(pieces(rows)).decode(), newline="")
    reader = csv.reader(text)
    next(reader)
    records = [(uuid4(), number, *cells) for number, cells in enumerate(reader, start=1)]
    for table in ("bound_staged", "bound_made"):
        await connection.copy_records_to_table(table, records=records, columns=columns)
    took = time.perf_counter() - begun
    await connection.execute("DROP TABLE bound_staged, bound_made")
    await connection.close()
    return took


def run(directory: Path, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with open_bench(directory, customers=1, consented=False) as bench:
        pids = {name: process.pid for name, process in bench.stack.processes.items()}
        for rows in sizes:
            took = measure(bench, rows)
            whole = sum(took.values())
            bound = asyncio.run(measure_bound(bench.stack.database_url, rows))
            found[f"{rows:,} rows"] = {
                **took,
                "whole_s": whole,
                "rows_per_s": rows / whole,
                "bound_s": bound,
                "ratio": whole / bound,
                **{
                    f"{name}_peak_mb": peak_megabytes(pid)
                    for name, pid in pids.items()
                    if pid is not None and name.startswith(("api", "worker"))
                },
            }
    return found
