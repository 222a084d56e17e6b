"""The benchmarks' stack: real processes, with one partner."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.local.stack import Stack
from tests.support.upstream import connection_to


@dataclass
class Bench:
    stack: Stack
    api: httpx.Client
    simulator: httpx.Client
    customers: list[str]
    tenants: list[str]
    connection_id: str

    def post(self, path: str, body: Any) -> Any:
        response = self.api.post(path, json=body)
        assert response.status_code < 300, response.text
        return response.json()

    def get(self, path: str) -> Any:
        response = self.api.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    def wait_until(self, done: Any, *, patience: float = 600.0) -> float:
        """Seconds until `done()` is true."""
        begun = time.perf_counter()
        while not done():
            if time.perf_counter() - begun > patience:
                raise TimeoutError("the benchmark's work did not end")
            time.sleep(0.02)
        return time.perf_counter() - begun


@contextmanager
def open_bench(
    directory: Path,
    *,
    customers: int,
    workers: int = 1,
    consented: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Bench]:
    """Starts a stack with durable PostgreSQL, customers, and a simulator that answers at once."""
    # Calls are counted as in production, but one key may call as fast as it can.
    measured = {"REGISTRAR_LOG_LEVEL": "WARNING", "REGISTRAR_REQUESTS_PER_MINUTE": "1000000"}
    environment = {**measured, **(settings or {})}
    with (
        Stack.start(directory, sandbox=True, workers=workers, environment=environment) as stack,
        httpx.Client(base_url=stack.api_url, timeout=120, trust_env=False) as api,
        httpx.Client(base_url=stack.simulator_url or "", timeout=120, trust_env=False) as simulator,
    ):
        simulator.post("/control/presets/instant").raise_for_status()
        seeded = simulator.post(
            "/control/seed",
            json={"customers": customers, "relationship": "reseller" if consented else "none"},
        ).json()
        stack.registrar("partner", "create", "Bench", "--role", "direct_bill")
        made = stack.registrar(
            "api-key", "create", "--partner", "Bench", "--name", "bench", "--scope", "operator", "--json"
        )
        api.headers["Authorization"] = f"Bearer {json.loads(made.stdout)['key']}"
        bench = Bench(stack, api, simulator, [], [], "")
        partner = seeded["partner"]
        connection = bench.post(
            "/v1/connections",
            connection_to(partner, "bench", "Bench"),
        )
        bench.connection_id = connection["id"]
        for customer in seeded["customers"]:
            body = {
                "connection_id": connection["id"],
                "entra_tenant_id": customer["tenant_id"],
                "name": customer["tenant_id"],
            }
            bench.tenants.append(customer["tenant_id"])
            bench.customers.append(bench.post("/v1/customers", body)["id"])
        consent = bench.post(f"/v1/customers/{bench.customers[0]}/consent:recheck", None)
        assert consent["lets_pass"] is consented, consent
        yield bench


LOOKS = 300


def look(bench: Bench, path: str) -> list[float]:
    """Milliseconds of each of many GETs."""
    took = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        bench.get(path)
        took.append((time.perf_counter() - begun) * 1000)
    return took


def family(pid: int) -> list[int]:
    """A process and its descendants, oldest first. An API's last one is its intake process."""
    found = [pid]
    for each in found:
        children = Path(f"/proc/{each}/task/{each}/children").read_text().split()
        found += [int(child) for child in children]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and its descendants."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    """The highest resident memory of a process so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmHWM")


def api_peaks(pid: int) -> dict[str, float]:
    """Memory of an API's two processes; shared memory is in both figures."""
    return {"api_peak_mb": peak_megabytes(pid), "intake_peak_mb": peak_megabytes(family(pid)[-1])}


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
