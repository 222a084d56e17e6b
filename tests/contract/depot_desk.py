"""The server of the test platform Depot: on loopback, with a ledger, and with faults that tests can order."""

import asyncio
import base64
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

PENDING_LOOKS = 2
"""How many status calls answer `pending` for every other device."""


@dataclass
class Fault:
    """What happens to one registration call, before or after the server has registered the devices."""

    after: bool
    status: int | None = None
    """None: no answer, and the connection stays open until `desk.end` is set."""
    headers: str = ""


@dataclass
class Enrolment:
    tenant: str
    serial: str
    fault: str | None
    looks: int
    """Status calls that still answer `pending`."""


@dataclass
class Desk:
    """`registered` counts how often each device was registered for a tenant: more than once is a fault."""

    remembers: bool = True
    """Whether a repeated call id gets the first call's answer."""
    faults: deque[Fault] = field(default_factory=deque)
    registered: Counter[str] = field(default_factory=Counter)
    owners: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """By serial number: the error with which the device's registration ends."""
    enrolments: dict[str, Enrolment] = field(default_factory=dict)
    answers: dict[str, list[str | None]] = field(default_factory=dict)
    unnumbered: set[str] = field(default_factory=set)
    """Serial numbers whose next enrolment is done, and whose number is not told."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Id and serial numbers of each registration call."""
    audiences: set[str] = field(default_factory=set)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    end: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def enrol(self, tenant: str, call_id: str, items: list[dict[str, str]]) -> tuple[int, Any]:
        if self.remembers and call_id in self.answers:
            return 200, self.answers[call_id]
        if len(items) > 7:
            return 422, {"code": "E_TOO_MANY"}
        self.answers[call_id] = [self._enrol(tenant, item["sn"]) for item in items]
        return 200, self.answers[call_id]

    def _enrol(self, tenant: str, serial: str) -> str | None:
        number = f"D-{len(self.enrolments) + 1}"
        fault = self.errors.get(serial)
        if fault is None and serial in self.owners:
            fault = "E_OURS" if self.owners[serial] == tenant else "E_THEIRS"
        if fault is None:
            self.owners[serial] = tenant
            self.registered[serial] += 1
        looks = PENDING_LOOKS if len(self.enrolments) % 2 else 0
        self.enrolments[number] = Enrolment(tenant, serial, fault, looks)
        if serial in self.unnumbered:
            self.unnumbered.remove(serial)
            return None
        return number

    def show(self, tenant: str, number: str) -> tuple[int, Any]:
        found = self.enrolments.get(number)
        if found is None or found.tenant != tenant:
            return 404, {"code": "E_UNKNOWN"}
        if found.looks:
            found.looks -= 1
            return 200, {"phase": "pending"}
        if found.fault:
            return 200, {"phase": "failed", "fault": found.fault}
        return 200, {"phase": "done"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.audiences.add(audience(headers["authorization"]))
            method, path, _ = first.split(" ")
            _, _, tenant, _, *number = path.split("/")
            if method == "GET":
                await answer(writer, *self.show(tenant, number[0]))
            else:
                await self._registering(writer, tenant, headers["idempotency-key"], orjson.loads(body))
        writer.close()

    async def _registering(
        self, writer: asyncio.StreamWriter, tenant: str, call_id: str, items: list[dict[str, str]]
    ) -> None:
        self.calls.append((call_id, " ".join(item["sn"] for item in items)))
        fault = self.faults.popleft() if self.faults else None
        status, said = (0, None) if fault and not fault.after else self.enrol(tenant, call_id, items)
        if fault is None:
            await answer(writer, status, said)
        elif fault.status is None:
            self.held.set()
            await self.end.wait()
        else:
            await answer(writer, fault.status, {"code": "E_FAULT"}, fault.headers)


def audience(authorization: str) -> str:
    """The API for which the simulator's Entra has issued the token."""
    claims = authorization.removeprefix("Bearer ").split(".")[1]
    return str(orjson.loads(base64.urlsafe_b64decode(claims + "=="))["aud"])


async def answer(writer: asyncio.StreamWriter, status: int, body: Any, headers: str = "") -> None:
    content = orjson.dumps(body)
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{headers}\r\n"
    writer.write(head.encode() + content)
    await writer.drain()


@asynccontextmanager
async def open_desk() -> AsyncIterator[Desk]:
    desk = Desk()
    server = await asyncio.start_server(desk.serve, "127.0.0.1", 0)
    desk.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield desk
    finally:
        desk.end.set()
        server.close()
