"""Partners with a portal connection and their orders, for tests of portal mode."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx

from app.domain.actor import ActingFor
from app.domain.ids import PartnerId
from app.services.access import identities
from app.services.access.identities import Caller, PartnerRole
from simulator.samples import hardware_hash
from tests.support.world import KeyHolder, World

TUPLE = {"serial_number": "SYN00001", "manufacturer": "Contoso", "model": "Contoso Book 14"}


@dataclass
class PortalPartner(KeyHolder):
    world: World
    id: PartnerId
    caller: Caller
    key: str
    connection_id: UUID
    customer_id: UUID
    references: int = 0

    async def call(self, method: str, path: str, json: Any = None, **more: Any) -> httpx.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return await self.world.client.request(method, f"/v1{path}", headers=headers, json=json, **more)

    async def ok(self, method: str, path: str, json: Any = None, **more: Any) -> Any:
        response = await self.call(method, path, json, **more)
        assert response.status_code < 300, response.text
        return response.json()

    async def consent(self, state: str = "granted") -> Any:
        body = {"state": state, "note": "Seen in the customers list of the portal."}
        return await self.ok("POST", f"/customers/{self.customer_id}/consent:record", body)

    async def order(self, devices: list[dict[str, Any]], **fields: Any) -> Any:
        self.references += 1
        body = {"customer_id": str(self.customer_id), "reference": f"P-{self.references}", "devices": devices}
        return await self.ok("POST", "/orders", {**body, **fields})

    async def view(self, order: Any) -> Any:
        return await self.ok("GET", f"/orders/{order['id']}")

    async def files(self, order: Any) -> Any:
        return (await self.ok("GET", f"/orders/{order['id']}/portal-files"))["items"]

    async def rows(self, order: Any, **filters: Any) -> Any:
        path = f"/orders/{order['id']}/registrations"
        return (await self.ok("GET", path, params={"page_size": 1000, **filters}))["items"]

    async def record(self, batch_id: str, **body: Any) -> httpx.Response:
        return await self.call("POST", f"/batches/{batch_id}:record-outcome", body)

    async def result(self, batch_id: str, text: str | bytes, kind: str = "text/csv") -> httpx.Response:
        content = text if isinstance(text, bytes) else text.encode()
        path = f"/batches/{batch_id}/portal-result"
        return await self.call("POST", path, content=content, headers={"Content-Type": kind})


async def portal_partner(
    world: World,
    platform: str = "partner_center",
    role: PartnerRole = PartnerRole.INDIRECT_RESELLER,
    *,
    consented: bool = True,
) -> PortalPartner:
    """A partner with a portal connection without credentials, and one customer."""
    world.partners += 1
    partner_id = await identities.create_partner(world.runtime, f"Portal partner {world.partners}", role)
    key = await identities.create_key(world.runtime, ActingFor(partner_id), name="test")
    caller = await identities.authenticate(world.runtime, key.secret)
    partner = PortalPartner(world, partner_id, caller, key.secret, UUID(int=0), UUID(int=0))
    connection = await partner.ok(
        "POST",
        "/connections",
        {
            "name": "portal",
            "platform": platform,
            "entra_tenant_id": str(uuid4()),
            "default_group_tag": "Standard",
        },
    )
    partner.connection_id = UUID(connection["id"])
    customer = await partner.ok(
        "POST",
        "/customers",
        {"connection_id": connection["id"], "entra_tenant_id": str(uuid4()), "name": "Contoso"},
    )
    partner.customer_id = UUID(customer["id"])
    if consented:
        await partner.consent()
    return partner


def tuple_of(number: int, **more: Any) -> dict[str, Any]:
    return {**TUPLE, "serial_number": f"SYN{number:05d}", "line_ref": f"line {number}", **more}


def hash_of(number: int, **more: Any) -> dict[str, Any]:
    return {"hardware_hash": hardware_hash(f"SYN{number:05d}"), "line_ref": f"line {number}", **more}
