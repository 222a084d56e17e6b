"""An order through the generated Python client, from the connection to the outcome of each device.

Runs in the client's own environment: it knows the client and the standard library.
"""

import json
import os
import sys
import time
from uuid import UUID

from registrar_client.api.catalogues import get_error_code, get_me
from registrar_client.api.connections import check_connection, create_connection
from registrar_client.api.customers import create_customer, get_customer, recheck_customer_consent
from registrar_client.api.orders import (
    create_order,
    download_order_result,
    get_order,
    list_order_registrations,
    list_orders,
)
from registrar_client.client import AuthenticatedClient, Client
from registrar_client.models import (
    ConnectionIn,
    CustomerIn,
    DeviceIn,
    OrderAccepted,
    OrderIn,
    OrderState,
    OrderValidated,
    Problem,
)

PATIENCE = 60.0
scene = json.loads(os.environ["SCENE"])
client = AuthenticatedClient(base_url=scene["api"], token=scene["key"], raise_on_unexpected_status=True)
assert get_me.sync(client=client).partner_name == "Reseller"

reseller = scene["reseller"]
connection = create_connection.sync(
    client=client,
    body=ConnectionIn(
        name="Partner Center",
        entra_tenant_id=UUID(reseller["tenant_id"]),
        client_id=reseller["client_id"],
        client_secret=reseller["client_secret"],
        refresh_token=reseller["refresh_token"],
        default_group_tag="Standard",
    ),
)
assert check_connection.sync(connection.id, client=client).ok
customer = create_customer.sync(
    client=client,
    body=CustomerIn(connection_id=connection.id, entra_tenant_id=UUID(scene["tenant"]), name="Contoso"),
)
assert recheck_customer_consent.sync(customer.id, client=client).lets_pass
assert get_customer.sync(customer.id, client=client).domain is None

body = OrderIn(
    customer_id=customer.id,
    reference="PO-4711",
    devices=[
        DeviceIn(line_ref="1", serial_number="SYN0001", manufacturer="Contoso", model="Contoso Book 14"),
        DeviceIn(line_ref="2", serial_number="SYN0002"),
    ],
)
looked = create_order.sync(client=client, body=OrderIn.from_dict({**body.to_dict(), "validate_only": True}))
assert isinstance(looked, OrderValidated), looked
assert (looked.result, looked.counts.invalid, looked.problems[0].row) == ("validated", 1, 2)
order = create_order.sync(client=client, body=body, idempotency_key="client-1")
assert isinstance(order, OrderAccepted), order
assert (order.result, order.state) == ("accepted", OrderState.IN_PROGRESS)
refused = create_order.sync(client=client, body=body)
assert isinstance(refused, Problem), refused
assert refused.links["order_id"] == str(order.id)
explained = get_error_code.sync(refused.code, client=Client(base_url=scene["api"]))
assert explained.remedy == refused.remedy

deadline = time.monotonic() + PATIENCE
while (found := get_order.sync(order.id, client=client)).state == OrderState.IN_PROGRESS:
    assert time.monotonic() < deadline, found
    time.sleep(0.2)
assert found.state == OrderState.COMPLETED_WITH_ERRORS, found
rows = list_order_registrations.sync(order.id, client=client).items
assert [(row.line_ref, row.state.value) for row in rows] == [("1", "registered"), ("2", "invalid")]
assert rows[0].settled_at >= order.created_at, "times are times"
assert [item.id for item in list_orders.sync(client=client, reference="PO-4711").items] == [order.id]
assert "SYN0001" in download_order_result.sync(order.id, client=client)
sys.stdout.write("The Python client has placed an order and followed it to its end.\n")
