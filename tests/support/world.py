"""A whole Registrar in a test: real database, real queue, the simulator on a real socket, a movable clock.

Tests act in it and check both sides: ours and Microsoft's.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.connecting import make_engine
from app.db.tables import metadata
from app.domain.actor import ActingFor, Actor
from app.domain.identity import Device
from app.domain.ids import PartnerId
from app.domain.presence import Presence
from app.kernel.settings import Settings
from app.main import build
from app.runtime import Runtime
from app.services.access import identities
from app.services.access.identities import Caller, PartnerRole
from app.services.connections import connections, customer_readings
from app.services.connections.connections import NewConnection
from app.services.customers import customers
from app.services.customers.customers import NewCustomer
from app.services.operations import sweep
from app.services.orders import acceptance, orders
from app.services.orders.acceptance import Acceptance, NewOrder
from app.services.registering import batches
from app.services.webhooks import deliveries
from tests.support.servers import Servers

FILLED = [table.name for table in metadata.sorted_tables if table.name != "row_sealing"]
"""The tables that a test may fill, without the one that has a permanent row."""
EMPTY_ALL_TABLES = "\n".join(
    ["DO $$ BEGIN", *(f"DELETE FROM {name};" for name in reversed(FILLED)), "END $$"]
)
"""Children first, in one round trip. With few rows this is quicker than TRUNCATE."""


@dataclass
class Clock:
    """Real time, which a test can move forward."""

    offset: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, **by: float) -> None:
        self.offset += timedelta(**by)

    def reach(self, moment: datetime) -> None:
        self.offset += max(moment - self.now(), timedelta())


class KeyHolder:
    """A principal of the services that can also call the API with its own key."""

    id: PartnerId
    key: str
    caller: Caller

    @property
    def partner_id(self) -> PartnerId:
        return self.id

    @property
    def actor(self) -> Actor:
        return self.caller.actor

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@dataclass(frozen=True)
class Partner(KeyHolder):
    id: PartnerId
    name: str
    key: str
    caller: Caller
    connection_id: UUID
    entra_tenant_id: UUID
    customer_id: UUID
    tenant_id: UUID
    other_customer_id: UUID
    """Not consented."""
    other_tenant_id: UUID


@dataclass
class World:
    runtime: Runtime
    clock: Clock
    simulator: httpx.AsyncClient
    app: FastAPI
    client: httpx.AsyncClient
    partners: int = 0
    references: int = 0

    # --- Microsoft's side ---------------------------------------------------------------------

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        response = await self.simulator.request(method, f"/control/{path}", json=body)
        assert response.status_code < 300, response.text
        return response.json() if response.content else None

    async def switch(self, **switches: Any) -> None:
        await self.control("PATCH", "switches", switches)

    async def arm(self, *rules: dict[str, Any]) -> None:
        await self.control("POST", "faults", list(rules))

    async def ledger(self) -> dict[str, Any]:
        ledger: dict[str, Any] = await self.control("GET", "ledger")
        return ledger

    async def devices_at_microsoft(self, tenant_id: UUID | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.ledger())["devices"]
        return [d for d in found if tenant_id is None or d["customer"] == str(tenant_id)]

    async def calls(self, operation: str) -> list[dict[str, Any]]:
        return [c for c in (await self.ledger())["calls"] if c["operation"] == operation]

    async def set_consent(self, tenant_id: UUID, *, given: bool) -> None:
        verb = "accept" if given else "remove"
        await self.control("POST", f"customers/{tenant_id}:{verb}")

    async def until_held_open(self, calls: int = 1, *, within: float = 45.0) -> list[dict[str, Any]]:
        """Waits until the simulator holds this many calls open (fault `hold`) and returns them."""
        async with asyncio.timeout(within):
            while True:
                held: list[dict[str, Any]] = await self.control("GET", "held")
                if len(held) >= calls:
                    return held
                await asyncio.sleep(0.01)

    async def let_go(self, held_id: int | None = None) -> None:
        """Releases all held calls, or one."""
        await self.control("POST", "release", {} if held_id is None else {"id": held_id})

    # --- our side -----------------------------------------------------------------------------

    async def partner(
        self, role: PartnerRole = PartnerRole.DIRECT_BILL, *, delegated: bool = True, consented: bool = True
    ) -> Partner:
        """A partner with key, connection, a customer that has consented and one that has not."""
        self.partners += 1
        name = f"Partner {self.partners}"
        seeded = await self.control("POST", "seed", {"customers": 1})
        microsoft = seeded["partner"]
        other = await self.control(
            "POST",
            "customers",
            {"partner": microsoft["tenant_id"], "relationship": "none", "name": "Undecided Ltd"},
        )
        partner_id = await identities.create_partner(self.runtime, name, role)
        key = await identities.create_key(self.runtime, ActingFor(partner_id), name="test")
        caller = await identities.authenticate(self.runtime, key.secret)
        new = NewConnection(
            name="main",
            entra_tenant_id=UUID(microsoft["tenant_id"]),
            client_id=microsoft["client_id"],
            client_secret=microsoft["client_secret"],
            refresh_token=microsoft["refresh_token"] if delegated else None,
            default_group_tag="Standard",
        )
        async with connections.create(self.runtime, caller, new) as (_, connection):
            pass
        tenant_id = UUID(seeded["customers"][0]["tenant_id"])
        customer = await self._customer(caller, connection.id, tenant_id, "Consented Ltd")
        undecided = await self._customer(caller, connection.id, UUID(other["tenant_id"]), "Undecided Ltd")
        if consented:
            await customer_readings.read_customers(self.runtime, caller, connection.id)
        return Partner(
            partner_id,
            name,
            key.secret,
            caller,
            connection.id,
            UUID(microsoft["tenant_id"]),
            customer,
            tenant_id,
            undecided,
            UUID(other["tenant_id"]),
        )

    async def _customer(self, caller: Caller, connection_id: UUID, tenant_id: UUID, name: str) -> UUID:
        new = NewCustomer(connection_id, tenant_id, name)
        async with customers.create(self.runtime, caller, new) as (_, record):
            return UUID(str(record.id))

    async def order(
        self,
        partner: Partner,
        devices: Sequence[Device],
        *,
        customer_id: UUID | None = None,
        **fields: Any,
    ) -> Acceptance:
        self.references += 1
        new = NewOrder(
            customer_id=customer_id or partner.customer_id,
            reference=f"R-{self.references}",
            devices=devices,
            body_digest=b"test",
        )
        async with acceptance.accept(self.runtime, partner, replace(new, **fields)) as (_, accepted):
            return accepted

    async def post_order(
        self,
        partner: Partner,
        devices: Sequence[Any],
        *,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> httpx.Response:
        """An order by HTTP; `devices` as JSON has them."""
        self.references += 1
        body = {"customer_id": str(partner.customer_id), "reference": f"R-{self.references}"}
        return await self.client.post(
            "/v1/orders",
            headers={**partner.headers, **(headers or {})},
            json={**body, "devices": list(devices), **fields},
        )

    async def select(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """A count or value from our database, over all partners."""
        async with self.runtime.system_transaction() as tx:
            found = await tx.session.execute(text(statement), parameters)
            return [dict(row) for row in found.mappings()]

    async def batches(self, order_id: UUID) -> list[dict[str, Any]]:
        """The order's batches as they are stored, oldest first."""
        return await self.select("SELECT * FROM batches WHERE order_id = :id ORDER BY id", id=order_id)

    @asynccontextmanager
    async def another(self, **changes: Any) -> AsyncIterator["World"]:
        """The same world for another process with other settings, which are not cross-checked."""
        settings = self.runtime.settings.model_copy(update=changes)
        runtime = await Runtime.open(settings, process="another")
        runtime.now = self.clock.now
        runtime.outbound._network._resolve = stay_at_home
        try:
            yield replace(self, runtime=runtime)
        finally:
            await runtime.close()

    @asynccontextmanager
    async def served(self, **changes: Any) -> AsyncIterator["World"]:
        """Like `another`, with the API answering from that process inside the block."""
        async with self.another(**changes) as other:
            self.app.state.runtime = other.runtime
            try:
                yield other
            finally:
                self.app.state.runtime = self.runtime

    async def count(self, table: str) -> int:
        """Rows of one of our tables, over all partners."""
        async with self.runtime.system_transaction() as tx:
            found = (await tx.session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
        return int(found)

    async def dump(self) -> str:
        """Every row of every table as PostgreSQL writes it: to look for what must not be there."""
        lines: list[str] = []
        async with self.runtime.system_transaction() as tx:
            for table in metadata.sorted_tables:
                rows = await tx.session.execute(text(f"SELECT CAST(t AS text) FROM {table.name} t"))
                lines += rows.scalars()
        return "\n".join(lines)

    async def lock_waiters(self) -> int:
        """Sessions that wait for a lock, in any database of the server."""
        [row] = await self.select("SELECT count(*) AS waiting FROM pg_locks WHERE NOT granted")
        return int(row["waiting"])

    async def until_locked_out(self, sessions: int = 1, *, within: float = 45.0) -> None:
        """Waits until this many sessions wait for a lock."""
        async with asyncio.timeout(within):
            while await self.lock_waiters() < sessions:  # noqa: ASYNC110 - the database has no event
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[AsyncEngine]:
        """The engine of the tables' owner, for what the service's roles may not do."""
        engine = make_engine(str(self.runtime.settings.database_url), poolclass=NullPool)
        try:
            yield engine
        finally:
            await engine.dispose()

    async def view(self, partner: Partner, order_id: UUID) -> orders.OrderView:
        return await orders.get(self.runtime, partner, order_id)

    async def rows(self, partner: Partner, order_id: UUID) -> list[dict[str, Any]]:
        """The order's registrations as the API shows them."""
        response = await self.client.get(
            f"/v1/orders/{order_id}/registrations?page_size=1000", headers=partner.headers
        )
        assert response.status_code == 200, response.text
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    async def work(self, *, limit: int = 500) -> int:
        """Does all due work, moving the clock to what is due next, until nothing is left."""
        for step in range(limit):
            if await batches.advance_next(self.runtime) is not None:
                continue
            due = await self._next_due()
            if due is None:
                return step
            self.clock.reach(due + timedelta(milliseconds=1))
        raise AssertionError(f"still work after {limit} steps")

    async def _next_due(self) -> datetime | None:
        async with self.runtime.system_transaction() as tx:
            row = (
                await tx.session.execute(
                    text(
                        # Due but unclaimed work waits for room in a window, so the others' times count.
                        "SELECT coalesce(min(at) FILTER (WHERE at > :now), min(at)) FROM ("
                        "SELECT greatest(b.due_at, b.lease_until, n.not_before) AS at FROM batches b "
                        "JOIN connections n ON n.id = b.connection_id "
                        "WHERE b.state IN ('queued', 'submitting', 'submitted', 'unknown') "
                        "AND n.mode = 'api') AS open"
                    ),
                    {"now": self.clock.now()},
                )
            ).scalar()
        return row if isinstance(row, datetime) else None

    async def deliver(self, *, limit: int = 200) -> int:
        """Makes every delivery attempt that is due now."""
        for made in range(limit):
            if not await deliveries.deliver_next(self.runtime):
                return made
        raise AssertionError(f"still deliveries after {limit}")

    async def watch(self, span: timedelta) -> None:
        """For this time this world's worker only sends heartbeats and sweeps."""
        pause = timedelta(seconds=self.runtime.settings.heartbeat_s)
        await sweep.beat(self.runtime)
        while span > timedelta():
            self.clock.offset += min(pause, span)
            span -= pause
            await sweep.beat(self.runtime)
            await sweep.sweep(self.runtime)

    async def clear(self) -> None:
        """Restores the beginning: deletes rows, resets the simulator and the clock."""
        async with self.runtime.system_transaction() as tx:
            await tx.session.execute(text(EMPTY_ALL_TABLES))
        await self.control("POST", "reset")
        await self.control("POST", "presets/instant")
        self.runtime.token_cache.tokens.clear()
        self.runtime.presence = Presence(self.runtime.presence.worker_id, self.runtime.settings.silence)
        self.clock.offset = timedelta()


def settings_for(servers: Servers, database_url: str, simulator_url: str, **changes: Any) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=servers.redis_url,
        secret_keys="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        partner_center_url=simulator_url,
        login_url=simulator_url,
        webhook_allow_http=True,
        webhook_allowed_networks="127.0.0.0/8",
        log_level="WARNING",
        log_format="text",
        wrong_keys_per_minute=0,
        **changes,
    )


async def stay_at_home(host: str, port: int) -> Sequence[str]:
    """A resolver for webhooks that finds no addresses, so that no query leaves the machine."""
    numeric = socket.AI_NUMERICHOST
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)
    return [str(entry[4][0]) for entry in found]


async def open_world(settings: Settings) -> World:
    clock = Clock()
    runtime = await Runtime.open(settings, process="test")
    runtime.now = clock.now
    runtime.outbound._network._resolve = stay_at_home
    app = build(settings)
    app.state.runtime = runtime
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://registrar"
    )
    simulator = httpx.AsyncClient(base_url=settings.partner_center_url, timeout=30)
    return World(runtime, clock, simulator, app, client)


def tuples(count: int, prefix: str = "SYN", **fields: Any) -> list[Device]:
    return [
        Device(
            serial_number=f"{prefix}{number:05d}",
            manufacturer="Contoso",
            model="Contoso Book 14",
            line_ref=f"line {number}",
            **fields,
        )
        for number in range(1, count + 1)
    ]
