"""Customers, connections and webhooks at the command line."""

from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.outcome import ExitCode
from app.cli.webhooks import LOOKS
from tests.unit.cli_wire import CONNECTION, CUSTOMER, ENDPOINT, NOW, Wire

TENANT = str(UUID(int=77))
TROUBLE = {
    "code": "credential_refused",
    "said": "AADSTS7000222: expired",
    "since": NOW,
    "remedy": "Give the connection a new client secret.",
}


@pytest.fixture
def wire() -> Wire:
    return Wire()


def answer(wire: Wire, method: str, path: str, status: int, body: dict[str, Any]) -> None:
    wire.first.setdefault((method, path), []).append(lambda _: httpx.Response(status, json=body))


# --- customers ------------------------------------------------------------------------------------


def test_the_old_name_of_the_customers_list_still_works_and_is_not_shown(wire: Wire) -> None:
    assert wire.run("customers").stdout == wire.run("customer", "list").stdout
    commands = {line.split()[1] for line in wire.run("--help").stdout.splitlines() if line.startswith("│ ")}
    assert "customer" in commands
    assert "customers" not in commands


def test_a_customer_is_added_through_the_only_connection(wire: Wire) -> None:
    answer(wire, "POST", "/v1/customers", 201, {**CUSTOMER, "name": "Northwind"})
    result = wire.run("customer", "add", "Northwind", "--tenant", TENANT, "--domain", "northwind.example")
    assert result.exit_code == ExitCode.DONE, result.output
    assert wire.sent() == [
        {
            "connection_id": CONNECTION["id"],
            "entra_tenant_id": TENANT,
            "name": "Northwind",
            "domain": "northwind.example",
            "default_group_tag": None,
        }
    ]
    assert wire.requests[-1].headers["Idempotency-Key"]
    assert "`registrar consent Northwind`" in result.stdout


def test_of_several_connections_one_has_to_be_named(wire: Wire) -> None:
    second = {**CONNECTION, "id": str(UUID(int=10)), "name": "Europe"}
    wire.connections = [CONNECTION, second]
    result = wire.run("customer", "add", "Northwind", "--tenant", TENANT)
    assert result.exit_code == ExitCode.ERROR
    assert "Partner Center, Europe" in result.stderr
    answer(wire, "POST", "/v1/customers", 201, CUSTOMER)
    wire.run("customer", "add", "Northwind", "--tenant", TENANT, "--connection", "europe")
    assert wire.sent()[0]["connection_id"] == second["id"]
    assert wire.run("customer", "add", "x", "--tenant", "no-id").exit_code == ExitCode.ERROR


def test_a_customer_is_changed_in_what_is_given_only(wire: Wire) -> None:
    path = f"/v1/customers/{CUSTOMER['id']}"
    answer(wire, "PATCH", path, 200, {**CUSTOMER, "name": "Contoso AG", "domain": None})
    result = wire.run("customer", "edit", "contoso", "--name", "Contoso AG", "--domain", "")
    assert result.exit_code == ExitCode.DONE, result.output
    sent = [orjson.loads(request.content) for request in wire.requests if request.method == "PATCH"]
    assert sent == [{"name": "Contoso AG", "domain": None}]
    assert "Contoso AG" in result.stdout
    assert wire.run("customer", "edit", "contoso").exit_code == ExitCode.ERROR


# --- connections ------------------------------------------------------------------------------------


def test_connections_say_which_of_them_are_in_trouble(wire: Wire) -> None:
    wire.connections = [CONNECTION, {**CONNECTION, "id": str(UUID(int=10)), "name": "EU", "trouble": TROUBLE}]
    lines = wire.run("connection", "list").stdout.splitlines()
    assert "works" in lines[1]
    assert "trouble: Microsoft refuses the connection's credentials" in lines[2]
    shown = wire.run("connection", "show", "eu")
    assert shown.exit_code == ExitCode.ERROR
    assert "AADSTS7000222" in shown.stdout
    assert "Give the connection a new client secret." in shown.stdout
    assert wire.run("connection", "show", CONNECTION["id"]).exit_code == ExitCode.DONE
    assert "Partner Center, EU" in wire.run("connection", "show", "nothing").stderr


@pytest.mark.parametrize("ok", [True, False])
def test_a_connection_is_checked(wire: Wire, ok: bool) -> None:
    body = {
        "ok": ok,
        "proved": ["token", "customers_list"] if ok else ["token"],
        "code": None if ok else "access_denied",
        "said": None if ok else "Forbidden",
        "remedy": None if ok else "Check the roles.",
    }
    for _ in range(2):
        answer(wire, "POST", f"/v1/connections/{CONNECTION['id']}:check", 200, body)
    result = wire.run("connection", "check", "Partner Center")
    assert result.exit_code == (ExitCode.DONE if ok else ExitCode.ERROR)
    assert ("works." in result.stdout) == ok
    assert ("Check the roles." in result.stdout) != ok
    document = orjson.loads(wire.run("connection", "check", "Partner Center", "--json").stdout)
    assert document == {**body, "exit_code": result.exit_code}


# --- webhooks -------------------------------------------------------------------------------------


def test_endpoints_are_listed(wire: Wire) -> None:
    wire.endpoints = [{**ENDPOINT, "state": "degraded", "consecutive_failures": 7}]
    line = wire.run("webhook", "list").stdout.splitlines()[1].split()
    assert line[:4] == [ENDPOINT["url"], "degraded", "7", "all"]
    assert orjson.loads(wire.run("webhook", "list", "--json").stdout) == wire.endpoints


def test_an_endpoint_is_added_and_its_secret_shown_once(wire: Wire) -> None:
    answer(wire, "POST", "/v1/webhook-endpoints", 201, {**ENDPOINT, "secret": "whsec_abc"})
    result = wire.run("webhook", "add", ENDPOINT["url"], "--event", "order.completed")
    assert result.exit_code == ExitCode.DONE, result.output
    assert wire.sent() == [{"url": ENDPOINT["url"], "event_types": ["order.completed"]}]
    assert "whsec_abc" in result.stdout
    assert "not be shown again" in result.stdout


@pytest.mark.parametrize(
    ("states", "code", "words"),
    [
        (["pending", "succeeded"], ExitCode.DONE, "has arrived"),
        (["pending", "retrying"], ExitCode.ERROR, "has not arrived"),
        (["pending"] * LOOKS, ExitCode.ERROR, "has not been sent yet"),
    ],
)
def test_a_test_webhook_is_followed(wire: Wire, states: list[str], code: ExitCode, words: str) -> None:
    delivery = {"id": str(UUID(int=60)), "last_status": 500, "last_kind": "status", "attempt_log": []}
    answer(
        wire, "POST", f"/v1/webhook-endpoints/{ENDPOINT['id']}:test", 202, {**delivery, "state": "pending"}
    )
    for state in states:
        answer(wire, "GET", f"/v1/webhook-deliveries/{delivery['id']}", 200, {**delivery, "state": state})
    result = wire.run("webhook", "test", ENDPOINT["url"])
    assert result.exit_code == code, result.output
    assert words in result.stdout
    assert "no webhook endpoint" in wire.run("webhook", "test", "https://elsewhere.example").stderr
