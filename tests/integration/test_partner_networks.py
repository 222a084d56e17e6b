"""A private network that the operator opens to one partner and port stays closed to everybody else."""

from collections.abc import AsyncIterator, Sequence

import httpx
import orjson
import pytest
import pytest_asyncio

from app.domain.address import Allowance
from app.domain.errors import Unprocessable
from app.services.access import networks
from tests.support.receiver import Receiver, open_receiver
from tests.support.worker import run_operator
from tests.support.world import Partner, World
from tests.unit.cli_wire import Wire


@pytest_asyncio.fixture
async def strict(world: World) -> AsyncIterator[World]:
    """The world without the tests' allowance for loopback."""
    async with world.served(webhook_allowed_networks=()) as other:
        yield other


@pytest_asyncio.fixture
async def receiver(world: World) -> AsyncIterator[Receiver]:
    async with open_receiver(world) as found:
        yield found


async def add(world: World, partner: Partner, url: str) -> httpx.Response:
    return await world.client.post("/v1/webhook-endpoints", headers=partner.headers, json={"url": url})


async def allow(world: World, partner: Partner, *texts: str) -> None:
    await networks.change(world.runtime, partner, allow=[Allowance.parse(each) for each in texts], forbid=())


async def test_allowance_helps_its_partner_at_its_port_and_nobody_else(
    strict: World, receiver: Receiver
) -> None:
    mine, theirs = await strict.partner(consented=False), await strict.partner(consented=False)
    await allow(strict, mine, f"127.0.0.0/8:{receiver.port}")
    made = await add(strict, mine, receiver.url())
    assert made.status_code == 201, made.text
    elsewhere = await add(strict, mine, f"http://127.0.0.1:{receiver.port + 1}/hook")
    of_theirs = await add(strict, theirs, receiver.url())
    for refused in (elsewhere, of_theirs):
        assert (refused.status_code, refused.json()["code"]) == (422, "url_refused")
        assert "registrar partner networks" in refused.json()["detail"]

    sent = await strict.client.post(f"/v1/webhook-endpoints/{made.json()['id']}:test", headers=mine.headers)
    assert await strict.deliver() == 1
    path = f"/v1/webhook-deliveries/{sent.json()['id']}"
    assert (await strict.client.get(path, headers=mine.headers)).json()["state"] == "succeeded"


async def test_what_the_operator_forbids_is_out_of_reach_from_the_next_connection_on(
    strict: World, receiver: Receiver
) -> None:
    partner = await strict.partner(consented=False)
    await allow(strict, partner, "127.0.0.0/8")
    made = await add(strict, partner, receiver.url())
    await networks.change(strict.runtime, partner, allow=(), forbid=[Allowance.parse("127.0.0.0/8")])
    sent = await strict.client.post(
        f"/v1/webhook-endpoints/{made.json()['id']}:test", headers=partner.headers
    )
    await strict.deliver()
    found = await strict.client.get(f"/v1/webhook-deliveries/{sent.json()['id']}", headers=partner.headers)
    assert found.json()["last_kind"] == "refused_address"
    assert receiver.connections == 0


async def test_name_that_leads_inwards_is_told_when_it_is_typed(
    strict: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def inwards(host: str, port: int) -> Sequence[str]:
        return ["10.0.0.5"]

    monkeypatch.setattr(strict.runtime.outbound._network, "_resolve", inwards)
    partner = await strict.partner(consented=False)
    refused = await add(strict, partner, "https://erp.example.com/hook")
    assert (refused.status_code, refused.json()["code"]) == (422, "url_refused")
    assert "resolves to a private address" in refused.json()["detail"]
    assert "10.0.0.5" not in refused.text, "where the name leads is the operator's to know"
    await allow(strict, partner, "10.0.0.0/24:443")
    assert (await add(strict, partner, "https://erp.example.com/hook")).status_code == 201


async def test_operator_shows_allows_and_forbids(world: World, database_url: str) -> None:
    partner = await world.partner(consented=False)
    words = ("--allow", "10.1.0.0/16:8443", "--allow", "[fd00::/8]:443", "--yes", "--json")
    said = orjson.loads(await registrar(database_url, partner.name, *words))
    assert said["networks"] == ["10.1.0.0/16:8443", "[fd00::/8]:443"]
    said = await registrar(database_url, partner.name, "--forbid", "10.1.0.0/16:8443")
    assert "[fd00::/8]:443" in said
    assert "10.1.0.0" not in said


def test_networks_that_no_webhook_may_reach_are_refused_and_wide_ones_ask() -> None:
    """Before the database is used: these tests name none."""
    wire = Wire()
    for network in ("0.0.0.0/0", "::/0", "127.0.0.0/8", "169.254.169.254", "168.0.0.0/6"):
        said = wire.run("partner", "networks", "Contoso", "--allow", network, "--yes")
        assert said.exit_code == 1
        assert f"'{network}'" in said.stderr or f"{network} has " in said.stderr
    said = wire.run("partner", "networks", "Contoso", "--allow", "10.0.0.0/8", "--json")
    assert said.exit_code == 1
    document = orjson.loads(said.stdout)
    assert document["code"] == "not_confirmed"
    assert "16,777,216 addresses" in document["detail"]
    assert "--yes" in document["remedy"]


async def test_what_was_opened_before_is_shown_and_can_be_taken_back(world: World, database_url: str) -> None:
    partner = await world.partner(consented=False)
    await allow(world, partner, "0.0.0.0/0", "10.1.0.0/16")
    said = " ".join((await registrar(database_url, partner.name)).split())
    assert (
        "0.0.0.0/0 contains addresses that no webhook should reach. Remove it with --forbid 0.0.0.0/0" in said
    )
    said = await registrar(database_url, partner.name, "--forbid", "0.0.0.0/0", "--json")
    assert orjson.loads(said)["networks"] == ["10.1.0.0/16"]


async def test_mistake_of_the_operator_changes_nothing(world: World) -> None:
    partner = await world.partner(consented=False)
    await allow(world, partner, "10.1.0.0/16")
    with pytest.raises(Unprocessable, match="Nothing was changed"):
        await networks.change(
            world.runtime,
            partner,
            allow=[Allowance.parse("10.2.0.0/16")],
            forbid=[Allowance.parse("10.9.0.0/16")],
        )
    assert [str(each) for each in await networks.look_at(world.runtime, partner)] == ["10.1.0.0/16"]


async def registrar(database_url: str, *arguments: str) -> str:
    done = await run_operator(database_url, "partner", "networks", *arguments)
    return done.stdout
