"""Benchmark of sending: one worker sends queued devices to the simulator.

The bound: one process reads 1,000 rows with a plain query, builds the same JSON with orjson and posts it over
one raw connection to the same simulator, one call after another.
"""

import asyncio
import base64
import time
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import orjson

from app.domain.identity import IdentityKind
from app.local.synthetic import devices
from tests.benchmarks.whole import UNHURRIED
from tests.benchmarks.world import Bench, open_bench

CUSTOMERS = 8
ORDERS_EACH = 2
ROWS = 10_000
BATCH = 1_000
WIDE = {
    "REGISTRAR_CUSTOMER_WINDOW": "100",
    "REGISTRAR_CONNECTION_WINDOW": "1000",
    "REGISTRAR_POLL_FIRST_S": "60",
}
"""Only sending is measured, so batches must not wait for outcomes."""
READ = """
SELECT r.serial_number, r.manufacturer, r.model, r.product_key, h.data
FROM registrations r LEFT JOIN device_hashes h ON h.registration_id = r.id
WHERE r.order_id = $1 AND r.row_number > $2 AND r.row_number <= $3 ORDER BY r.row_number
"""


def _order(bench: Bench, customer: str, kind: IdentityKind, seed: int) -> str:
    rows = [device.fields() for device in devices(ROWS, seed=seed, kind=kind)]
    body = orjson.dumps({"customer_id": customer, "reference": f"P-{seed}", "devices": rows})
    response = bench.api.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


async def _bound(bench: Bench, orders: list[str], tenants: list[str]) -> float:
    """Devices a second of the bare loop, for customers of the simulator that Registrar does not know."""
    owner = await asyncpg.connect(bench.stack.database_url.replace("+asyncpg", ""))
    url = urlsplit(bench.stack.simulator_url or "")
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    token = bench.simulator.post("/control/tokens", json={"delegated": True, "mfa": True}).json()
    begun, sent = time.perf_counter(), 0
    for number, order in enumerate(orders):
        for start in range(0, ROWS, BATCH):
            rows = await owner.fetch(READ, order, start, start + BATCH)
            body = orjson.dumps([_device(row) for row in rows])
            path = f"/v1/customers/{tenants[number % CUSTOMERS]}/deviceBatches/Bound/devices"
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {token['access_token']}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            assert answer.startswith(b"HTTP/1.1 202"), answer
            sent += len(rows)
    writer.close()
    await owner.close()
    return sent / (time.perf_counter() - begun)


def _device(row: asyncpg.Record) -> dict[str, str]:
    if row["data"] is not None:
        blob = bytes(row["data"])
        text = base64.b64encode(blob + bytes(3000 - len(blob))).decode()
        return {"serialNumber": row["serial_number"], "hardwareHash": text}
    return {
        "serialNumber": row["serial_number"],
        "oemManufacturerName": row["manufacturer"],
        "modelName": row["model"],
    }


def _measure(directory: Path, kind: IdentityKind) -> dict[str, float]:
    settings = {**UNHURRIED, **WIDE, "REGISTRAR_CONSENT_INTERVAL_S": "3600"}
    with open_bench(directory, customers=CUSTOMERS, consented=False, settings=settings) as bench:
        orders = [
            _order(bench, bench.customers[n % CUSTOMERS], kind, seed=100 + n)
            for n in range(CUSTOMERS * ORDERS_EACH)
        ]
        bench.simulator.patch("/control/switches", json={"append_missing_batch": "create"}).raise_for_status()
        others = [
            bench.simulator.post("/control/customers", json={"relationship": "reseller"}).json()
            for _ in range(CUSTOMERS)
        ]
        bound = asyncio.run(_bound(bench, orders, [other["tenant_id"] for other in others]))
        for tenant in bench.tenants:
            bench.simulator.post(f"/control/customers/{tenant}:accept", json={}).raise_for_status()
        goal = _accepted(bench) + len(orders) * ROWS
        bench.post(f"/v1/customers/{bench.customers[0]}/consent:recheck", None)
        # Measured from the moment when all are queued; devices sent before do not count.
        begun, waiting = time.perf_counter(), goal - _accepted(bench)
        bench.wait_until(lambda: _accepted(bench) >= goal)
        service = waiting / (time.perf_counter() - begun)
        return {"service_per_s": service, "bound_per_s": bound, "ratio": service / bound}


def _accepted(bench: Bench) -> int:
    return int(bench.simulator.get("/control/totals").json()["device_rows_accepted"])


def run(directory: Path) -> dict[str, dict[str, float]]:
    return {
        "tuples": _measure(directory / "tuples", IdentityKind.TUPLE),
        "hashes": _measure(directory / "hashes", IdentityKind.HARDWARE_HASH),
    }
