"""Benchmark of the whole way: 200,000 devices of 200 customers, from order to outcome.

With one API, one worker, and a simulator that answers at once.
"""

import time
from pathlib import Path

import orjson

from app.local.synthetic import devices
from tests.benchmarks.world import Bench, api_peaks, cpu_seconds, open_bench, peak_megabytes

CUSTOMERS = 200
DEVICES_EACH = 1_000
UNHURRIED = {"REGISTRAR_BUDGET_START": "2000", "REGISTRAR_BUDGET_CEILING": "5000"}
"""High enough that the throttle budget does not limit what is measured."""


def _post_orders(bench: Bench, prefix: str) -> float:
    """Seconds to send one order of DEVICES_EACH mixed devices for each customer."""
    made = [device.fields() for device in devices(CUSTOMERS * DEVICES_EACH, seed=9)]
    begun = time.perf_counter()
    for number, customer in enumerate(bench.customers[:CUSTOMERS]):
        rows = made[number * DEVICES_EACH : (number + 1) * DEVICES_EACH]
        body = orjson.dumps({"customer_id": customer, "reference": f"{prefix}-{number}", "devices": rows})
        response = bench.api.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 201, response.text
    return time.perf_counter() - begun


def _held(bench: Bench) -> int:
    totals = bench.simulator.get("/control/totals").json()
    return int(totals["devices_held"])


def run(directory: Path) -> dict[str, float]:
    with open_bench(directory, customers=CUSTOMERS, settings=UNHURRIED) as bench:
        parts = {name: part.pid for name, part in bench.stack.processes.items()}
        api, worker = parts["api"], parts["worker-1"]
        assert api is not None
        assert worker is not None
        cpu = cpu_seconds(api) + cpu_seconds(worker)
        begun = time.perf_counter()
        _post_orders(bench, "WHOLE")
        total = CUSTOMERS * DEVICES_EACH
        bench.wait_until(lambda: _held(bench) >= total)
        took = time.perf_counter() - begun
        cpu = cpu_seconds(api) + cpu_seconds(worker) - cpu
        ledger = bench.simulator.get("/control/ledger?calls=true&devices=false").json()
        calls = sum(1 for call in ledger["calls"] if call["operation"] != "token")
        return {
            "devices": total,
            "seconds": took,
            "devices_per_s": total / took,
            "cpu_us_per_device": cpu / total * 1e6,
            **api_peaks(api),
            "worker_peak_mb": peak_megabytes(worker),
            "calls_per_device": calls / total,
        }
