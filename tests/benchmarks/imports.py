"""Benchmark of imports: a file is uploaded, read, previewed and made into one order.

The bound: a bare script, without a service and without checks, parses the same file with the csv module and
COPYs its rows into plain tables twice (as staged and as registered), on the same PostgreSQL.
"""

import asyncio
import csv
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg

from app.domain.identity import IdentityKind
from app.local.synthetic import devices
from tests.benchmarks.world import Bench, look, open_bench, peak_megabytes, percentile

SIZES = (100_000, 1_000_000)
HASHED = 100_000
LARGEST = 990_000
"""Rows with hashes: 3.98 GB, just under the limit of one import."""
PATIENCE = 3600.0
"""Seconds."""
MAKER, MODEL = "Contoso", "Contoso Book 14"
PIECE = 256 * 1024


def hashed_pieces(rows: int) -> Iterator[bytes]:
    """A file with hashes of 4,000 characters, in pieces."""
    held = ["Device Serial Number,Windows Product ID,Hardware Hash\r\n"]
    for number, device in enumerate(devices(rows, seed=11, kind=IdentityKind.HARDWARE_HASH), start=1):
        held.append(f"{device.serial_number},,{device.hardware_hash}\r\n")
        if number % 64 == 0:
            yield "".join(held).encode()
            held.clear()
    yield "".join(held).encode()


def pieces(rows: int) -> Iterator[bytes]:
    """The file without hashes, in pieces, as a supplier's system would stream it."""
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


def measure(bench: Bench, rows: int, file: Iterator[bytes], reference: str) -> dict[str, float]:
    """Seconds of each step, from the first byte to the order. Making the file counts as uploading it."""
    begun = time.perf_counter()
    response = bench.api.post(
        "/v1/imports",
        params={"customer_id": bench.customers[0], "reference": reference},
        content=file,
        timeout=3600,
    )
    assert response.status_code == 201, response.text
    path = f"/v1/imports/{response.json()['id']}"
    took = {"upload_s": time.perf_counter() - begun}

    def is_in(*states: str) -> Any:
        return lambda: bench.get(path)["state"] in states

    took["read_s"] = wait_until(is_in("ready", "ready_with_errors", "refused"))
    found = bench.get(path)
    assert found["counts"] == {"total": rows, "valid": rows, "warning": 0, "invalid": 0}, found
    bench.post(f"{path}:commit", {})
    took["commit_s"] = wait_until(is_in("committed"))
    [made] = bench.get(path)["orders"]
    order = f"/v1/orders/{made['order_id']}"
    assert bench.get(order)["counts"]["total"] == rows
    looks, bound = look(bench, order), look(bench, "/healthz")
    return took | {"look_p95_ms": percentile(looks, 0.95), "healthz_p95_ms": percentile(bound, 0.95)}


def wait_until(done: Callable[[], bool]) -> float:
    """Seconds until `done()` is true, polling as rarely as a caller would."""
    begun = time.perf_counter()
    while not done():
        if time.perf_counter() - begun > PATIENCE:
            raise TimeoutError("the import did not end")
        time.sleep(0.2)
    return time.perf_counter() - begun


async def measure_bound(database_url: str, rows: int) -> float:
    """Seconds of the bound: the csv module, and COPY into two plain tables of the same columns."""
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


def _peaks(bench: Bench) -> dict[str, float]:
    """Peak memory of the API and the worker so far."""
    pids = {name: process.pid for name, process in bench.stack.processes.items()}
    return {
        f"{name}_peak_mb": peak_megabytes(pid)
        for name, pid in pids.items()
        if pid is not None and name.startswith(("api", "worker"))
    }


def run_largest(directory: Path) -> dict[str, Any]:
    """Imports one file of nearly 4 GB. Takes about ten minutes, so it runs only on request."""
    return run(directory, sizes=(), hashed=LARGEST)


def run(directory: Path, sizes: tuple[int, ...] = SIZES, hashed: int = HASHED) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with open_bench(directory, customers=1, consented=False) as bench:
        for rows in sizes:
            took = measure(bench, rows, pieces(rows), f"IMPORT-{rows}")
            whole = sum(took[part] for part in ("upload_s", "read_s", "commit_s"))
            bound = asyncio.run(measure_bound(bench.stack.database_url, rows))
            found[f"{rows:,} rows"] = {
                **took,
                "whole_s": whole,
                "rows_per_s": rows / whole,
                "bound_s": bound,
                "ratio": whole / bound,
                **_peaks(bench),
            }
        if hashed:
            took = measure(bench, hashed, hashed_pieces(hashed), f"HASHED-{hashed}")
            found[f"{hashed:,} rows with hashes"] = {**took, **_peaks(bench)}
    return found
