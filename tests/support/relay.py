"""A relay in front of PostgreSQL that adds TLS, which the wheel's server lacks, or acts as a pooler."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from dataclasses import dataclass, field

from sqlalchemy.engine import make_url

from tests.support.authority import Authority

SSL_REQUEST = 80877103
"""The request code for TLS, the first message of PostgreSQL's protocol."""


KEY_DATA = b"K" + struct.pack("!i", 12)
"""The message with the server's process id, at the end of the startup."""
NO_PROCESS = 2_000_000_000


@dataclass
class Relay:
    """Speaks TLS to clients and plain text to the server. Records how the last connection came."""

    upstream: str
    authority: Authority
    port: int = 0
    speaks_tls: bool = True
    came: tuple[bool, str | None] = (False, None)
    """Whether it was encrypted, and the name in the client's certificate."""
    is_pooler: bool = False
    """Answers the startup with its own process id, like poolers."""
    said: dict[str, str] = field(default_factory=dict)
    """The parameters with which the last connection started."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first, name = await reader.readexactly(8), None
            encrypted = struct.unpack("!ii", first)[1] == SSL_REQUEST
            if encrypted and not self.speaks_tls:
                writer.write(b"N")
                first, encrypted = await reader.readexactly(8), False
            if encrypted:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self.context())
                first = await reader.readexactly(8)
                shown = writer.get_extra_info("peercert") or {}
                name = next((value for ((_, value),) in shown.get("subject", ())), None)
            self.came = encrypted, name
            # In one piece, because PgBouncer refuses a split first message.
            first += await reader.readexactly(struct.unpack("!ii", first)[0] - len(first))
            words = first[8:].rstrip(b"\0").decode().split("\0")
            self.said = dict(zip(words[::2], words[1::2], strict=True))
            await self.relay(first, reader, writer)
        writer.close()

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("server", "127.0.0.1"))
        context.load_verify_locations(self.authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    async def relay(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = make_url(self.upstream)
        if host := url.query.get("host"):
            socket = f"{host}/.s.PGSQL.{url.query['port']}"
            there, back = await asyncio.open_unix_connection(socket)
        else:
            there, back = await asyncio.open_connection(url.host, url.port)
        back.write(first)
        await asyncio.gather(_pump(reader, back), _pump(there, writer, self.is_pooler))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, pooler: bool = False) -> None:
    while data := await source.read(65536):
        if pooler and (found := data.find(KEY_DATA)) >= 0:
            data = data[: found + 5] + struct.pack("!i", NO_PROCESS) + data[found + 9 :]
            pooler = False
        sink.write(data)
        await sink.drain()
    sink.close()
