"""The scene of contract tests: a platform's abilities, a fresh simulator, and a connection with its tokens.

Calls use the real HTTP client and tokens the real token service, all in this process.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx

from app.domain import hardware_hash
from app.domain.batch import match_answers
from app.domain.identity import IdentityKind, OutgoingDevice
from app.domain.registration import RegistrationState, interpret
from app.kernel.settings import Settings
from app.microsoft.http import Microsoft
from app.microsoft.tokens import Tokens
from app.platforms.base import (
    Accepted,
    CallIds,
    Checks,
    ConsentEvidence,
    GroupTags,
    Lists,
    Platform,
    Progress,
    Registers,
    Submission,
    TokenFor,
    TokenKind,
)
from simulator.samples import hardware_hash as sample_hash
from tests.support.gates import OpenGate

T, K, H = IdentityKind.TUPLE, IdentityKind.PRODUCT_KEY, IdentityKind.HARDWARE_HASH


class LoginBridge(httpx.BaseTransport):
    """Passes the token service's blocking calls, which run in threads, to the simulator on the event loop."""

    def __init__(self, program: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = httpx.ASGITransport(program)
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._carry(request, request.read()), self._loop).result(10)

    async def _carry(self, request: httpx.Request, content: bytes) -> httpx.Response:
        carried = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        response = await self._transport.handle_async_request(carried)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


class Connection:
    """A connection's tokens as the services keep them: one of each kind, and the newest refresh token."""

    def __init__(self, microsoft: Microsoft, partner: dict[str, Any]) -> None:
        self.entra_tenant_id = UUID(partner["tenant_id"])
        self.client_id: str = partner["client_id"]
        self.client_secret: str = partner["client_secret"]
        self.refresh_token: str | None = partner["refresh_token"]
        self.gate = OpenGate()
        self._microsoft = microsoft
        self._kept: dict[TokenFor, str] = {}

    @property
    def has_delegated(self) -> bool:
        return self.refresh_token is not None

    async def token(self, wanted: TokenFor) -> str:
        if wanted not in self._kept:
            tokens = await self._fetch(wanted)
            assert tokens.expires_in > timedelta(minutes=5)
            self.refresh_token = tokens.refresh_token or self.refresh_token
            self._kept[wanted] = tokens.access_token
        return self._kept[wanted]

    async def _fetch(self, wanted: TokenFor) -> Tokens:
        service = self._microsoft.tokens
        app = {"client_id": self.client_id, "client_secret": self.client_secret}
        if wanted.kind is TokenKind.APP:
            return await service.for_app(tenant_id=wanted.tenant_id, scope=wanted.scope, **app)
        assert self.refresh_token is not None
        return await service.redeem(
            tenant_id=wanted.tenant_id, scope=wanted.scope, refresh_token=self.refresh_token, **app
        )

    def forget_token(self, wanted: TokenFor) -> None:
        self._kept.pop(wanted, None)

    def forget_tokens(self) -> None:
        self._kept.clear()


Ability = TypeVar("Ability")


def given(ability: Ability | None) -> Ability:
    assert ability is not None
    return ability


class Scene:
    """A platform's abilities on a fresh simulator, with one partner and two customers who have consented."""

    def __init__(self, platform: Platform, program: Any, loop: asyncio.AbstractEventLoop) -> None:
        settings = Settings(partner_center_url="http://simulator", login_url="http://simulator")
        self._transport = httpx.ASGITransport(program)
        self.client = httpx.AsyncClient(transport=self._transport, base_url="http://simulator")
        self.microsoft = Microsoft.open(
            settings, transport=self._transport, login_transport=LoginBridge(program, loop)
        )
        assert platform.open is not None
        self.abilities = platform.open(settings, self.microsoft)

    @property
    def registers(self) -> Registers:
        return given(self.abilities.registers)

    @property
    def lists(self) -> Lists:
        return given(self.abilities.lists)

    @property
    def consent(self) -> ConsentEvidence:
        return given(self.abilities.consent)

    @property
    def tags(self) -> GroupTags:
        return given(self.abilities.group_tags)

    @property
    def checks(self) -> Checks:
        return given(self.abilities.checks)

    async def begin(self) -> None:
        await self.control("presets/instant")
        seeded = await self.control("seed", {"customers": 2})
        self.partner: dict[str, Any] = seeded["partner"]
        self.customer, self.other = (UUID(customer["tenant_id"]) for customer in seeded["customers"])
        self.connection = Connection(self.microsoft, self.partner)

    async def control(self, path: str, body: Any = None, method: str = "POST") -> Any:
        response = await self.client.request(method, f"/control/{path}", json={} if body is None else body)
        assert response.status_code < 300, response.text
        return response.json()

    async def switch(self, **switches: Any) -> None:
        await self.control("switches", switches, "PATCH")

    async def arm(self, *rules: dict[str, Any]) -> None:
        await self.control("faults", list(rules))

    async def calls(self, operation: str) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/control/ledger?devices=false&operation={operation}")
        calls: list[dict[str, Any]] = answer.json()["calls"]
        return calls

    async def submit(
        self,
        *devices: OutgoingDevice,
        create: bool,
        tag: str = "Sales",
        customer: UUID | None = None,
        ids: CallIds | None = None,
    ) -> str | None:
        submission = Submission(customer or self.customer, tag, create, devices)
        accepted = await self.registers.submit(self.connection, ids or new_ids(), submission)
        return accepted.tracking_id

    async def outcome(self, tracking_id: str | None, customer: UUID | None = None) -> Progress:
        """The finished job; waits for it up to 10 s."""
        assert tracking_id is not None
        async with asyncio.timeout(45):
            while True:
                progress = await self.registers.poll(
                    self.connection, customer or self.customer, Accepted(tracking_id)
                )
                if progress.finished:
                    return progress
                assert all(not row.done for row in progress.rows)
                await asyncio.sleep(0.02)

    async def states(
        self, tracking_id: str | None, devices: Sequence[OutgoingDevice], customer: UUID | None = None
    ) -> list[RegistrationState | None]:
        """The states that the services would give the devices for these answers, in the order of sending."""
        progress = await self.outcome(tracking_id, customer)
        found = []
        for match in match_answers([device.as_sent() for device in devices], progress.rows):
            means = self.registers.meaning
            meaning = interpret(match.answer, means, was_uncertain=False) if match.answer else None
            found.append(meaning.state if meaning else None)
        return found

    async def serials(self, tag: str = "Sales", max_pages: int = 50) -> list[str | None]:
        listed = self.lists.listed(self.connection, self.customer, tag, max_pages=max_pages)
        return [device.serial_number async for device in listed]

    async def close(self) -> None:
        await self.client.aclose()
        await self.microsoft.close()


def new_ids() -> CallIds:
    return CallIds(uuid4(), uuid4())


def device_of(kind: IdentityKind, number: int = 1) -> OutgoingDevice:
    serial = f"SN-{number:05d}"
    match kind:
        case IdentityKind.TUPLE:
            return OutgoingDevice(serial_number=serial, manufacturer="Contoso", model="Sample 14")
        case IdentityKind.PRODUCT_KEY:
            return OutgoingDevice(product_key=f"{number:013d}")
        case IdentityKind.HARDWARE_HASH:
            return OutgoingDevice(hash_data=hardware_hash.decode(sample_hash(serial)).data)


def tuples(count: int, first: int = 1) -> list[OutgoingDevice]:
    return [device_of(T, number) for number in range(first, first + count)]
