"""A stand-in for Registrar's API behind httpx's transport, for tests of the command line.

It stands alone because several tests of the command line share it; what it answers has the shapes of
`app.api.contract.models`, and what was asked of it can be looked at afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import orjson
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.surroundings import Surroundings
from app.domain.registration import RegistrationState

DEVICES = """\
Serial Number;Manufacturer;Model;Colour
SYN1;Contoso;Book 14;red

SYN2;Contoso;Book 14;blue
"""
KEY = "rk_0a1b2c3d_" + "k" * 52
NO_CONFIGURATION = "/dev/null"
"""A folder without files, so that the user's own profiles do not count."""
NOW = "2026-03-01T10:00:00.000Z"
CUSTOMER: dict[str, Any] = {
    "id": str(UUID(int=1)),
    "connection_id": str(UUID(int=9)),
    "entra_tenant_id": str(UUID(int=11)),
    "name": "Contoso",
    "domain": "contoso.example",
    "default_group_tag": None,
    "consent": {
        "state": "granted",
        "since": NOW,
        "evidence": "customers_list",
        "proved_at": NOW,
        "checked_at": NOW,
    },
    "created_at": NOW,
    "updated_at": NOW,
}
OTHER: dict[str, Any] = {
    **CUSTOMER,
    "id": str(UUID(int=2)),
    "entra_tenant_id": str(UUID(int=12)),
    "name": "Fabrikam",
    "domain": None,
}

CONNECTION: dict[str, Any] = {
    "id": str(UUID(int=9)),
    "name": "Partner Center",
    "platform": "partner_center",
    "portal": False,
    "entra_tenant_id": str(UUID(int=19)),
    "client_id": str(UUID(int=29)),
    "has_refresh_token": True,
    "refresh_token_at": NOW,
    "region": None,
    "default_group_tag": "Standard",
    "trouble": None,
    "customers_read_at": NOW,
    "checked_at": NOW,
    "created_at": NOW,
    "updated_at": NOW,
}
ENDPOINT: dict[str, Any] = {
    "id": str(UUID(int=50)),
    "url": "https://hooks.example/registrar",
    "description": "order system",
    "event_types": [],
    "state": "enabled",
    "consecutive_failures": 0,
    "created_at": NOW,
    "updated_at": NOW,
}

Reply = Callable[[httpx.Request], httpx.Response]


def counts(**given: int) -> dict[str, int]:
    return {"total": sum(given.values()), **{state: given.get(state, 0) for state in RegistrationState}}


def problem(status: int, code: str, title: str, **more: Any) -> httpx.Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": title, "code": code}
    return httpx.Response(status, json={**body, "remedy": "Do this.", "correlation_id": "c-1", **more})


@dataclass
class Wire:
    """The parts of the API that the commands need. `outcomes` are the states that an order goes through."""

    outcomes: Sequence[Mapping[str, Any]] = ({"state": "completed", "counts": {"registered": 2}},)
    invalid_rows: Mapping[int, str] = field(default_factory=dict)
    remarks: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Findings of valid rows."""
    customers: Sequence[Mapping[str, Any]] = (CUSTOMER, OTHER)
    registrations: Sequence[Mapping[str, Any]] = ()
    batches: Sequence[Mapping[str, Any]] = ()
    connections: Sequence[Mapping[str, Any]] = (CONNECTION,)
    endpoints: Sequence[Mapping[str, Any]] = (ENDPOINT,)
    first: dict[tuple[str, str], list[Reply]] = field(default_factory=dict)
    """Answers that replace the usual ones, by method and path."""
    requests: list[httpx.Request] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    executed: list[Sequence[str]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if waiting := self.first.get((request.method, path)):
            return waiting.pop(0)(request)
        match request.method, path.split("/")[2:]:
            case "POST", ["orders"]:
                return self.take(request)
            case "GET", ["orders"]:
                params = request.url.params
                return self._page(
                    [
                        {**order, "counts": order["counts"] or counts()}
                        for order in reversed(self.orders.values())
                        if all(
                            params.get(name) in (None, order[name])
                            for name in ("reference", "customer_id", "purchase_order", "state")
                        )
                    ]
                )
            case "GET", ["batches"]:
                wanted = request.url.params["order_id"]
                return self._page([batch for batch in self.batches if batch["order_id"] == wanted])
            case "GET", ["orders", id]:
                return self._order(id)
            case "GET", ["orders", _, "registrations"] | ["registrations"]:
                params = request.url.params
                return self._page(
                    [
                        row
                        for row in self.registrations
                        if params.get("state") in (None, row["state"])
                        and params.get("product_key") in (None, row["product_key"])
                        and params.get("line_ref") in (None, row["line_ref"])
                        and params.get("serial_contains", "") in (row["serial_number"] or "")
                    ]
                )
            case "GET", ["customers"]:
                params = request.url.params
                return self._page(
                    [
                        customer
                        for customer in self.customers
                        if params.get("domain") in (None, customer["domain"])
                        and params.get("entra_tenant_id") in (None, customer["entra_tenant_id"])
                    ]
                )
            case "GET", ["connections"]:
                return self._page(self.connections)
            case "GET", ["webhook-endpoints"]:
                return self._page(self.endpoints)
            case "GET", ["customers" | "connections" | "webhook-endpoints" as kind, id]:
                things = {"customers": self.customers, "connections": self.connections}
                found = [each for each in things.get(kind, self.endpoints) if each["id"] == id]
                return httpx.Response(200, json=found[0]) if found else problem(404, "not_found", "None.")
            case _:
                return problem(404, "not_found", f"There is no {path}.")

    def _page(self, items: Sequence[Mapping[str, Any]]) -> httpx.Response:
        return httpx.Response(200, json={"items": items, "next_page_token": None})

    def take(self, request: httpx.Request) -> httpx.Response:
        sent = orjson.loads(request.content)
        total, bad = len(sent["devices"]), len(self.invalid_rows)
        problems = [
            {
                "row": row,
                "line_ref": sent["devices"][row - 1]["line_ref"],
                "valid": False,
                "findings": [
                    {
                        "code": "incomplete_tuple",
                        "severity": "error",
                        "field": "model",
                        "detail": words,
                        "remedy": "Name the model.",
                    }
                ],
            }
            for row, words in self.invalid_rows.items()
        ]
        problems += [
            {"row": row, "line_ref": str(row), "valid": True, "findings": [finding]}
            for row, finding in self.remarks.items()
        ]
        preview = {
            "counts": counts(queued=total - bad, invalid=bad),
            "batches": [{"group_tag": "Desk", "devices": total - bad}],
            "problems": problems,
            "problems_total": bad,
        }
        if sent["validate_only"]:
            return httpx.Response(200, json=preview)
        id = str(UUID(int=100 + len(self.orders)))
        order = {
            "id": id,
            "reference": sent["reference"],
            "purchase_order": sent["purchase_order"],
            "customer_id": sent["customer_id"],
            "platform": "partner_center",
            "group_tag": "Desk",
            "state": "in_progress",
            "counts": preview["counts"],
            "created_at": NOW,
        }
        self.orders[id] = order
        return httpx.Response(201, json={**order, "preview": preview})

    def _order(self, id: str) -> httpx.Response:
        if id not in self.orders:
            return problem(404, "not_found", "There is no such thing", detail=f"There is no order {id}.")
        now = self.outcomes[min(self.looks, len(self.outcomes) - 1)]
        self.looks += 1
        order = {**self.orders[id], **now, "counts": counts(**now["counts"])}
        return httpx.Response(200, json=order, headers={"Retry-After": "3"})

    def run(
        self,
        *arguments: str,
        key: str = KEY,
        env_columns: str | None = "200",
        answer: bool | None = None,
        **extra: Any,
    ) -> Result:
        """With an answer, a user at the terminal gives it to every question."""

        def ask(question: str) -> bool:
            self.questions.append(question)
            return bool(answer)

        surroundings = Surroundings(
            transport=httpx.MockTransport(self),
            sleep=self.pauses.append,
            execute=self.executed.append,
            ask=None if answer is None else ask,
        )
        environment: dict[str, str | None] = {
            "REGISTRAR_API_KEY": key,
            "REGISTRAR_API_URL": "http://127.0.0.1:8000",
            "XDG_CONFIG_HOME": NO_CONFIGURATION,
            "COLUMNS": env_columns,
        }
        environment |= extra.pop("env", {})
        return CliRunner().invoke(app, list(arguments), obj=surroundings, env=environment, **extra)

    def sent(self) -> list[dict[str, Any]]:
        return [orjson.loads(r.content) for r in self.requests if r.method == "POST" and r.content]


def row_of(state: RegistrationState, **more: Any) -> dict[str, Any]:
    return {
        "id": str(UUID(int=7)),
        "order_id": str(UUID(int=100)),
        "customer_id": CUSTOMER["id"],
        "row": 1,
        "line_ref": "10",
        "state": state.value,
        "group_tag": "Desk",
        "serial_number": "SYN1",
        "manufacturer": "Contoso",
        "model": "Book 14",
        "product_key": None,
        "error_code": "assigned_to_other_tenant",
        "error_detail": None,
        "remedy": "Ask the previous owner. Then use `:retry-failed`.",
        "upstream": {"code": "808", "name": "ZtdDeviceAssignedToOtherTenant", "device_id": None},
        "updated_at": NOW,
        **more,
    }
