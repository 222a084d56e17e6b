"""Benchmark of fairness and of reading, beside a customer with 200,000 queued devices.

Customer B orders a single device beside them, and `GET /v1/orders/{id}` reads an order with many rows.

A's devices are ordered before A has consented, so that all of them are released at the same moment.
"""

import time
from pathlib import Path

import orjson

from app.local.synthetic import devices
from tests.benchmarks.whole import UNHURRIED
from tests.benchmarks.world import Bench, look, open_bench, percentile

ORDERS = 20
ROWS = 10_000
SINGLES = 30


def _fill(bench: Bench, customer: str) -> list[str]:
    made = [device.fields() for device in devices(ORDERS * ROWS, seed=11)]
    orders = []
    for number in range(ORDERS):
        rows = made[number * ROWS : (number + 1) * ROWS]
        body = orjson.dumps({"customer_id": customer, "reference": f"A-{number}", "devices": rows})
        response = bench.api.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 201, response.text
        orders.append(response.json()["id"])
    return orders


def _sent_within(bench: Bench, customer: str, prefix: str) -> list[float]:
    """Seconds from sending one of the customer's devices until the simulator was called."""
    took = []
    for number in range(SINGLES):
        row = {"serial_number": f"{prefix}{number}", "manufacturer": "Contoso", "model": "Book"}
        body = {"customer_id": customer, "reference": f"{prefix}-{number}", "devices": [row]}
        begun = time.perf_counter()
        order = bench.post("/v1/orders", body)["id"]

        def sent(order: str = order) -> bool:
            counts = bench.get(f"/v1/orders/{order}")["counts"]
            return bool(counts["queued"] == 0 and counts["submitting"] == 0)

        bench.wait_until(sent)
        took.append(time.perf_counter() - begun)
    return took


def run(directory: Path) -> dict[str, float]:
    settings = {**UNHURRIED, "REGISTRAR_CONSENT_INTERVAL_S": "3600"}
    with open_bench(directory, customers=2, consented=False, settings=settings) as bench:
        orders = _fill(bench, bench.customers[0])
        looks, bound = look(bench, f"/v1/orders/{orders[0]}"), look(bench, "/healthz")
        bench.simulator.post(f"/control/customers/{bench.tenants[1]}:accept", json={}).raise_for_status()
        bench.post(f"/v1/customers/{bench.customers[1]}/consent:recheck", None)
        alone = _sent_within(bench, bench.customers[1], "ALONE")
        bench.simulator.post(f"/control/customers/{bench.tenants[0]}:accept", json={}).raise_for_status()
        bench.post(f"/v1/customers/{bench.customers[0]}/consent:recheck", None)
        crowd = _sent_within(bench, bench.customers[1], "CROWD")
        totals = bench.simulator.get("/control/totals").json()
        return {
            "look_p50_ms": percentile(looks, 0.5),
            "look_p95_ms": percentile(looks, 0.95),
            "healthz_p95_ms": percentile(bound, 0.95),
            "alone_p95_s": percentile(alone, 0.95),
            "crowd_p50_s": percentile(crowd, 0.5),
            "crowd_p95_s": percentile(crowd, 0.95),
            "devices_of_a_not_yet_sent": ORDERS * ROWS - totals["devices_held"],
        }
