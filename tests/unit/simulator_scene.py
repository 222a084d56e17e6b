"""One partner and its customers in a fresh simulator, driven over the wire as any caller would."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import httpx

from simulator.main import Simulator, build

PARTNER_CENTER = "https://api.partnercenter.microsoft.com"


class Scene:
    """A client on the simulator, with the credentials the seed gave."""

    def __init__(self, client: httpx.AsyncClient, seeded: dict[str, Any]) -> None:
        self.client = client
        self.partner: dict[str, Any] = seeded["partner"]
        self.customers: list[str] = [customer["tenant_id"] for customer in seeded["customers"]]
        self.customer = self.customers[0]
        self.token = ""

    @property
    def base(self) -> str:
        return f"/v1/customers/{self.customer}"

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        response = await self.client.request(method, f"/control/{path}", json=body)
        assert response.status_code < 300, response.text
        return response.json() if response.content else None

    async def switch(self, **switches: Any) -> None:
        await self.control("PATCH", "switches", switches)

    async def arm(self, *rules: dict[str, Any]) -> None:
        await self.control("POST", "faults", list(rules))

    async def redeem(self, **changes: str) -> httpx.Response:
        form = {
            "grant_type": "refresh_token",
            "client_id": self.partner["client_id"],
            "client_secret": self.partner["client_secret"],
            "refresh_token": self.partner["refresh_token"],
            "scope": f"{PARTNER_CENTER}/user_impersonation offline_access",
        } | changes
        return await self.client.post(f"/{self.partner['tenant_id']}/oauth2/v2.0/token", data=form)

    async def app_only_token(self) -> str:
        form = {"grant_type": "client_credentials", "scope": f"{PARTNER_CENTER}/.default"}
        response = await self.redeem(**form)
        return str(response.json()["access_token"])

    async def sign_in(self) -> None:
        self.token = (await self.redeem()).json()["access_token"]

    def headers(self, **extra: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in extra.items()}
        return {"Authorization": f"Bearer {self.token}"} | named

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=self.headers(**headers))

    async def create(self, devices: list[Any], tag: str = "Sales", **headers: str) -> httpx.Response:
        body = {"BatchId": tag, "Devices": devices}
        return await self.client.post(
            f"{self.base}/deviceBatches", json=body, headers=self.headers(**headers)
        )

    async def append(self, devices: Any, tag: str = "Sales", **headers: str) -> httpx.Response:
        path = f"{self.base}/deviceBatches/{tag}/devices"
        return await self.client.post(path, json=devices, headers=self.headers(**headers))

    async def outcome(self, accepted: httpx.Response) -> dict[str, Any]:
        """The finished status of an accepted upload."""
        assert accepted.status_code == 202, accepted.text
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline:
            body: dict[str, Any] = (await self.get("/v1" + accepted.headers["location"])).json()
            if body["status"].startswith("finished"):
                return body
            await asyncio.sleep(0.01)
        raise AssertionError("the job did not finish")

    async def errors(self, accepted: httpx.Response) -> list[str]:
        """Per device: the error code, or its name if it has no code, or empty."""
        devices = (await self.outcome(accepted))["devicesStatus"]
        return [device.get("errorCode") or device.get("errorDescription", "") for device in devices]

    async def held(self, number: int = 1) -> list[dict[str, Any]]:
        """Waits until this many calls are held open."""
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline:
            held: list[dict[str, Any]] = await self.control("GET", "held")
            if len(held) >= number:
                return held
            await asyncio.sleep(0.01)
        raise AssertionError("no call is held")

    async def calls(self, operation: str) -> list[dict[str, Any]]:
        ledger = await self.control("GET", f"ledger?devices=false&operation={operation}")
        return list(ledger["calls"])


async def open_scene(client: httpx.AsyncClient, customers: int = 2) -> Scene:
    await client.post("/control/presets/instant")
    seeded = (await client.post("/control/seed", json={"customers": customers})).json()
    scene = Scene(client, seeded)
    await scene.sign_in()
    return scene


def client_on(program: Simulator) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(program), base_url="http://simulator")


async def fresh_scene(customers: int = 2, program: Simulator | None = None) -> Scene:
    return await open_scene(client_on(program or build()), customers)


def tuple_of(serial: str, manufacturer: str = "Contoso", model: str = "Sample 14") -> dict[str, str]:
    return {"serialNumber": serial, "oemManufacturerName": manufacturer, "modelName": model}


def new_id() -> str:
    return str(uuid.uuid4())
