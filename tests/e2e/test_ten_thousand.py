"""10,000 devices through the real processes: what Registrar says is what Microsoft holds."""

import json
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from deploy.stack import Stack
from deploy.synthetic import devices

TAGS = ("Sales", "Kiosk", "Warehouse")
PATIENCE = 90.0


def _get(client: httpx.Client, path: str) -> Any:
    response = client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def _all_rows(client: httpx.Client, order_id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    token = ""
    while True:
        page = _get(client, f"/v1/orders/{order_id}/registrations?page_size=1000&page_token={token}")
        rows += page["items"]
        token = page["next_page_token"]
        if not token:
            return rows


def _open_account(stack: Stack, simulator: httpx.Client) -> tuple[str, str, str]:
    """(API key, customer id, customer's tenant) of a new partner with a consented customer."""
    seeded = simulator.post("/control/seed", json={"customers": 1}).json()
    stack.registrar("partner", "create", "Big Reseller", "--role", "direct_bill")
    made = stack.registrar("api-key", "create", "--partner", "Big Reseller", "--name", "e2e", "--json")
    key = json.loads(made.stdout)["key"]
    with httpx.Client(base_url=stack.api_url, headers={"Authorization": f"Bearer {key}"}) as client:
        microsoft = seeded["partner"]
        connection = client.post(
            "/v1/connections",
            json={
                "name": "main",
                "entra_tenant_id": microsoft["tenant_id"],
                "client_id": microsoft["client_id"],
                "client_secret": microsoft["client_secret"],
                "refresh_token": microsoft["refresh_token"],
                "default_group_tag": "Sales",
            },
        ).json()
        tenant = seeded["customers"][0]["tenant_id"]
        customer = client.post(
            "/v1/customers",
            json={"connection_id": connection["id"], "entra_tenant_id": tenant, "name": "Big Customer"},
        ).json()
        recheck = client.post(f"/v1/customers/{customer['id']}/consent:recheck").json()
        assert recheck["state"] == "granted"
    return key, customer["id"], tenant


@pytest.mark.timeout(180)
def test_ten_thousand_devices_arrive_once_at_the_right_customer_under_the_right_tag(
    stack: Stack,
) -> None:
    made = list(devices(10_000, seed=42))
    rows = [
        {**device.fields(), "group_tag": TAGS[number % 3], "line_ref": f"line-{number}"}
        for number, device in enumerate(made)
    ]
    with httpx.Client(base_url=stack.simulator_url or "", timeout=60) as simulator:
        key, customer_id, tenant = _open_account(stack, simulator)
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=stack.api_url, headers=headers, timeout=60) as client:
            body = {"customer_id": customer_id, "reference": "PO-10000", "devices": rows}
            accepted = client.post("/v1/orders", json=body)
            assert accepted.status_code == 201, accepted.text
            order_id = accepted.json()["id"]
            assert accepted.json()["counts"]["queued"] == 10_000
            deadline = time.monotonic() + PATIENCE
            while (order := _get(client, f"/v1/orders/{order_id}"))["state"] == "in_progress":
                assert time.monotonic() < deadline, order
                time.sleep(0.1)
            registered = _all_rows(client, order_id)
        ledger = simulator.get("/control/ledger").json()

    assert order["state"] == "completed"
    assert order["counts"]["registered"] == order["counts"]["total"] == 10_000
    held = ledger["devices"]
    assert len(held) == 10_000
    assert {device["customer"] for device in held} == {tenant}
    assert {device["submissions"] for device in held} == {1}
    assert Counter(d["group_tag"] for d in held) == Counter(row["group_tag"] for row in registered)
    ours = Counter((r["serial_number"] or r["product_key"], r["group_tag"]) for r in registered)
    theirs = Counter((d["serial"] or d["product_key"], d["group_tag"]) for d in held)
    assert ours == theirs
    assert [row["line_ref"] for row in registered] == [f"line-{n}" for n in range(10_000)]
    creates = [call for call in ledger["calls"] if call["operation"] == "create"]
    assert len(creates) == len(TAGS)
    assert all(call["device_count"] <= 1000 for call in ledger["calls"] if call["device_count"])
