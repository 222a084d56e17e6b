"""10,000 devices through the real processes: what Registrar says is what Microsoft holds."""

from collections import Counter

import httpx
import pytest

from app.local.stack import Stack
from app.local.synthetic import devices
from tests.support.upstream import is_over, open_account, rows_of, said, send, until

TAGS = ("Sales", "Kiosk", "Warehouse")
PATIENCE = 90.0


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
        account = open_account(stack.registrar, stack.api_url, simulator)
        [(customer_id, tenant)] = account.customers
        with account.client(stack.api_url) as client:
            order_id, accepted = send(client, customer_id, "PO-10000", rows)
            assert accepted.json()["counts"]["queued"] == 10_000
            until(lambda: is_over(client, order_id), "the end of the order", PATIENCE)
            order = said(client.get(f"/orders/{order_id}"))
            registered = rows_of(client, order_id)
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
