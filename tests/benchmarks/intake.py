"""Benchmark of intake: orders of 10,000 devices with hashes over HTTP.

The bound: a bare script without a service decodes the same JSON, decodes the hashes and verifies their
SHA-256, and COPYs the rows into plain tables of the same columns on the same PostgreSQL.
"""

import asyncio
import base64
import hashlib
import struct
import time
from pathlib import Path
from uuid import uuid4

import asyncpg
import orjson

from app.local.synthetic import devices
from tests.benchmarks.world import Bench, percentile

ORDERS = 8
ROWS = 10_000


def bodies(bench: Bench) -> list[bytes]:
    from app.domain.identity import IdentityKind

    made = list(devices(ROWS * (ORDERS + 1), seed=5, kind=IdentityKind.HARDWARE_HASH))
    return [
        orjson.dumps(
            {
                "customer_id": bench.customers[number % len(bench.customers)],
                "reference": f"INTAKE-{number}",
                "devices": [d.fields() for d in made[number * ROWS : (number + 1) * ROWS]],
            }
        )
        for number in range(ORDERS + 1)
    ]


def measure_service(bench: Bench, sent: list[bytes]) -> list[float]:
    """Seconds of each order, from sending it to the 201."""
    took = []
    for body in sent:
        begun = time.perf_counter()
        response = bench.api.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
        took.append(time.perf_counter() - begun)
        assert response.status_code == 201, response.text
        assert response.json()["counts"]["invalid"] == 0
    return took


def verify(text: str) -> bytes:
    """The hash's data, if its magic, length and checksum are right."""
    blob = base64.b64decode(text, validate=True)
    total: int = struct.unpack_from("<H", blob, 2)[0]
    if blob[:2] != b"OA" or hashlib.sha256(blob[:total]).digest() != blob[total + 4 : total + 36]:
        raise ValueError("damaged")
    return blob[: total + 36]


async def measure_bound(database_url: str, sent: list[bytes]) -> list[float]:
    """Seconds of the bound for each order: JSON decoded, hashes verified, both tables COPYed, committed."""
    dsn = database_url.replace("+asyncpg", "")
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "CREATE TABLE bound_rows (id uuid PRIMARY KEY, order_id uuid, row_number int, state text, "
        "serial_number text, group_tag text, created_at timestamptz DEFAULT now());"
        "CREATE TABLE bound_hashes (id uuid PRIMARY KEY, data bytea)"
    )
    took = []
    for body in sent:
        begun = time.perf_counter()
        order_id = uuid4()
        rows, hashes = [], []
        for number, device in enumerate(orjson.loads(body)["devices"]):
            id = uuid4()
            rows.append((id, order_id, number, "queued", device["serial_number"], "Bench"))
            hashes.append((id, verify(device["hardware_hash"])))
        async with connection.transaction():
            columns = ["id", "order_id", "row_number", "state", "serial_number", "group_tag"]
            await connection.copy_records_to_table("bound_rows", records=rows, columns=columns)
            await connection.copy_records_to_table("bound_hashes", records=hashes)
        took.append(time.perf_counter() - begun)
    await connection.execute("DROP TABLE bound_rows, bound_hashes")
    await connection.close()
    return took


def run(directory: Path) -> dict[str, float]:
    from tests.benchmarks.world import api_peaks, open_bench

    with open_bench(directory, customers=4, consented=False) as bench:
        sent = bodies(bench)
        measure_service(bench, [sent.pop()])
        service = measure_service(bench, sent)
        bound = asyncio.run(measure_bound(bench.stack.database_url, sent))
        api = bench.stack.processes["api"].pid
        assert api is not None
        return {
            "service_s": sum(service),
            "bound_s": sum(bound),
            "ratio": sum(service) / sum(bound),
            "p95_s": percentile(service, 0.95),
            "rows_per_s": ROWS * ORDERS / sum(service),
            **api_peaks(api),
        }
