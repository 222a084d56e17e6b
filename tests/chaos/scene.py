"""The scene of a chaos run: partners, customers, their devices, and what Microsoft has beforehand.

Everything follows from the seed. Each device is ordered once, so that its outcome is known before the run
begins: most are new, some are held by their customer or another one, some rows are wrong.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx

from app.domain.actor import ActingFor
from app.domain.identity import IdentityKind
from app.kernel.settings import Settings
from app.local.receiver import Receiver
from app.local.synthetic import SyntheticDevice, devices
from app.runtime import Runtime
from app.services.access import identities
from app.services.access.identities import PartnerRole
from tests.chaos.verdict import Fate, Sent
from tests.support.upstream import connection_to

PARTNERS = 4
TAGS = ("Sales", "Kiosk", "Warehouse", "Field Service")
_FATES = ((Fate.HELD_HERE, 0.01), (Fate.HELD_ELSEWHERE, 0.01), (Fate.INVALID, 0.005))
PREHELD_PAGE = 500
CONSENT_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    reference: str
    customer_id: str
    body: bytes
    """The exact bytes of every attempt."""


@dataclass
class Account:
    """One partner: its key, its receiver of webhooks, and the orders it will send."""

    name: str
    key: str
    receiver: Receiver
    customers: list[tuple[str, str]] = field(default_factory=list)
    """Id and Entra tenant."""
    orders: list[Order] = field(default_factory=list)


@dataclass
class Scene:
    accounts: list[Account]
    sent: list[Sent]


def open_scene(
    settings: Settings,
    api_url: str,
    simulator: httpx.Client,
    receivers: Sequence[Receiver],
    *,
    seed: int,
    device_count: int,
    customer_count: int,
) -> Scene:
    """Makes the accounts at both sides, and the orders. Raises httpx.HTTPError."""
    names = [f"Reseller {number}" for number in range(1, len(receivers) + 1)]
    keys = asyncio.run(_make_partners(settings, names))
    accounts = []
    for index, (name, key, receiver) in enumerate(zip(names, keys, receivers, strict=True)):
        account = Account(name, key, receiver)
        share = len(range(index, customer_count, len(receivers)))
        with httpx.Client(
            base_url=api_url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        ) as api:
            _open_account(account, api, simulator, share)
        accounts.append(account)
    stranger = _said(simulator.post("/control/customers", json={"name": "Somebody Else"}))["tenant_id"]
    writer = _Writer(random.Random(seed), islice(devices(device_count, seed % 1000), device_count))
    customers = [(account, *customer) for account in accounts for customer in account.customers]
    for number, (account, customer_id, tenant) in enumerate(customers):
        share = len(range(number, device_count, len(customers)))
        account.orders += writer.orders(f"C{number:02d}", customer_id, tenant, share, stranger)
    for account in accounts:
        writer.chance.shuffle(account.orders)
    for at in range(0, len(writer.preheld), PREHELD_PAGE):
        _said(simulator.post("/control/devices", json=writer.preheld[at : at + PREHELD_PAGE]))
    return Scene(accounts, writer.sent)


async def _make_partners(settings: Settings, names: Sequence[str]) -> list[str]:
    runtime = await Runtime.open(settings, process="chaos")
    try:
        keys = []
        for name in names:
            partner_id = await identities.create_partner(runtime, name, PartnerRole.DIRECT_BILL)
            keys.append((await identities.create_key(runtime, ActingFor(partner_id), name="chaos")).secret)
        return keys
    finally:
        await runtime.close()


def _open_account(account: Account, api: httpx.Client, simulator: httpx.Client, customers: int) -> None:
    seeded = _said(simulator.post("/control/seed", json={"customers": customers}))
    microsoft = seeded["partner"]
    connection = _said(
        api.post(
            "/v1/connections",
            json=connection_to(microsoft, "main", TAGS[0]),
        )
    )
    endpoint = _said(api.post("/v1/webhook-endpoints", json={"url": account.receiver.url}))
    account.receiver.secret = endpoint["secret"]
    for number, customer in enumerate(seeded["customers"]):
        made = _said(
            api.post(
                "/v1/customers",
                json={
                    "connection_id": connection["id"],
                    "entra_tenant_id": customer["tenant_id"],
                    "name": f"Customer {number}",
                },
            )
        )
        account.customers.append((made["id"], customer["tenant_id"]))
    for customer_id, _ in account.customers:
        _await_consent(api, customer_id)


def _await_consent(api: httpx.Client, customer_id: str) -> None:
    """Asks repeatedly, because a worker may have read the list earlier and not applied it yet."""
    deadline = time.monotonic() + CONSENT_PATIENCE
    while True:
        consent = _said(api.post(f"/v1/customers/{customer_id}/consent:recheck"))
        if consent["state"] == "granted":
            return
        assert time.monotonic() < deadline, consent


def _said(response: httpx.Response) -> Any:
    response.raise_for_status()
    return response.json()


@dataclass
class _Writer:
    """Writes orders and their expected outcomes."""

    chance: random.Random
    devices: Iterator[SyntheticDevice]
    sent: list[Sent] = field(default_factory=list)
    preheld: list[dict[str, Any]] = field(default_factory=list)

    def orders(self, name: str, customer_id: str, tenant: str, count: int, stranger: str) -> Iterator[Order]:
        """Two or three orders for this many devices together, under one to three group tags."""
        tags = self.chance.sample(TAGS, self.chance.randint(1, 3))
        parts = self.chance.randint(2, 3)
        for part in range(parts):
            reference = f"{name}-{part}"
            rows = [
                self._row(f"{reference}-{number}", reference, tenant, self.chance.choice(tags), stranger)
                for number in range(len(range(part, count, parts)))
            ]
            if rows:
                body = {"customer_id": customer_id, "reference": reference, "devices": rows}
                yield Order(reference, customer_id, json.dumps(body).encode())

    def _row(self, line_ref: str, reference: str, tenant: str, tag: str, stranger: str) -> dict[str, str]:
        device = next(self.devices)
        fate, fields = self._fate(), device.fields()
        if fate is Fate.INVALID:
            fields = {"serial_number": device.serial_number}  # neither maker and model nor a hash
        elif fate is not Fate.FRESH:
            self.preheld.append(
                {**_as_staged(device), "customer": tenant if fate is Fate.HELD_HERE else stranger}
            )
        key = fields.get("serial_number") or fields["product_key"]
        self.sent.append(Sent(line_ref, reference, tenant, tag, key, fate))
        return {**fields, "group_tag": tag, "line_ref": line_ref}

    def _fate(self) -> Fate:
        drawn = self.chance.random()
        for fate, share in _FATES:
            if drawn < share:
                return fate
            drawn -= share
        return Fate.FRESH


def _as_staged(device: SyntheticDevice) -> dict[str, str]:
    match device.kind:
        case IdentityKind.TUPLE:
            return {
                "serial": device.serial_number,
                "manufacturer": device.manufacturer,
                "model": device.model,
            }
        case IdentityKind.PRODUCT_KEY:
            return {"product_key": device.product_key}
        case IdentityKind.HARDWARE_HASH:
            return {"hardware_hash": device.fields()["hardware_hash"]}
