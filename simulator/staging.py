"""Control routes that set the scene: partners, customers, consent, OEM data, devices, chosen tokens."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.customers import Customer, Partner
from simulator.devices import Device, read_row
from simulator.replies import reply
from simulator.state import State
from simulator.tokens import PARTNER_CENTER, Claims
from simulator.webhooks import announce_acceptance
from simulator.wire import draw_guid

Guid = Annotated[
    str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Grants(_Body):
    """What the partner's app may do; `mfa` is whether its user signed in with MFA."""

    app_only: bool = True
    delegated: bool = True
    mfa: bool = True


class NewPartner(_Body):
    """A partner. Missing values are drawn at random. A known tenant gets a new app."""

    tenant_id: Guid | None = None
    name: str = "Simulated Partner"
    client_id: Guid | None = None
    client_secret: str | None = None
    refresh_token: str | None = None
    secret_expired: bool = False
    grants: Grants = Grants()


class NewCustomer(_Body):
    """A customer and its relationship to one partner (the only one when left out)."""

    tenant_id: Guid | None = None
    name: str | None = None
    domain: str | None = None
    relationship: Literal["reseller", "advisor", "none"] = "none"
    partner: Guid | None = None


class SeedScene(_Body):
    """One partner and a number of customers."""

    partner: NewPartner = NewPartner()
    customers: Annotated[int, Field(ge=0, le=100_000)] = 1
    relationship: Literal["reseller", "advisor", "none"] = "reseller"


class Consent(_Body):
    """Whose relationship changes."""

    partner: Guid | None = None


class NewDevice(_Body):
    """A device that a customer already holds, or that nobody holds if `customer` is left out."""

    customer: Guid | None = None
    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    product_key: str = ""
    hardware_hash: str = ""


class OemRecord(_Body):
    """A manufacturer's data about one device."""

    serial: str = ""
    manufacturer: str = ""
    model: str = ""
    product_key: str = ""


class NewToken(_Body):
    """An access token with chosen claims; a negative lifetime gives an expired one."""

    partner: Guid | None = None
    audience: str = PARTNER_CENTER
    delegated: bool = True
    mfa: bool = True
    lifetime_s: int = 3599


_DEVICES: TypeAdapter[list[NewDevice]] = TypeAdapter(list[NewDevice])
_RECORDS: TypeAdapter[list[OemRecord]] = TypeAdapter(list[OemRecord])


class Staging:
    """The routes over one state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _guid(self) -> str:
        return draw_guid(self._state.chance.getrandbits)

    def _add_partner(self, wanted: NewPartner) -> dict[str, object]:
        state, tenant = self._state, wanted.tenant_id or self._guid()
        partner = Partner(
            tenant,
            wanted.name,
            wanted.client_id or self._guid(),
            wanted.client_secret or f"secret-{state.chance.getrandbits(96):024x}",
            **wanted.grants.model_dump(),
            secret_expired=wanted.secret_expired,
        )
        state.directory.partners[tenant] = partner
        expires = state.clock.now() + state.switches.refresh_token_lifetime_s
        refresh = wanted.refresh_token
        if refresh is None:
            refresh = state.tokens.issue_refresh(tenant, partner.client_id, expires)
        else:
            state.tokens.adopt_refresh(refresh, tenant, partner.client_id, expires)
        return {
            "tenant_id": tenant,
            "name": partner.name,
            "client_id": partner.client_id,
            "client_secret": partner.client_secret,
            "refresh_token": refresh,
            "grants": wanted.grants.model_dump(),
        }

    def _add_customer(self, wanted: NewCustomer, number: int) -> Customer:
        directory = self._state.directory
        tenant = wanted.tenant_id or self._guid()
        customer = directory.customers.get(tenant)
        if customer is None:
            customer = Customer(tenant, f"Customer {number}", f"customer{number}.onmicrosoft.com")
            directory.customers[tenant] = customer
        customer.name, customer.domain = wanted.name or customer.name, wanted.domain or customer.domain
        partner = wanted.partner or directory.only_partner()
        if partner is not None:
            customer.relationships[partner] = wanted.relationship
        return customer

    async def add_partner(self, request: Request) -> Response:
        return reply(self._add_partner(NewPartner.model_validate_json(await request.body() or b"{}")), 201)

    async def revoke_refresh(self, request: Request) -> Response:
        return reply({"revoked": self._state.tokens.revoke_refresh(request.path_params["tenant"].lower())})

    async def expire_access(self, request: Request) -> Response:
        return reply({"expired": self._state.tokens.expire_access(request.path_params["tenant"].lower())})

    async def add_customer(self, request: Request) -> Response:
        wanted = NewCustomer.model_validate_json(await request.body() or b"{}")
        return reply(self._add_customer(wanted, len(self._state.directory.customers) + 1).view(), 201)

    async def list_customers(self, request: Request) -> Response:
        return reply([customer.view() for customer in self._state.directory.customers.values()])

    async def accept(self, request: Request) -> Response:
        """Gives consent, and notifies a registered webhook."""
        customer, partner = await self._parties(request)
        if customer is None or partner is None:
            return reply({"error": "no such customer, or several partners and none named"}, 404)
        customer.relationships[partner] = "reseller"
        sent = announce_acceptance(self._state, partner, customer.tenant_id)
        return reply(customer.view() | {"notification": sent.id if sent else None})

    async def remove(self, request: Request) -> Response:
        """Withdraws consent, without a notification: none is documented."""
        customer, partner = await self._parties(request)
        if customer is None or partner is None:
            return reply({"error": "no such customer, or several partners and none named"}, 404)
        customer.relationships[partner] = "none"
        return reply(customer.view())

    async def _parties(self, request: Request) -> tuple[Customer | None, str | None]:
        partner = Consent.model_validate_json(await request.body() or b"{}").partner
        directory = self._state.directory
        customer = directory.customers.get(request.path_params["tenant"].lower())
        return customer, partner or directory.only_partner()

    async def seed(self, request: Request) -> Response:
        wanted = SeedScene.model_validate_json(await request.body() or b"{}")
        partner = self._add_partner(wanted.partner)
        first = len(self._state.directory.customers) + 1
        tenant = str(partner["tenant_id"])
        customers = [
            self._add_customer(
                NewCustomer(relationship=wanted.relationship, partner=tenant), first + n
            ).view()
            for n in range(wanted.customers)
        ]
        return reply({"partner": partner, "customers": customers}, 201)

    async def add_devices(self, request: Request) -> Response:
        """Devices already held by a customer, no matter who registered them."""
        state = self._state
        placed: list[Device] = []
        for number, wanted in enumerate(_DEVICES.validate_python(orjson.loads(await request.body()))):
            device = self._find(wanted)
            if device is None:
                return reply(
                    {"error": "cannot be identified", "position": number, "placed": len(placed)}, 400
                )
            device.customer = wanted.customer or ""
            device.partner = device.batch = ""
            device.identified_by, device.uploaded = "staged", state.clock.now()
            placed.append(device)
        return reply([device.view() for device in placed], 201)

    def _find(self, wanted: NewDevice) -> Device | None:
        """The device, regardless of OEM data: setting the scene is not an upload."""
        row = read_row(
            {
                "hardwareHash": wanted.hardware_hash,
                "serialNumber": wanted.serial,
                "oemManufacturerName": wanted.manufacturer,
                "modelName": wanted.model,
                "productKey": "" if wanted.serial else wanted.product_key,
            },
            self._state.switches,
        )
        if row.error:
            return None
        row.product_key = row.product_key or wanted.product_key
        return self._state.registry.match_or_add(row, self._state.switches)

    async def add_oem_records(self, request: Request) -> Response:
        records = _RECORDS.validate_python(orjson.loads(await request.body()))
        for record in records:
            self._state.registry.add_oem_record(
                record.manufacturer, record.model, record.serial, record.product_key
            )
        return reply({"records": len(records)}, 201)

    async def add_token(self, request: Request) -> Response:
        state = self._state
        wanted = NewToken.model_validate_json(await request.body() or b"{}")
        tenant = wanted.partner or state.directory.only_partner()
        partner = state.directory.partners.get(tenant or "")
        if partner is None:
            return reply({"error": "no such partner, or several and none named"}, 404)
        now = state.clock.now()
        claims = Claims(
            partner.tenant_id,
            partner.client_id,
            wanted.audience.rstrip("/"),
            wanted.delegated,
            wanted.mfa,
            now,
            now + wanted.lifetime_s,
        )
        return reply({"access_token": state.tokens.issue_access(claims)}, 201)


def staging_routes(state: State) -> list[Route]:
    staging = Staging(state)
    return [
        Route("/control/partners", staging.add_partner, methods=["POST"]),
        Route("/control/partners/{tenant}:revoke", staging.revoke_refresh, methods=["POST"]),
        Route("/control/partners/{tenant}:expire", staging.expire_access, methods=["POST"]),
        Route("/control/customers", staging.add_customer, methods=["POST"]),
        Route("/control/customers", staging.list_customers, methods=["GET"]),
        Route("/control/customers/{tenant}:accept", staging.accept, methods=["POST"]),
        Route("/control/customers/{tenant}:remove", staging.remove, methods=["POST"]),
        Route("/control/seed", staging.seed, methods=["POST"]),
        Route("/control/devices", staging.add_devices, methods=["POST"]),
        Route("/control/oem", staging.add_oem_records, methods=["POST"]),
        Route("/control/tokens", staging.add_token, methods=["POST"]),
    ]
