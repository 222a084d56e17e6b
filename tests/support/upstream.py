"""Microsoft's stand-in as a process that outlives the stack of a test, and accounts on both sides."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.kernel.child_processes import die_with_parent
from app.local.stack import HOST, ROOT, free_port

PATIENCE = 60.0


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Waits until the condition is true and returns its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Upstream:
    url: str
    control: httpx.Client

    @property
    def environment(self) -> dict[str, str]:
        """The environment with which Registrar calls this one instead of Microsoft."""
        hosts = ("PARTNER_CENTER", "LOGIN")
        return {f"REGISTRAR_{host}_URL": self.url for host in hosts}

    def arm(self, *rules: Mapping[str, Any]) -> None:
        self.control.post("/control/faults", json=list(rules)).raise_for_status()

    def switch(self, **switches: Any) -> None:
        self.control.patch("/control/switches", json=switches).raise_for_status()

    def calm(self) -> None:
        """Disarms rules, releases held calls and finishes all jobs."""
        self.control.delete("/control/faults").raise_for_status()
        self.control.post("/control/release", json={}).raise_for_status()
        self.control.post("/control/jobs:finish", json={}).raise_for_status()

    def held(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control.get("/control/held").json()
        return found

    def ledger(self) -> dict[str, Any]:
        found: dict[str, Any] = self.control.get("/control/ledger").json()
        return found


@contextmanager
def run_upstream(log: Path) -> Iterator[Upstream]:
    port = free_port()
    arguments = [
        *(sys.executable, "-m", "uvicorn", "simulator.main:app", "--host", HOST, "--port", str(port)),
        *("--no-access-log", "--timeout-graceful-shutdown", "1"),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=output, stderr=output, preexec_fn=die_with_parent()
        )
    url = f"http://{HOST}:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as control:

            def answers() -> bool:
                assert process.poll() is None, log.read_text()
                try:
                    return control.get("/control/clock").status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, "a running simulator")
            yield Upstream(url, control)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@dataclass(frozen=True)
class Account:
    """A partner of a stack: its key, and its consented customers as (id, Entra tenant)."""

    key: str
    connection_id: str
    customers: Sequence[tuple[str, str]]

    def client(self, api_url: str) -> httpx.Client:
        return httpx.Client(
            base_url=f"{api_url}/v1",
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=60,
            trust_env=False,
        )


def connection_to(microsoft: Mapping[str, str], name: str, group_tag: str) -> dict[str, str]:
    """The body of a new connection with the credentials of a seeded partner."""
    return {
        "name": name,
        "entra_tenant_id": microsoft["tenant_id"],
        "client_id": microsoft["client_id"],
        "client_secret": microsoft["client_secret"],
        "refresh_token": microsoft["refresh_token"],
        "default_group_tag": group_tag,
    }


def open_account(
    registrar: Callable[..., subprocess.CompletedProcess[str]],
    api_url: str,
    control: httpx.Client,
    *,
    customers: int = 1,
    name: str = "Big Reseller",
    scopes: Sequence[str] = ("operator",),
) -> Account:
    """A new partner whose customers have consented; `registrar` runs a command of the stack."""
    seeded = control.post("/control/seed", json={"customers": customers}).json()
    registrar("partner", "create", name, "--role", "direct_bill")
    may = [word for scope in scopes for word in ("--scope", scope)]
    made = registrar("api-key", "create", "--partner", name, "--name", "e2e", *may, "--json")
    account = Account(json.loads(made.stdout)["key"], "", [])
    microsoft = seeded["partner"]
    with account.client(api_url) as client:
        connection = said(
            client.post(
                "/connections",
                json=connection_to(microsoft, "main", "Sales"),
            )
        )
        known = []
        for number, customer in enumerate(seeded["customers"]):
            body = {
                "connection_id": connection["id"],
                "entra_tenant_id": customer["tenant_id"],
                "name": f"Customer {number}",
            }
            known.append((said(client.post("/customers", json=body))["id"], customer["tenant_id"]))
        for customer_id, _ in known:

            def consented(customer_id: str = customer_id) -> bool:
                answer = client.post(f"/customers/{customer_id}/consent:recheck")
                return bool(said(answer)["state"] == "granted")

            until(consented, "consent")
    return Account(account.key, connection["id"], known)


class NotReady(Exception):
    """An answer of 503 with Retry-After."""


def said(response: httpx.Response) -> Any:
    if response.status_code == 503:
        raise NotReady(response.text)
    assert response.is_success, response.text
    return response.json()


def send(
    client: httpx.Client, customer_id: str, reference: str, rows: Iterable[Mapping[str, str]]
) -> tuple[str, httpx.Response]:
    """Sends an order with its reference as Idempotency-Key. Returns its id and the whole answer."""
    response = client.post(
        "/orders",
        headers={"Idempotency-Key": reference},
        json={"customer_id": customer_id, "reference": reference, "devices": list(rows)},
    )
    return said(response)["id"], response


def rows_of(client: httpx.Client, order_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    token = ""
    while True:
        page = said(
            client.get(f"/orders/{order_id}/registrations", params={"page_size": "1000", "page_token": token})
        )
        rows += page["items"]
        token = page["next_page_token"]
        if not token:
            return rows


def is_over(client: httpx.Client, order_id: str) -> bool:
    return bool(said(client.get(f"/orders/{order_id}"))["state"] not in ("in_progress", "held"))
