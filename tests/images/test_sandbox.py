"""The sandbox of compose.yaml, with its secret keys in a file: one device is registered from end to end."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.images.installation import Installation, wait_until
from tests.images.proofs import (
    assert_is_a_user_without_powers,
    assert_root_is_read_only,
    assert_stops_within_its_grace,
)

API = "http://127.0.0.1:8000"
SIMULATOR = "http://127.0.0.1:8090"
DEVICE = {"serial_number": "SYN0000001", "manufacturer": "Contoso", "model": "Contoso Book 14"}
CREDENTIALS = {
    "client_id": str(uuid4()),
    "client_secret": "sandbox-secret",
    "refresh_token": "sandbox-refresh",
}
PARTNER = {"tenant_id": str(uuid4()), "name": "Sandbox Partner", **CREDENTIALS}
CUSTOMER = {"tenant_id": str(uuid4()), "name": "Consented Customer", "relationship": "reseller"}
CONNECTION = {
    "name": "Sandbox",
    "entra_tenant_id": PARTNER["tenant_id"],
    "default_group_tag": "Sandbox",
    **CREDENTIALS,
}


def called(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    answer = client.request(method, path, json=body)
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def a_key(sandbox: Installation) -> str:
    """A new partner's key, made as an operator would make it."""
    sandbox.command("api", "partner", "create", "Sandbox Partner", "--role", "direct_bill")
    made = sandbox.command(
        *(
            "api",
            "api-key",
            "create",
            "--partner",
            "Sandbox Partner",
            "--name",
            "first",
            "--scope",
            "operator",
        ),
        "--json",
    )
    return str(json.loads(made)["key"])


def test_the_simulator_runs_as_a_user_without_powers_on_a_read_only_root(sandbox: Installation) -> None:
    assert_is_a_user_without_powers(sandbox.podman, "simulator")
    assert_root_is_read_only(sandbox.podman, "simulator")
    sandbox.await_health("simulator")


def test_an_order_of_one_device_is_registered_at_the_simulator(sandbox: Installation) -> None:
    headers = {"Authorization": f"Bearer {a_key(sandbox)}"}
    with (
        httpx.Client(base_url=SIMULATOR, trust_env=False, timeout=30) as microsoft,
        httpx.Client(base_url=f"{API}/v1", headers=headers, trust_env=False, timeout=30) as registrar,
    ):
        called(microsoft, "POST", "/control/seed", {"partner": PARTNER, "customers": 0})
        called(microsoft, "POST", "/control/customers", CUSTOMER)
        connection = called(registrar, "POST", "/connections", CONNECTION)
        customer = called(
            registrar,
            "POST",
            "/customers",
            {"connection_id": connection["id"], "entra_tenant_id": CUSTOMER["tenant_id"], "name": "Customer"},
        )
        order = called(
            registrar,
            "POST",
            "/orders",
            {"customer_id": customer["id"], "reference": "first-order", "devices": [DEVICE]},
        )
        path = f"/orders/{order['id']}"
        wait_until("the order is completed", lambda: called(registrar, "GET", path)["state"] == "completed")

        (registration,) = called(registrar, "GET", f"{path}/registrations")["items"]
        assert registration["state"] == "registered"
        held = called(microsoft, "GET", "/control/ledger?calls=false")["devices"]
    assert [(each["customer"], each["serial"], each["group_tag"]) for each in held] == [
        (CUSTOMER["tenant_id"], DEVICE["serial_number"], CONNECTION["default_group_tag"])
    ]


def test_the_secret_keys_come_from_the_file(sandbox: Installation) -> None:
    """No environment has them, so what was sealed above was sealed with the file's."""
    for name in ("api", "worker-1", "worker-2"):
        environment = sandbox.podman.inspect(name)["Config"]["Env"]
        assert "REGISTRAR_SECRET_KEYS=" in environment
        assert "REGISTRAR_SECRET_KEYS_FILE=/run/secrets/secret_keys" in environment


@pytest.mark.parametrize(
    "name", ["api", "worker-1", "worker-2", "simulator"]
)  # the last: nothing runs after it
def test_sigterm_ends_a_container_within_its_grace_with_0(sandbox: Installation, name: str) -> None:
    assert_stops_within_its_grace(sandbox, name)
