"""Columns can be added to every table while this release runs: no call fails, and no worker's step fails."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError

from app.db import schema, table_locks
from app.db.connecting import make_engine
from app.db.sqlstate import sqlstate_of
from app.db.tables import metadata
from app.local.child import end_of
from app.local.receiver import Receiver
from app.local.stack import Stack
from app.local.synthetic import devices
from tests.support.servers import copy_cluster
from tests.support.upstream import (
    PATIENCE,
    Account,
    Upstream,
    is_over,
    open_account,
    rows_of,
    run_upstream,
    said,
    until,
)

SETTINGS = {
    "REGISTRAR_POLL_FIRST_S": "0.1",
    "REGISTRAR_POLL_CEILING_S": "0.5",
    "REGISTRAR_HEARTBEAT_S": "1",
    "REGISTRAR_SWEEP_INTERVAL_S": "1",
    "REGISTRAR_CONSENT_INTERVAL_S": "30",
    "REGISTRAR_WEBHOOK_ALLOW_HTTP": "true",
    "REGISTRAR_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
}
ADDED = ("integer", "integer DEFAULT 7 NOT NULL")
"""The columns that each table gets, one after the other."""
DEVICES = 15
"""Devices in one order, and in one file."""
HEADER = "Device Serial Number,Manufacturer name,Device model\r\n"
READ = (
    "/orders", "/orders/{order}", "/orders/{order}/registrations", "/orders/{order}/batches",
    "/batches", "/customers", "/connections", "/devices", "/limits", "/imports",
    "/webhook-endpoints", "/webhook-deliveries",
)  # fmt: skip


@dataclass
class Load:
    """Makes calls of one partner, each kind in its own thread, until the block ends."""

    account: Account
    api_url: str
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    orders: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    _number: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _stop: threading.Event = field(default_factory=threading.Event)

    def _call(self, client: httpx.Client, kind: str, method: str, path: str, **given: Any) -> Any:
        response = client.request(method, path, **given)
        self.answers[kind, response.status_code] += 1
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def order(self, client: httpx.Client) -> None:
        number = next(self._number)
        customer_id, _ = self.account.customers[number % 2]
        made = [{**device.fields(), "group_tag": "Sales"} for device in devices(DEVICES, number)]
        body = {"customer_id": customer_id, "reference": f"PO-{number}", "devices": made}
        key = {"Idempotency-Key": f"PO-{number}"}
        self.orders.append(self._call(client, "order", "POST", "/orders", headers=key, json=body)["id"])

    def file(self, client: httpx.Client) -> None:
        number = next(self._number)
        rows = "".join(f"FILE{number:05}N{row:03},Contoso,Book\r\n" for row in range(DEVICES))
        given = {"customer_id": self.account.customers[number % 2][0], "reference": f"FILE-{number}"}
        found = self._call(client, "file", "POST", "/imports", params=given, content=HEADER + rows)
        path = f"/imports/{found['id']}"
        until(lambda: self._call(client, "file", "GET", path)["state"] == "ready", f"{path} to be read")
        self._call(client, "file", "POST", f"{path}:commit", json={})
        self.imports.append(found["id"])

    def read(self, client: httpx.Client) -> None:
        for path in READ:
            self._call(client, "read", "GET", path.format(order=self.orders[-1]))

    def recheck(self, client: httpx.Client) -> None:
        for customer_id, _ in self.account.customers:
            self._call(client, "recheck", "POST", f"/customers/{customer_id}/consent:recheck")

    def _repeat(self, each: Callable[[httpx.Client], None]) -> None:
        try:
            with self.account.client(self.api_url) as client:
                while not self._stop.is_set():
                    each(client)
        except BaseException as error:
            self.failures.append(error)
            raise

    @contextmanager
    def running(self) -> Iterator[None]:
        kinds = (self.order, self.file, self.read, self.recheck)
        threads = [threading.Thread(target=self._repeat, args=(kind,)) for kind in kinds]
        with self.account.client(self.api_url) as client:
            self.order(client)
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(self.answers) >= len(kinds) or self.failures, "an answer to each kind of call")
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(PATIENCE)


async def _add_columns(database_url: str) -> None:
    """Adds columns as migrations do: each in its own transaction, repeated if callers held locks."""
    engine = make_engine(database_url, poolclass=pool.NullPool)

    def add(connection: Connection, table: str, number: int, kind: str) -> None:
        table_locks.take(connection, {table: table_locks.ALTER})
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN of_a_later_release_{number} {kind}"))

    for table in metadata.sorted_tables:
        for number, kind in enumerate(ADDED):
            ends = time.monotonic() + schema.PATIENCE
            while True:
                try:
                    async with engine.begin() as session:
                        await session.run_sync(add, table.name, number, kind)
                    break
                except DBAPIError as error:
                    if sqlstate_of(error) not in schema.IN_THE_WAY or time.monotonic() > ends:
                        raise
    await engine.dispose()


def _logged(log: Path) -> Counter[tuple[str, str]]:
    """What a process has logged above `info`: counts by level and event."""
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
    return Counter((line["level"], line["event"]) for line in lines if line["level"] not in ("info", "debug"))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with run_upstream(tmp_path / "simulator.log") as running:
        running.switch(processing_min_ms=50, processing_max_ms=200)
        yield running


@pytest.mark.timeout(180)
def test_columns_added_to_every_table_under_load_cost_no_error(
    tmp_path: Path, cluster: Path, upstream: Upstream
) -> None:
    data_dir = copy_cluster(cluster, tmp_path / "data")
    environment = {**SETTINGS, **upstream.environment}
    with (
        Receiver() as receiver,
        Stack.start(data_dir, sandbox=False, workers=2, durable=False, environment=environment) as stack,
    ):
        account = open_account(stack.registrar, stack.api_url, upstream.control, customers=2)
        load = Load(account, stack.api_url)
        with account.client(stack.api_url) as client:
            endpoint = said(client.post("/webhook-endpoints", json={"url": receiver.url}))
            receiver.secret = endpoint["secret"]
            with load.running():
                asyncio.run(_add_columns(stack.database_url))
            assert load.failures == [], load.failures
            order_ids = [*load.orders, *_orders_of(client, load.imports)]
            for order_id in order_ids:
                until(partial(is_over, client, order_id), f"the end of order {order_id}")
            rows = [row for order_id in order_ids for row in rows_of(client, order_id)]
            until(lambda: not _undelivered(client), "every delivery made")
        for log in [stack.logs / f"{name}.log" for name in ("api", "worker-1", "worker-2")]:
            assert _logged(log) == {}, end_of(log)
    assert {status for _, status in load.answers} <= {200, 201, 202}
    assert Counter(row["state"] for row in rows) == {"registered": len(order_ids) * DEVICES}
    _assert_registered_once(rows, upstream)
    assert receiver.events
    assert receiver.refused == 0


def _orders_of(client: httpx.Client, import_ids: list[str]) -> list[str]:
    """The orders made from the files."""

    def made(import_id: str) -> list[str]:
        found = said(client.get(f"/imports/{import_id}"))
        return [order["order_id"] for order in found["orders"]] if found["state"] == "committed" else []

    return [
        order_id
        for import_id in import_ids
        for order_id in until(partial(made, import_id), f"orders of {import_id}")
    ]


def _undelivered(client: httpx.Client) -> int:
    states = ("pending", "retrying", "exhausted")
    return sum(
        len(said(client.get("/webhook-deliveries", params={"state": state}))["items"]) for state in states
    )


def _assert_registered_once(rows: list[dict[str, Any]], upstream: Upstream) -> None:
    held = upstream.ledger()["devices"]
    ours = Counter(row["serial_number"] or row["product_key"] for row in rows)
    assert ours == Counter(device["serial"] or device["product_key"] for device in held)
    assert set(ours.values()) == {1}
    assert {device["submissions"] for device in held} == {1}
