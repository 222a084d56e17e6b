"""`/metrics` under work: counters, waiting work, who may read it, and that it shows nothing private."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.db import heartbeats
from app.local.stack import free_port
from app.main import build
from app.services.operations.figures import STATES
from app.services.registering import batches
from tests.architecture.source import ROOT
from tests.integration.test_api_bad_input import problem_of
from tests.support.import_scene import preview, tuple_sheet
from tests.support.receiver import open_receiver, subscribe
from tests.support.worker import PATIENCE, until_over, worker_process
from tests.support.world import World, tuples

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(world: World) -> Samples:
    """The page's present values, without its cache of a few seconds."""
    world.app.state.gauge = None
    response = await world.client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return parsed(response.text)


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


async def test_an_orders_way_is_counted(world: World) -> None:
    partner = await world.partner()
    world.runtime.token_cache.tokens.clear()
    before = await scrape(world)
    response = await world.post_order(partner, [device_json(n) for n in range(3)])
    assert response.status_code == 201, response.text
    await world.work()
    after = await scrape(world)

    def grown(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    request = {"method": "POST", "route": "/v1/orders"}
    assert grown("registrar_http_requests_total", **request, status="201") == 1
    assert grown("registrar_http_request_duration_seconds_count", **request) == 1
    assert grown("registrar_devices_accepted_total", validity="valid") == 3
    assert grown("registrar_outcomes_total", state="registered", code="none") == 3
    assert grown("registrar_upstream_calls_total", operation="create_batch", status="202") == 1
    assert grown("registrar_upstream_call_duration_seconds_count", operation="create_batch") == 1
    assert grown("registrar_upstream_calls_total", operation="job_status", status="200") >= 1
    assert grown("registrar_upstream_calls_total", operation="token", status="200") >= 1


def device_json(number: int) -> dict[str, str]:
    return {"serial_number": f"SYN-M{number}", "manufacturer": "Contoso", "model": "Contoso Book 14"}


async def test_nothing_private_and_nothing_unbounded_is_on_the_page(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(2, "SYNPRIVATE"))
    await world.work()
    await world.client.get(f"/v1/orders/{order.view.record.id}", headers=partner.headers)
    await world.client.get("/v1/registrations?serial_prefix=SYNPRIVATE", headers=partner.headers)
    await world.client.get("/nobody/knows/this/path")
    await world.client.request("SPY", "/v1/orders")
    page = (await world.client.get("/metrics")).text
    private = [
        "SYNPRIVATE",
        "/nobody/knows",
        "SPY",
        partner.name,
        partner.key,
        str(partner.id),
        str(partner.tenant_id),
        str(partner.connection_id),
        str(partner.customer_id),
        str(order.view.record.id),
    ]
    assert [word for word in private if word in page] == []
    routes = {dict(labels).get("route") for _, labels in parsed(page)} - {None}
    known = {"unmatched", "/metrics", "/docs", "/openapi.json", *world.app.openapi()["paths"]}
    assert routes - known == set()


async def test_what_waits_is_shown_by_kind_and_state_with_its_age(world: World) -> None:
    partner = await world.partner()
    samples = await scrape(world)
    shown = {
        (dict(labels)["kind"], dict(labels)["state"])
        for name, labels in samples
        if name == "registrar_work_waiting"
    }
    assert shown == {(kind, state) for kind, states in STATES.items() for state in states}
    assert of(samples, "registrar_work_waiting", kind="batch", state="queued") == 0

    await world.order(partner, tuples(2))
    await world.order(partner, tuples(2, "OTHER"), customer_id=partner.other_customer_id)
    world.clock.advance(seconds=90)
    samples = await scrape(world)
    assert of(samples, "registrar_database_up") == 1
    for state in ("queued", "held"):
        labels = {"kind": "batch", "state": state}
        assert of(samples, "registrar_work_waiting", **labels) == 1
        assert 90 <= of(samples, "registrar_work_oldest_age_seconds", **labels) < 120
    assert 90 <= of(samples, "registrar_work_overdue_seconds", kind="batch", state="queued") < 120
    # Work that waits for consent is not late.
    assert of(samples, "registrar_work_overdue_seconds", kind="batch", state="held") == 0
    world.clock.advance(seconds=-90)


async def test_several_looks_within_seconds_cost_one_query(world: World) -> None:
    partner = await world.partner()
    await scrape(world)
    await world.order(partner, tuples(1))
    page = parsed((await world.client.get("/metrics")).text)
    assert of(page, "registrar_work_waiting", kind="batch", state="queued") == 0
    assert of(await scrape(world), "registrar_work_waiting", kind="batch", state="queued") == 1


async def test_deliveries_and_imports_are_counted(world: World) -> None:
    partner = await world.partner()
    before = await scrape(world)
    async with open_receiver(world) as receiver:
        await subscribe(world, partner, receiver.url())
        await world.order(partner, tuples(1))
        waiting = await scrape(world)
        assert of(waiting, "registrar_work_waiting", kind="delivery", state="pending") == 1
        await world.deliver()
    await preview(world, partner, tuple_sheet(3))
    after = await scrape(world)
    for name, labels in (
        ("registrar_delivery_attempts_total", {"kind": "succeeded"}),
        ("registrar_imports_total", {"state": "ready"}),
    ):
        assert of(after, name, **labels) - of(before, name, **labels) == 1, name
    assert of(after, "registrar_webhook_endpoints", state="enabled") == 1


async def test_a_breaker_is_seen_to_open(world: World) -> None:
    partner = await world.partner()
    before = await scrape(world)
    await world.arm({"operation": "*", "kind": "status", "status": 503, "count": None})
    for n in range(8):
        await world.order(partner, tuples(1, f"B{n}", group_tag=f"Tag {n}"))
    while await batches.advance_next(world.runtime) is not None:
        pass
    after = await scrape(world)
    changes, opened = "registrar_breaker_changes_total", {"change": "opened"}
    assert of(after, changes, **opened) == of(before, changes, **opened) + 1
    assert of(after, "registrar_breakers", state="open") == 1
    assert of(after, "registrar_breakers", state="closed") == 0
    calls = "registrar_upstream_calls_total"
    failed = {"operation": "list_batches", "status": "503"}
    assert of(after, calls, **failed) - of(before, calls, **failed) >= 1


async def test_connections_in_trouble_and_workers_are_counted(world: World) -> None:
    partner = await world.partner()
    async with world.runtime.system_transaction() as tx:
        await heartbeats.beat(tx, "alive", world.clock.now())
        await heartbeats.beat(tx, "silent", world.clock.now() - timedelta(hours=1))
    await world.select(
        "UPDATE connections SET trouble_code = 'credential_refused', trouble_since = now() "
        "WHERE id = :id RETURNING id",
        id=partner.connection_id,
    )
    samples = await scrape(world)
    assert of(samples, "registrar_connections_in_trouble", code="credential_refused") == 1
    assert of(samples, "registrar_workers_alive") == 1


# --- who may read it ----------------------------------------------------------------------------------


async def ask(world: World, address: str, networks: str | None = None, **headers: str) -> httpx.Response:
    settings = world.runtime.settings
    if networks is not None:
        allowed = tuple(network for network in networks.split(",") if network)
        settings = settings.model_copy(update={"metrics_allowed_networks": allowed})
    app = build(settings)
    app.state.runtime = world.runtime
    transport = httpx.ASGITransport(app, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://registrar") as client:
        return await client.get("/metrics", headers=headers)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9"])
async def test_this_machine_may_read_the_page_without_a_key(world: World, address: str) -> None:
    assert (await ask(world, address)).status_code == 200


@pytest.mark.parametrize("address", ["192.0.2.7", "10.1.2.3", "2001:db8::1", "::ffff:192.0.2.7", "unix:"])
async def test_others_may_not(world: World, address: str) -> None:
    found = problem_of(await ask(world, address), 403, "metrics_not_open")
    assert "REGISTRAR_METRICS_ALLOWED_NETWORKS" in found["detail"]


async def test_networks_are_a_setting(world: World) -> None:
    assert (await ask(world, "10.1.2.3", "10.1.0.0/16")).status_code == 200
    assert (await ask(world, "127.0.0.1", "10.1.0.0/16")).status_code == 403
    assert (await ask(world, "127.0.0.1", "")).status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"])
async def test_a_proxy_on_this_machine_opens_the_page_to_nobody(world: World, header: str) -> None:
    assert (await ask(world, "127.0.0.1", **{header: "127.0.0.1"})).status_code == 403


# --- workers ------------------------------------------------------------------------------------------


async def test_a_worker_has_a_page_of_its_own_at_a_port_of_its_own(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    port = free_port()
    order = await world.order(partner, tuples(2))
    async with worker_process(world, tmp_path / "worker.log", worker_metrics_port=port):
        await until_over(world, partner, order.view.record.id)
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
            samples = parsed((await client.get(f"http://127.0.0.1:{port}/metrics")).text)
    assert of(samples, "registrar_outcomes_total", state="registered", code="none") == 2
    assert of(samples, "registrar_upstream_calls_total", operation="create_batch", status="202") == 1
    assert all(name != "registrar_work_waiting" for name, _ in samples), "that is the API's to say"


async def test_a_port_that_is_taken_ends_no_worker(world: World, tmp_path: Path) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(1))
    port, log = free_port(), tmp_path / "worker.log"
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with server, worker_process(world, log, worker_metrics_port=port):
        await until_over(world, partner, order.view.record.id)
    assert "metrics_not_served" in log.read_text()


# --- the guide ----------------------------------------------------------------------------------------


SECTION = (ROOT / "docs/metrics.md").read_text()
TABLE = {
    match[1]: frozenset(re.findall(r"`(\w+)`", match[2]))
    for match in re.finditer(r"^\| `(registrar_\w+)` \|([^|]*)\|", SECTION, re.MULTILINE)
}
"""The table of docs/metrics.md: the labels of each metric."""


def test_the_guide_names_every_metric_and_no_other() -> None:
    made = set(re.findall(r'(?<!namespace=)"(registrar_\w+)"', (ROOT / "app/kernel/metrics.py").read_text()))
    assert {re.sub(r"_(total|seconds)$", "", name) for name in TABLE} == made


def test_the_alarms_ask_for_metrics_and_labels_that_are_there() -> None:
    asked = re.findall(r"(registrar_\w+)\{([^}]*)\}", SECTION)
    assert len(asked) > 4
    for name, labels in asked:
        assert set(re.findall(r"(\w+)[=!]", labels)) <= TABLE[name], name
    rules = yaml.safe_load(re.findall(r"```yaml\n(groups:.*?)```", SECTION, re.DOTALL)[0])
    (group,) = rules["groups"]
    for rule in group["rules"]:
        named = set(re.findall(r"registrar_\w+", rule["expr"]))
        assert named, rule["alert"]
        assert named <= set(TABLE), rule["alert"]


async def test_the_page_has_the_labels_that_the_guide_says(world: World) -> None:
    shown = {
        (re.sub(r"_(bucket|count|sum)$", "", name), frozenset(dict(labels)) - {"le"})
        for name, labels in await scrape(world)
        if name.startswith("registrar_")
    }
    assert len(shown) > 5
    assert {(name, labels) for name, labels in shown if labels != TABLE.get(name)} == set()
