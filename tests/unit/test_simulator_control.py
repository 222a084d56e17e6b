"""The simulator's control routes, customers and consent, the ledger, and Partner Center's own webhooks."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.routing import Route

from simulator.control import build_control
from simulator.faults import Rule
from simulator.main import build
from simulator.samples import hardware_hash
from simulator.switches import PRESETS, Switches
from tests.unit.simulator_scene import Scene, client_on, fresh_scene, new_id, tuple_of

README = Path(__file__).parents[2] / "simulator" / "README.md"
ACCEPTED = "reseller-relationship-accepted-by-customer"


@pytest.fixture
async def scene() -> Scene:
    return await fresh_scene()


async def test_customers_are_read_in_pages(scene: Scene) -> None:
    await scene.control("POST", "customers", {"name": "Stranger"})
    for number in range(3):
        await scene.control("POST", "customers", {"name": f"More {number}", "relationship": "reseller"})
    first = (await scene.get("/v1/customers?size=3")).json()
    assert (first["totalCount"], len(first["items"])) == (5, 3)
    assert first["items"][0]["relationshipToPartner"] == "reseller"
    token = first["continuationToken"]
    rest = (await scene.get("/v1/customers?size=3&seekOperation=Next", MS_ContinuationToken=token)).json()
    assert len(rest["items"]) == 2
    assert "continuationToken" not in rest
    assert (await scene.get("/v1/customers?size=3", MS_ContinuationToken=token)).status_code == 400


async def test_customers_are_searched_by_prefix(scene: Scene) -> None:
    query = {"size": "0", "filter": '{"Field":"CompanyName","Value":"CUSTOMER 2","Operator":"starts_with"}'}
    found = await scene.client.get("/v1/customers", params=query, headers=scene.headers())
    assert [item["id"] for item in found.json()["items"]] == [scene.customers[1]]


async def test_consent_opens_and_closes_a_customer(scene: Scene) -> None:
    added = await scene.control("POST", "customers", {"name": "New", "domain": "new.example"})
    scene.customer = added["tenant_id"]
    refused = await scene.create([tuple_of("S1")])
    assert (refused.status_code, refused.json()["code"]) == (403, "20002")
    assert (await scene.get(scene.base)).status_code == 403
    await scene.control("POST", f"customers/{scene.customer}:accept")
    assert (await scene.get(scene.base)).json()["companyProfile"]["domain"] == "new.example"
    assert (await scene.create([tuple_of("S1")])).status_code == 202
    await scene.control("POST", f"customers/{scene.customer}:remove")
    assert (await scene.append([tuple_of("S2")])).status_code == 403
    await scene.switch(unknown_customer_style="not_found")
    assert (await scene.append([tuple_of("S2")])).status_code == 404
    scene.customer = "not-a-guid"
    assert (await scene.append([tuple_of("S2")])).json()["code"] == "900118"


async def test_the_relationship_request_names_the_partner(scene: Scene) -> None:
    url = (await scene.get("/v1/customers/relationshiprequests")).json()["url"]
    assert f"invType=ResellerRelationship&partnerId={scene.partner['tenant_id']}&" in url


async def test_unserved_paths_and_methods_are_refused(scene: Scene) -> None:
    await scene.create([tuple_of("S1")])
    deleted = await scene.client.delete(f"{scene.base}/deviceBatches/Sales", headers=scene.headers())
    assert deleted.status_code == 405
    assert (await scene.get("/v1/nothing")).status_code == 404
    assert (await scene.client.get("/elsewhere")).status_code == 404


async def test_two_built_programs_share_nothing() -> None:
    first, second = await fresh_scene(), await fresh_scene()
    await first.create([tuple_of("S1")])
    assert (await second.control("GET", "totals"))["devices_held"] == 0


async def test_a_seed_makes_everything_drawn_the_same() -> None:
    seeds = []
    for _ in range(2):
        client = client_on(build())
        await client.post("/control/reset", json={"seed": 11})
        seeds.append((await client.post("/control/seed", json={"customers": 3})).json())
    assert seeds[0] == seeds[1]


async def test_switches_are_patched_described_and_reset(scene: Scene) -> None:
    refused = await scene.client.patch("/control/switches", json={"no_such_switch": 1})
    assert refused.status_code == 400
    assert (await scene.client.patch("/control/switches", json={"drop_rate": 2})).status_code == 400
    assert (await scene.client.patch("/control/switches", json={"answer_min_ms": 5})).status_code == 400
    await scene.control("POST", "presets/hostile")
    assert (await scene.control("GET", "switches"))["drop_rate"] == PRESETS["hostile"]["drop_rate"]
    assert (await scene.client.post("/control/presets/unknown")).status_code == 404
    await scene.control("POST", "reset", {"seed": 3})
    now = await scene.control("GET", "switches")
    assert now == orjson.loads(orjson.dumps(dataclasses.asdict(Switches())))
    described = await scene.control("GET", "switches?describe=true")
    assert [row["name"] for row in described] == list(now)
    assert all(row["meaning"] for row in described)


def test_the_readme_names_every_switch_fault_and_control_route() -> None:
    text = README.read_text()
    wanted = [field.name for field in dataclasses.fields(Switches)] + list(Rule.model_fields)
    wanted += list(Rule.model_json_schema()["properties"]["kind"]["enum"]) + list(PRESETS)
    assert [name for name in wanted if f"`{name}`" not in text] == []
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    shown = {name.strip(" `"): default.strip(" `") for name, default in rows}
    defaults = orjson.loads(orjson.dumps(dataclasses.asdict(Switches())))
    for name, default in defaults.items():
        assert shown[name] == (
            default if default and isinstance(default, str) else orjson.dumps(default).decode()
        )
    routes = [route for route in build_control(build().state).routes if isinstance(route, Route)]
    methods = [
        f"| {method} | `{route.path}` |"
        for route in routes
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
    assert len(methods) > 20
    assert [line for line in methods if line not in text] == []


async def test_the_ledger_shows_calls_and_devices_but_no_hash(scene: Scene) -> None:
    whole = hardware_hash("S1", product_key="42")
    request = new_id()
    await scene.create([{"hardwareHash": whole}, {"productKey": "43"}], MS_RequestId=request)
    text = (await scene.client.get("/control/ledger")).text
    assert whole[:60] not in text
    ledger = orjson.loads(text)
    call = ledger["calls"][-1]
    assert (call["operation"], call["request_id"], call["device_count"]) == ("create", request, 2)
    assert (call["outcome"], call["status"], call["customer"]) == ("answered", 202, scene.customer)
    first, second = ledger["devices"]
    assert (first["serial"], first["product_key"], first["identified_by"]) == ("S1", "42", "hash")
    assert (first["call"], first["submissions"], len(first["hash_sha256"])) == (call["number"], 1, 64)
    assert (second["product_key"], second["identified_by"]) == ("43", "pkid")
    assert ledger["totals"]["devices_held_by_customer"] == {scene.customer: 2}


async def test_the_ledger_is_paged_and_streams_many_devices(scene: Scene) -> None:
    for part in range(3):
        await scene.append([tuple_of(f"S{part}-{n}") for n in range(1000)])
        await scene.switch(append_missing_batch="create")
    ledger = await scene.control("GET", "ledger?calls=false&device_after=1500&device_limit=10")
    assert [d["serial"] for d in ledger["devices"]] == [f"S2-{n}" for n in range(500, 510)]
    assert "calls" not in ledger
    whole = await scene.control("GET", "ledger")
    assert len({d["serial"] for d in whole["devices"]}) == 2000
    after = await scene.control("GET", "ledger?devices=false&after=2&limit=1")
    assert [call["number"] for call in after["calls"]] == [3]


async def test_a_job_is_inspected_with_what_its_answer_hides(scene: Scene) -> None:
    accepted = await scene.create([{"hardwareHash": hardware_hash("S1")}])
    job = await scene.control("GET", f"jobs/{accepted.headers['location'].split('/')[4]}")
    assert [device["serial"] for device in job["devices"]] == ["S1"]


async def test_samples_are_accepted(scene: Scene) -> None:
    samples = await scene.control("GET", "samples?count=3&prefix=DEMO")
    assert await scene.errors(await scene.create(samples)) == ["", "", ""]


class _Receiver(httpx.AsyncBaseTransport):
    """A webhook endpoint at the wire: fails as often as told, keeps what it got."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.received: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.received.append(request)
        return httpx.Response(500 if len(self.received) <= self.failures else 200)


async def settled(scene: Scene, number: int = 1) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 45
    while time.monotonic() < deadline:
        sent: list[dict[str, Any]] = await scene.control("GET", "notifications")
        if len(sent) >= number and all(n["status"] != "pending" for n in sent):
            return sent
        await asyncio.sleep(0.01)
    raise AssertionError("the notification did not end")


async def register(scene: Scene, **more: Any) -> httpx.Response:
    body = {"WebhookUrl": "https://receiver.example/hook", "WebhookEvents": [ACCEPTED, "test-created"]} | more
    return await scene.client.post("/webhooks/v1/registration", json=body, headers=scene.headers())


async def test_an_acceptance_is_announced_with_a_signature_its_certificate_verifies() -> None:
    receiver = _Receiver(failures=2)
    scene = await fresh_scene(program=build(webhook_transport=receiver))
    await scene.switch(webhook_retry_ms=0)
    assert (await scene.get("/webhooks/v1/registration")).status_code == 404
    assert (await register(scene)).status_code == 200
    assert (await register(scene)).status_code == 409
    await scene.control("POST", f"customers/{scene.customer}:accept")
    (notification,) = await settled(scene)
    assert (notification["status"], len(notification["attempts"])) == ("delivered", 3)
    request = receiver.received[-1]
    assert request.headers["x-ms-signature-algorithm"] == "rsa-sha256"
    served = await scene.client.get(request.headers["x-ms-certificate-url"])
    certificate = x509.load_der_x509_certificate(served.content)
    root = x509.load_der_x509_certificate((await scene.client.get("/cert/root.cer")).content)
    certificate.verify_directly_issued_by(root)
    assert "Microsoft Corporation" in certificate.issuer.rfc4514_string()
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    kind, _, signature = request.headers["authorization"].partition(" ")
    assert kind == "Signature"
    key.verify(base64.b64decode(signature), request.content, padding.PKCS1v15(), hashes.SHA256())
    payload = orjson.loads(request.content)
    assert payload["EventName"] == ACCEPTED
    assert payload["ResourceUri"].endswith(f"/v1/customers/{scene.customer}")
    await scene.control("POST", f"customers/{scene.customer}:remove")
    assert len(await scene.control("GET", "notifications")) == 1


async def test_a_notification_is_given_up_after_ten_attempts_and_may_use_its_own_header() -> None:
    receiver = _Receiver(failures=99)
    scene = await fresh_scene(program=build(webhook_transport=receiver))
    await scene.switch(webhook_retry_ms=0)
    await register(scene, SignatureTokenToMsSignatureHeader=True)
    path = "/webhooks/v1/registration/validationEvents"
    sent = [await scene.client.post(path, headers=scene.headers()) for _ in range(3)]
    assert [response.status_code for response in sent] == [200, 200, 429]
    first, _ = await settled(scene, 2)
    assert (first["status"], len(first["attempts"])) == ("given_up", 10)
    assert receiver.received[0].headers["x-ms-signature"].startswith("Signature ")
    shown = (await scene.get(f"{path}/{sent[0].json()['correlationId']}")).json()
    assert (shown["status"], len(shown["results"])) == ("completed", 10)
