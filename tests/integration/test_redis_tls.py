"""`rediss://`: wake-ups, rate limits and a worker, over TLS to the real Valkey.

The wheel's server is built without TLS, so a TLS front stands before it.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from app.kernel import budgets, call_rates, queue
from app.kernel.queue import QUEUE_NAME
from app.kernel.settings import Settings
from tests.support.authority import Authority
from tests.support.worker import worker_process
from tests.support.world import World, tuples


@dataclass
class Front:
    """Accepts TLS and passes on the content. Counts connections with a successful handshake."""

    upstream: str
    authority: Authority
    port: int = 0
    greeted: int = 0
    passing: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, authority: Authority | None = None, host: str = "127.0.0.1", more: str = "") -> str:
        certificate = (authority or self.authority).certificate
        return f"rediss://{host}:{self.port}/0?ssl_ca_certs={certificate}{more}"

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue("redis", "127.0.0.1"))
        return context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.greeted += 1
        parts = urlsplit(self.upstream)
        if parts.scheme == "unix":
            there, back = await asyncio.open_unix_connection(parts.path)
        else:
            there, back = await asyncio.open_connection(parts.hostname, parts.port)
        both = [asyncio.create_task(_pump(*ends)) for ends in ((reader, back), (there, writer))]
        self.passing.update(both)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(both)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengthens timeouts, so that a slow machine does not look like an unavailable Redis."""
    monkeypatch.setattr(budgets, "REDIS_TIMEOUT", 45.0)
    monkeypatch.setattr(call_rates, "REDIS_TIMEOUT", 45.0)
    monkeypatch.setattr(queue, "SEND_PATIENCE", 45.0)


@pytest.fixture
async def front(world: World, tmp_path: Path) -> AsyncIterator[Front]:
    made = Front(str(world.runtime.settings.redis_url), Authority.make(tmp_path, "ours"))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=made.context())
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    for task in made.passing:
        task.cancel()
    await asyncio.gather(*made.passing, return_exceptions=True)


@pytest.fixture
async def redis(world: World) -> AsyncIterator[Redis]:
    """A client of Valkey itself, without the TLS front."""
    client: Redis = Redis.from_url(str(world.runtime.settings.redis_url))
    await client.flushall()
    yield client
    await client.flushall()
    await client.aclose()


async def test_wake_ups_counts_and_budgets_go_through_tls(world: World, front: Front, redis: Redis) -> None:
    partner = await world.partner()
    await redis.flushall()
    async with world.served(redis_url=front.url(), requests_per_minute=5) as other:
        left = [
            (await world.client.get("/v1/me", headers=partner.headers)).headers["ratelimit"].split(";")[1]
            for _ in range(2)
        ]
        await other.order(partner, tuples(1))
        assert left == ["r=4", "r=3"]
        assert await redis.zcard(QUEUE_NAME) > 0
        seen = await other.runtime.budgets.look([partner.connection_id], other.runtime.now)
        assert seen.shared
    assert front.greeted >= 2


async def test_a_worker_takes_its_wake_ups_through_tls(
    world: World, front: Front, redis: Redis, tmp_path: Path
) -> None:
    partner = await world.partner()
    await redis.flushall()
    await world.order(partner, tuples(2))
    assert await redis.zcard(QUEUE_NAME) > 0
    async with worker_process(world, tmp_path / "worker.log", redis_url=front.url()) as worker:
        async with asyncio.timeout(45):
            while await redis.zcard(QUEUE_NAME) > 0:
                assert worker.returncode is None
                await asyncio.sleep(0.05)
    assert front.greeted > 0


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_another_server_is_told_nothing_and_orders_go_on(
    world: World, front: Front, redis: Redis, tmp_path: Path, wrong: str
) -> None:
    """Its certificate is one that we do not trust, or for another name."""
    partner = await world.partner()
    await redis.flushall()
    foreign = Authority.make(tmp_path, "foreign")
    url = front.url(foreign) if wrong == "authority" else front.url(host="localhost")
    async with world.another(redis_url=url) as other:
        world.app.state.runtime = other.runtime
        try:
            answer = await world.client.get("/v1/me", headers=partner.headers)
            await other.order(partner, tuples(1))
        finally:
            world.app.state.runtime = world.runtime
    assert "ratelimit" not in answer.headers
    assert await redis.dbsize() == 0
    assert await world.count("orders") == 1
    assert front.greeted == 0


async def test_the_name_is_not_asked_for_where_the_url_says_so(world: World, front: Front) -> None:
    partner = await world.partner(consented=False)
    url = front.url(host="localhost", more="&ssl_check_hostname=false")
    async with world.another(redis_url=url) as other:
        seen = await other.runtime.budgets.look([partner.connection_id], other.runtime.now)
    assert seen.shared
    assert front.greeted > 0


def test_a_certificate_file_that_cannot_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    """Otherwise Redis would seem to be down forever without a reason."""
    with pytest.raises(ValueError, match=r"ssl_ca_certs=.*missing.pem is no PEM file"):
        Settings(redis_url=f"rediss://redis.example/0?ssl_ca_certs={tmp_path / 'missing.pem'}")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ValueError, match=r"ssl_certfile=.*empty.pem"):
        Settings(redis_url=f"rediss://redis.example/0?ssl_certfile={tmp_path / 'empty.pem'}")
