"""A connection to PostgreSQL that a test can cut and restore: a database that is briefly unreachable."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy.engine import make_url


@dataclass
class Line:
    """The connection to PostgreSQL, which a test can cut and restore."""

    url: str
    server: asyncio.Server
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    cut_off: bool = False

    def cut(self) -> None:
        self.cut_off = True
        for writer in self.writers:
            writer.close()

    def mend(self) -> None:
        self.cut_off = False


@asynccontextmanager
async def line_to_postgres(database_url: str) -> AsyncIterator[Line]:
    there = make_url(database_url)
    host, port = str(there.host or there.query["host"]), there.port or int(str(there.query.get("port", 5432)))

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line.writers.add(writer)
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        line.writers.discard(writer)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if line.cut_off:
            writer.close()
            return
        if host.startswith("/"):
            from_there, to_there = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            from_there, to_there = await asyncio.open_connection(host, port)
        await asyncio.gather(carry(reader, to_there), carry(from_there, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    here = there.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1], query={})
    line = Line(here.render_as_string(hide_password=False), server)
    try:
        yield line
    finally:
        line.cut()
        server.close()
