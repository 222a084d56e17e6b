"""deploy/proxy/nginx.conf, run by the distribution's nginx in front of a real API.

`.ci/run compatibility` installs nginx and runs it; `make test` does not, because it installs nothing.
"""

import asyncio
import contextlib
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.local.stack import free_port
from tests.architecture.source import ROOT
from tests.integration.test_processes import until_ready
from tests.support.authority import Authority
from tests.support.import_scene import HEADER, sheet, tuple_rows
from tests.support.worker import registrar_process
from tests.support.world import World

PATIENCE = 60.0
CONFIGURATION = ROOT / "deploy" / "proxy" / "nginx.conf"
CLIENT = "127.0.0.5"
"""Where the client calls from; nginx itself calls the API from 127.0.0.1."""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that nginx may read whatever user it becomes: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def configured(place: Path, port: int, api_port: int, authority: Authority) -> Path:
    """The main file around the one that is tested, with this test's ports, certificate and a short time."""
    certificate, key = authority.issue("registrar", "127.0.0.1")
    text = CONFIGURATION.read_text()
    for given, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{api_port};"),
        ("/etc/ssl/registrar.pem", str(certificate)),
        ("/etc/ssl/registrar.key", str(key)),
        ("client_header_timeout 10s;", "client_header_timeout 2s;"),
    ):
        assert text.count(given) == 1, given
        text = text.replace(given, here)
    bodies = place / "bodies"
    bodies.mkdir()
    bodies.chmod(0o777)
    main = place / "nginx.conf"
    paths = "".join(
        f"{kind}_temp_path {bodies}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main.write_text(
        f"daemon off; pid {place}/pid; error_log {place}/error.log notice;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; {paths}\n{text}\n}}\n"
    )
    return main


@dataclass(frozen=True)
class Proxied:
    port: int
    trust: ssl.SSLContext
    log: Path
    """The API's."""

    def client(self, address: str = CLIENT) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=self.trust, local_address=address)
        return httpx.AsyncClient(
            transport=transport, base_url=f"https://127.0.0.1:{self.port}", timeout=PATIENCE, trust_env=False
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust)


@asynccontextmanager
async def proxied(world: World, place: Path, log: Path) -> AsyncIterator[Proxied]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert program is not None, "Needed: nginx (Debian's package); `.ci/run compatibility` installs it."
    port, api_port = free_port(), free_port()
    authority = Authority.make(place, "authority")
    main = configured(place, port, api_port, authority)
    settings = {"api_port": api_port, "trusted_proxies": "127.0.0.1/32", "log_format": "json"}
    async with registrar_process(world, log, "api", **settings):
        await until_ready(f"http://127.0.0.1:{api_port}")
        arguments = ("-e", str(place / "error.log"), "-p", str(place), "-c", str(main))
        nginx = await asyncio.create_subprocess_exec(program, *arguments)
        found = Proxied(port, ssl.create_default_context(cafile=authority.certificate), log)
        try:
            await until_there(found)
            yield found
        finally:
            if nginx.returncode is None:
                nginx.terminate()
            await nginx.wait()


async def until_there(proxied: Proxied) -> None:
    async with asyncio.timeout(PATIENCE), proxied.client() as client:
        while True:
            with contextlib.suppress(httpx.ConnectError):
                await client.get("/healthz")
                return
            await asyncio.sleep(0.02)


async def logged(proxied: Proxied, correlation_id: str) -> dict[str, Any]:
    """The log line of a call, which is written once its answer has gone."""
    async with asyncio.timeout(PATIENCE):
        while True:
            lines = [json.loads(line) for line in proxied.log.read_text().splitlines()]
            for line in lines:
                if line.get("correlation_id") == correlation_id:
                    return dict(line)
            await asyncio.sleep(0.02)


async def test_the_example_configuration_bounds_what_comes_and_lets_orders_and_files_through(
    world: World, place: Path, tmp_path: Path
) -> None:
    partner = await world.partner()
    async with proxied(world, place, tmp_path / "api.log") as proxy, proxy.client() as client:
        # An order system's call. The client's own word on its address is not passed on.
        headers = {
            **partner.headers,
            "X-Forwarded-For": "203.0.113.9",
            "X-Correlation-Id": "through-the-proxy",
        }
        response = await client.get("/v1/me", headers=headers)
        assert (response.status_code, response.json()["partner_id"]) == (200, str(partner.id))
        line = await logged(proxy, "through-the-proxy")
        assert (line["client"], line["partner_id"]) == (CLIENT, str(partner.id))

        # Metrics are not for callers.
        assert (await client.get("/metrics")).status_code == 404

        # A head of 100 kB, and a line of 20 kB.
        many = {f"X-{number}": "a" * 10_000 for number in range(10)}
        assert (await client.get("/v1/me", headers=many)).status_code in (400, 431)
        assert (await client.get("/v1/me?" + "a" * 20_000)).status_code == 414

        # A head that does not come to its end.
        reader, writer = await proxy.connect()
        writer.write(b"GET /v1/me HTTP/1.1\r\nHost: registrar\r\nX: ")
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                assert b"200" not in await reader.read()
        writer.close()

        # A body as large as an order may be reaches the API, which answers it in its own words.
        order = b'{"reference": "' + b"a" * (63 * 1024 * 1024) + b'"}'
        typed = {**partner.headers, "Content-Type": "application/json"}
        response = await client.post("/v1/orders", content=order, headers=typed)
        assert response.headers["content-type"] == "application/problem+json", response.text[:200]
        response = await client.post("/v1/orders", content=order + b" " * 3_000_000, headers=typed)
        assert response.status_code == 413

        # A file may be larger than that.
        rows = tuple_rows(3)
        file = sheet(HEADER, rows) + b"\r\n" * (35 * 1024 * 1024)
        response = await client.post(
            "/v1/imports", params={"customer_id": str(partner.customer_id)}, content=file,
            headers={**partner.headers, "Content-Type": "text/csv"},
        )  # fmt: skip
        assert response.status_code == 201, response.text[:500]


async def test_one_client_has_a_share_of_the_proxys_connections(
    world: World, place: Path, tmp_path: Path
) -> None:
    async with proxied(world, place, tmp_path / "api.log") as proxy:
        held = []
        try:
            for _ in range(101):  # each with a request that is under way: its body is awaited
                reader, writer = await proxy.connect()
                writer.write(b"POST /v1/orders HTTP/1.1\r\nHost: registrar\r\nContent-Length: 9\r\n\r\n")
                held.append((reader, writer))
            first = await asyncio.wait_for(first_answer([reader for reader, _ in held]), PATIENCE)
            assert b" 503 " in first
            async with proxy.client("127.0.0.6") as neighbour:
                assert (await neighbour.get("/healthz")).status_code == 200
        finally:
            for _, writer in held:
                writer.transport.abort()


async def first_answer(readers: list[asyncio.StreamReader]) -> bytes:
    waiting = [asyncio.create_task(reader.readline()) for reader in readers]
    done, open_still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in open_still:
        task.cancel()
    await asyncio.gather(*open_still, return_exceptions=True)
    return next(iter(done)).result()
