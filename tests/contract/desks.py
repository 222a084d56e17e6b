"""Desks: for each platform with an API, a test server that can lose answers, throttle and count.

The contract tests check every ability against its platform's desk. A new platform needs an entry in `DESKS`.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from app.domain.identity import OutgoingDevice
from app.kernel.settings import Settings
from app.microsoft.http import Microsoft
from app.platforms.base import Abilities, Accepted, Access, CallIds, Registers, Submission
from app.platforms.partner_center import PLATFORM as PARTNER_CENTER
from simulator.main import build
from tests.contract.depot_desk import Desk as DepotDesk
from tests.contract.depot_desk import Fault, open_desk
from tests.contract.platforms.depot import PLATFORM as DEPOT
from tests.contract.platforms.depot import Depot
from tests.contract.scene import Connection, LoginBridge, Scene, given, new_ids

PACKAGE = "tests.contract.platforms"
"""The package of platforms that only tests have."""


class Desk(ABC):
    """What contract tests need from a platform and its test server."""

    platform: str
    abilities: Abilities
    access: Access
    customer: UUID
    """Has consented, as has `other`."""
    other: UUID
    group_tag = "Sales"

    @property
    def registers(self) -> Registers:
        return given(self.abilities.registers)

    async def submit(
        self, devices: Sequence[OutgoingDevice], ids: CallIds | None = None, *, customer: UUID | None = None
    ) -> Accepted:
        """Makes one registration call; creates the tag first if the platform has group tags."""
        create = self.abilities.group_tags is not None
        submission = Submission(customer or self.customer, self.group_tag, create, devices)
        return await self.registers.submit(self.access, ids or new_ids(), submission)

    @abstractmethod
    async def registered(self) -> Counter[str]:
        """How often each device was registered for `customer`, according to the test server."""

    @abstractmethod
    async def lose_next_answer(self, *, arrives: bool) -> None:
        """Loses the answer to the next registration call. `arrives`: the devices are registered before."""

    @abstractmethod
    async def throttle_next(self, *, seconds: int) -> None: ...


class _OnSimulator(Desk):
    platform = "partner_center"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.abilities, self.access = scene.abilities, scene.connection
        self.customer, self.other = scene.customer, scene.other

    async def registered(self) -> Counter[str]:
        ledger = await self._scene.control("ledger", method="GET")
        return Counter(
            device["id"] for device in ledger["devices"] if device["customer"] == str(self.customer)
        )

    async def lose_next_answer(self, *, arrives: bool) -> None:
        phase = "after" if arrives else "before"
        await self._scene.arm({"operation": "create", "kind": "drop", "phase": phase})

    async def throttle_next(self, *, seconds: int) -> None:
        await self._scene.arm({"operation": "create", "kind": "throttle", "retry_after": seconds})


class _OnDepot(Desk):
    platform = "depot"

    def __init__(self, desk: DepotDesk, abilities: Abilities, access: Access) -> None:
        self._desk = desk
        self.abilities, self.access = abilities, access
        self.customer, self.other = UUID(int=1), UUID(int=2)

    async def registered(self) -> Counter[str]:
        mine = {serial for serial, owner in self._desk.owners.items() if owner == str(self.customer)}
        return Counter({serial: n for serial, n in self._desk.registered.items() if serial in mine})

    async def lose_next_answer(self, *, arrives: bool) -> None:
        self._desk.faults.append(Fault(after=arrives, status=503))

    async def throttle_next(self, *, seconds: int) -> None:
        self._desk.faults.append(Fault(after=False, status=429, headers=f"Retry-After: {seconds}\r\n"))


@asynccontextmanager
async def _simulator() -> AsyncIterator[Desk]:
    scene = Scene(PARTNER_CENTER, build(), asyncio.get_running_loop())
    try:
        await scene.begin()
        yield _OnSimulator(scene)
    finally:
        await scene.close()


@asynccontextmanager
async def _depot() -> AsyncIterator[Desk]:
    """Depot with its own server on loopback. The simulator's Entra knows the scene's partner."""
    program, loop = build(), asyncio.get_running_loop()
    scene = Scene(PARTNER_CENTER, program, loop)
    microsoft = Microsoft.open(
        Settings(login_url="http://simulator"), login_transport=LoginBridge(program, loop)
    )
    try:
        await scene.begin()
        async with open_desk() as desk:
            abilities = Abilities(registers=Depot(desk.url, microsoft))
            yield _OnDepot(desk, abilities, Connection(microsoft, scene.partner))
    finally:
        await microsoft.close()
        await scene.close()


DESKS: Mapping[str, Callable[[], AbstractAsyncContextManager[Desk]]] = {
    PARTNER_CENTER.name: _simulator,
    DEPOT.name: _depot,
}
