"""Messages between the front process and its intake process about one call, over a socket pair.

The front sends HEAD, then the body as it arrives, then END. The intake process sends TAKEN as soon as it has
read HEAD, and finally its whole ANSWER: a head as JSON, followed by the body.
"""

import asyncio
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, Final
from uuid import UUID

import orjson

from app.domain.ids import PartnerId
from app.services.access.identities import Caller, PartnerRole

_FRAME: Final = struct.Struct(">BI")
LIMIT: Final = 1024 * 1024
"""Bytes that may wait in a reader before the sender must wait."""


class Kind(IntEnum):
    HEAD = 1
    BODY = 2
    END = 3
    TAKEN = 4
    ANSWER = 5
    ANSWER_BODY = 6


class ProcessGone(Exception):
    """The intake process ended before it had answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    counted: list[Any]
    """The intake process's counts for `/metrics` since its last answer."""


def write(writer: asyncio.StreamWriter, kind: Kind, content: bytes = b"") -> None:
    writer.write(_FRAME.pack(kind, len(content)))
    if content:
        writer.write(content)


async def read(reader: asyncio.StreamReader) -> tuple[Kind, bytes]:
    """Raises IncompleteReadError or ConnectionError if the other side has gone."""
    kind, size = _FRAME.unpack(await reader.readexactly(_FRAME.size))
    return Kind(kind), await reader.readexactly(size) if size else b""


def headers_as_json(headers: Iterable[tuple[bytes, bytes]]) -> list[list[str]]:
    return [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]


def headers_of(given: list[list[str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given]


def write_answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    headers = headers_as_json(answer.headers)
    head = {"status": answer.status, "headers": headers, "counted": answer.counted}
    write(writer, Kind.ANSWER, orjson.dumps(head))
    write(writer, Kind.ANSWER_BODY, answer.body)


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Raises ProcessGone."""
    try:
        head = orjson.loads(await _expect(reader, Kind.ANSWER))
        body = await _expect(reader, Kind.ANSWER_BODY)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise ProcessGone from error
    return Answer(head["status"], headers_of(head["headers"]), body, head["counted"])


async def _expect(reader: asyncio.StreamReader, kind: Kind) -> bytes:
    found, content = await read(reader)
    if found is not kind:
        raise ConnectionError(f"expected {kind.name}, got {found.name}")
    return content


async def read_taken(reader: asyncio.StreamReader) -> None:
    """Raises ProcessGone."""
    try:
        await _expect(reader, Kind.TAKEN)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise ProcessGone from error


def caller_as_json(caller: Caller) -> dict[str, Any]:
    expires = caller.key_expires_at
    return {
        "partner_id": str(caller.partner_id),
        "partner_name": caller.partner_name,
        "partner_role": caller.partner_role.value,
        "key_id": str(caller.key_id),
        "key_prefix": caller.key_prefix,
        "scopes": sorted(caller.scopes),
        "key_name": caller.key_name,
        "key_expires_at": expires.isoformat() if expires else None,
    }


def caller_of(given: dict[str, Any]) -> Caller:
    expires = given["key_expires_at"]
    return Caller(
        partner_id=PartnerId(UUID(given["partner_id"])),
        partner_name=given["partner_name"],
        partner_role=PartnerRole(given["partner_role"]),
        key_id=UUID(given["key_id"]),
        key_prefix=given["key_prefix"],
        scopes=frozenset(given["scopes"]),
        key_name=given["key_name"],
        key_expires_at=datetime.fromisoformat(expires) if expires else None,
    )
