"""The whole way: 200,000 devices of 200 customers, the simulator answering at once; and on the way the
two promises that matter to whoever is not the big order: a single device of another customer goes out
at once, and looking at an order stays quick.
"""

import time
from pathlib import Path

import orjson

from deploy.synthetic import devices
from tests.benchmarks.world import Bench, cpu_seconds, open_bench, peak_megabytes, percentile

CUSTOMERS = 200
DEVICES_EACH = 1_000
SINGLES = 20
LOOKS = 200
UNHURRIED = {"REGISTRAR_BUDGET_START": "2000", "REGISTRAR_BUDGET_CEILING": "5000"}
"""The throttle budget's own bound is not what is measured here."""


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
    return int(sum(totals["devices_held_by_customer"].values()))


def _single_devices(bench: Bench) -> list[float]:
    """Seconds from sending one device of an idle customer until it has been sent to Microsoft."""
    customer, took = bench.customers[CUSTOMERS], []
    for number in range(SINGLES):
        row = {"serial_number": f"ONE{number}", "manufacturer": "Contoso", "model": "Book"}
        body = {"customer_id": customer, "reference": f"ONE-{number}", "devices": [row]}
        begun = time.perf_counter()
        order = bench.post("/v1/orders", body)["id"]

        def sent(order: str = order) -> bool:
            counts = bench.get(f"/v1/orders/{order}")["counts"]
            return counts["queued"] == 0 and counts["submitting"] == 0

        bench.wait_until(sent)
        took.append(time.perf_counter() - begun)
    return took


def run(directory: Path) -> dict[str, float]:
    with open_bench(directory, customers=CUSTOMERS + 1, workers=1, **UNHURRIED) as bench:
        parts = {name: part.pid for name, part in bench.stack.processes.items()}
        api, worker = parts["api"], parts["worker-1"]
        assert api is not None
        assert worker is not None
        cpu = cpu_seconds(api) + cpu_seconds(worker)
        begun = time.perf_counter()
        _post_orders(bench, "WHOLE")
        waiting = _held(bench)
        singles = _single_devices(bench)
        total = CUSTOMERS * DEVICES_EACH + SINGLES
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
            "api_peak_mb": peak_megabytes(api),
            "worker_peak_mb": peak_megabytes(worker),
            "calls_per_device": calls / total,
            "held_when_singles_began": waiting,
            "single_p50_s": percentile(singles, 0.5),
            "single_p95_s": percentile(singles, 0.95),
        }
