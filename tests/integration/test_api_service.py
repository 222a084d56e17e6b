"""The service itself: catalogues, readiness, the framework's refusals, headers, the OpenAPI document."""

import ast
import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jsonschema_rs
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from app.db import heartbeats
from app.db.connecting import make_engine
from app.domain.event import EventType
from app.main import build
from app.runtime import Runtime
from app.services.access.identities import PartnerRole
from tests.integration.test_api_auth import OPEN
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.world import World

ROOT = Path(__file__).resolve().parents[2]


# --- catalogues -----------------------------------------------------------------------------------


async def test_the_platforms_are_the_published_table(world: World) -> None:
    partner = await world.partner(consented=False)
    response = await world.client.get("/v1/platforms", headers=partner.headers)
    table = {
        p["name"]: (p["max_devices"], set(p["identities"]), p["profiles"] != "none", p["retired"])
        for p in response.json()["items"]
    }
    exact, whole = {"tuple", "product_key"}, {"hardware_hash"}
    assert table == {
        "oem_direct": (1000, exact, False, False),
        "partner_center": (1000, exact | whole, True, False),
        "intune": (500, whole, True, False),
        "store_for_business": (1000, whole, True, True),
        "m365_business": (1000, whole, True, False),
    }
    assert [p["name"] for p in response.json()["items"] if p["automated"]] == ["partner_center"]


def codes_in_source() -> dict[str, str]:
    """Every string in `app` that is used as a code, with its place."""
    takers = {
        "Unauthenticated": 0, "Forbidden": 0, "NotFound": 0, "Conflict": 0, "TooLarge": 0, "Unprocessable": 0,
        "Busy": 0, "FieldError": 1, "Finding": 0, "HashError": 0, "Meaning": 1, "lookup": 0, "problem": 1,
        "NotSent": 0, "OutcomeUnknown": 0, "Refused": 0, "ConnectionTrouble": 0,
    }  # fmt: skip
    found: dict[str, str] = {}
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            candidates = [k.value for k in node.keywords if k.arg in ("code", "error_code", "too_long")]
            if name in takers and len(node.args) > takers[name]:
                candidates.append(node.args[takers[name]])
            for candidate in candidates:
                if isinstance(candidate, ast.Constant) and isinstance(candidate.value, str):
                    found[candidate.value] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


async def test_every_code_in_the_source_is_in_the_catalogue_that_the_api_serves(world: World) -> None:
    response = await world.client.get("/v1/error-codes")
    served = {entry["code"]: entry for entry in response.json()["items"]}
    used = codes_in_source()
    assert len(used) > 45
    assert {code: place for code, place in used.items() if code not in served} == {}
    for code, entry in served.items():
        assert re.fullmatch(r"[a-z0-9_]+", code)
        assert entry["title"]
        assert entry["remedy"].endswith(".")
    source = "\n".join(p.read_text() for p in (ROOT / "app").rglob("*.py") if p.name != "catalogue.py")
    unused = {code for code in served if f'"{code}"' not in source}
    assert unused <= {"consent_revoked"}, unused


async def test_a_role_that_microsoft_does_not_serve_gets_a_portal_connection_and_no_other_one_works(
    world: World,
) -> None:
    partner = await world.partner(consented=False)
    async with world.runtime.system_transaction() as tx:
        await tx.session.execute(
            text("UPDATE partners SET role = :role WHERE id = :id"),
            {"role": PartnerRole.INDIRECT_RESELLER.value, "id": partner.id},
        )
    body = {"name": "second", "entra_tenant_id": str(uuid4()), "default_group_tag": "x"}
    response = await world.client.post("/v1/connections", headers=partner.headers, json=body)
    assert (response.status_code, response.json()["portal"]) == (201, True), response.text
    # The connection that was created for the previous role.
    found = problem_of(await world.post_order(partner, [TUPLE]), 422, "partner_role_cannot_use_api")
    assert "indirect_reseller" in found["detail"]
    assert await world.count("orders") == 0


@pytest.mark.parametrize(
    ("platform", "code"), [("azure", "unknown_platform"), ("oem_direct", "platform_not_automated")]
)
async def test_a_connection_needs_a_platform_that_registrar_drives_or_writes_files_for(
    world: World, platform: str, code: str
) -> None:
    partner = await world.partner(consented=False)
    body = {
        "name": "second",
        "platform": platform,
        "entra_tenant_id": str(uuid4()),
        "client_id": "app",
        "client_secret": "synthetic-secret",
        "default_group_tag": "x",
    }
    problem_of(await world.client.post("/v1/connections", headers=partner.headers, json=body), 422, code)


# --- readiness --------------------------------------------------------------------------------------


async def beat(world: World) -> None:
    async with world.runtime.system_transaction() as tx:
        await heartbeats.beat(tx, "worker-1", world.clock.now())


async def test_readiness_is_about_taking_orders_and_with_all_about_the_rest(world: World) -> None:
    response = await world.client.get("/readyz")
    not_asked = {"redis": None, "worker": None}
    takes_orders = {"ready": True, "stopping": False, "database": True, "schema": "current", **not_asked}
    assert (response.status_code, response.json()) == (200, takes_orders)
    response = await world.client.get("/readyz?all")
    assert (response.status_code, response.json()) == (
        503,
        {**takes_orders, "ready": False, "redis": True, "worker": "none has been seen"},
    )
    assert (await world.client.get("/readyz?all=false")).json() == takes_orders
    assert (await world.client.head("/readyz")).status_code == 200


async def test_readiness_of_all_follows_the_workers_signs_of_life(world: World) -> None:
    await beat(world)
    response = await world.client.get("/readyz?all")
    assert (response.status_code, response.json()["ready"], response.json()["worker"]) == (200, True, "alive")
    world.clock.advance(minutes=1)
    response = await world.client.get("/readyz?all")
    assert response.status_code == 503
    assert response.json()["worker"].startswith("last seen 20")
    assert (await world.client.get("/readyz")).status_code == 200


async def test_without_redis_orders_are_taken_and_readiness_of_all_says_what_is_missing(world: World) -> None:
    await beat(world)
    async with world.another(redis_url="redis://127.0.0.1:1") as lost:
        app = build(lost.runtime.settings)
        app.state.runtime = lost.runtime
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://lost") as client:
            assert (await client.get("/readyz")).status_code == 200
            found = await client.get("/readyz?all")
    assert found.status_code == 503
    assert (found.json()["redis"], found.json()["worker"], found.json()["ready"]) == (False, "alive", False)


async def readiness_at(world: World, database_url: str, version: str) -> httpx.Response:
    engine = make_engine(database_url, poolclass=NullPool)
    try:
        async with engine.begin() as owner:
            real = (await owner.execute(text("SELECT version_num FROM alembic_version"))).scalar_one()
            await owner.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
        try:
            return await world.client.get("/readyz")
        finally:
            async with engine.begin() as owner:
                await owner.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": real})
    finally:
        await engine.dispose()


@pytest.mark.parametrize("version", ["0000", "none"])
async def test_readiness_says_that_the_schema_is_behind_and_what_to_do(
    world: World, database_url: str, version: str
) -> None:
    await beat(world)
    response = await readiness_at(world, database_url, version)
    assert response.status_code == 503
    assert "registrar migrate" in response.json()["schema"]
    assert response.json()["database"] is True
    assert (await world.client.get("/readyz")).status_code == 200


async def test_the_schema_of_a_later_release_takes_nobody_out_of_service(
    world: World, database_url: str
) -> None:
    """The situation between `registrar migrate` and the restart of the last old process."""
    await beat(world)
    response = await readiness_at(world, database_url, "9999")
    assert response.status_code == 200
    assert response.json()["schema"].startswith("at 9999, of a later release")


async def test_without_databases_readiness_says_which_and_calls_are_told_to_come_back(world: World) -> None:
    partner = await world.partner(consented=False)
    gone = world.runtime.settings.model_copy(
        update={
            "database_url": "postgresql://registrar@127.0.0.1:1/none",
            "redis_url": "redis://127.0.0.1:1",
        }
    )
    runtime = await Runtime.open(gone)
    app = build(gone)
    app.state.runtime = runtime
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://lost"
        ) as client:
            ready = await client.get("/readyz?all")
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            answer = await client.get("/v1/me", headers=partner.headers)
    finally:
        await runtime.close()
    assert ready.status_code == 503
    assert (ready.json()["database"], ready.json()["redis"], ready.json()["ready"]) == (False, False, False)
    problem_of(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_unforeseen_error_shows_nothing_but_the_correlation_id(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    partner = await world.partner(consented=False)
    monkeypatch.setattr(world.runtime, "now", lambda: "not a time: synthetic-inside")
    response = await world.client.get(
        "/v1/me", headers={**partner.headers, "X-Correlation-Id": "night-shift-1"}
    )
    found = problem_of(response, 500, "internal")
    assert found["correlation_id"] == "night-shift-1"
    assert "synthetic-inside" not in response.text
    assert response.headers["cache-control"] == "no-store"
    logged = caplog.text
    assert "unexpected_error" in logged
    assert "night-shift-1" in logged
    assert partner.key not in logged


# --- the framework's own refusals and headers ---------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/order", "/v1/orders/", "/v2/orders", "/v1/%00", "/v1//", "/.env"]
)
async def test_an_unknown_path_is_a_problem_too(world: World, path: str) -> None:
    problem_of(await world.client.get(path, headers={"Host": "elsewhere.example"}), 404, "not_found")


NOBODYS_ID = "0f0e0d0c-0b0a-4009-8807-060504030201"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/orders", "GET, HEAD, POST"),
        ("DELETE", f"/v1/orders/{NOBODYS_ID}", "GET, HEAD"),
        ("GET", f"/v1/orders/{NOBODYS_ID}:cancel", "POST"),
        ("HEAD", f"/v1/orders/{NOBODYS_ID}:retry-failed", "POST"),
        ("DELETE", f"/v1/webhook-endpoints/{NOBODYS_ID}:test", "POST"),
        ("GET", "/v1/orders/no-id:cancel", "POST"),
        ("GET", f"/v1/customers/{NOBODYS_ID}/consent:request", "POST"),
        ("TRACE", "/healthz", "GET, HEAD"),
        ("POST", f"/v1/webhook-endpoints/{NOBODYS_ID}", "DELETE, GET, HEAD, PATCH"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_answered_with_those_it_takes(
    world: World, method: str, path: str, allowed: str
) -> None:
    response = await world.client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        problem_of(response, 405, "method_not_allowed")


async def test_every_verb_of_the_document_answers_405_to_get(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    verbs = [re.sub(r"\{\w+\}", NOBODYS_ID, path) for path in document["paths"] if ":" in path]
    assert len(verbs) > 10
    for path in verbs:
        response = await world.client.get(path)
        problem_of(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_verb_that_does_not_exist_is_not_found(world: World, method: str) -> None:
    partner = await world.partner(consented=False)
    for path in (
        f"/v1/orders/{NOBODYS_ID}:close",
        "/v1/orders:cancel",
    ):
        response = await world.client.request(method, path, headers=partner.headers)
        problem_of(response, 404, "not_found")


async def test_head_is_get_without_the_body(world: World) -> None:
    partner = await world.partner(consented=False)
    for path in ("/healthz", "/readyz", "/v1/me", "/v1/orders", "/v1/unknown"):
        got = await world.client.get(path, headers=partner.headers)
        head = await world.client.head(path, headers=partner.headers)
        assert head.status_code == got.status_code
        assert head.content == b""
        assert head.headers["content-type"] == got.headers["content-type"]
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("host", ["[::1", "evil.example", "a b", "", "x" * 300])
async def test_the_host_header_decides_nothing(world: World, host: str) -> None:
    partner = await world.partner(consented=False)
    problem_of(await world.client.get("/v1/orders", headers={"Host": host}), 401, "unauthenticated")
    order = await world.post_order(partner, [TUPLE], headers={"Host": host, "Idempotency-Key": "k"})
    assert order.status_code == 201, order.text
    assert order.headers["location"] == f"/v1/orders/{order.json()['id']}"


async def test_links_to_codes_name_the_public_url_where_one_is_set(world: World) -> None:
    app = build(world.runtime.settings.model_copy(update={"public_url": "https://registrar.example/"}))
    app.state.runtime = world.runtime
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://inside") as client:
        found = (await client.get("/v1/orders")).json()
    assert found["type"] == "https://registrar.example/v1/error-codes/unauthenticated"


async def test_the_type_of_a_problem_leads_to_its_code_without_a_key(world: World) -> None:
    refused = (await world.client.get("/v1/orders")).json()
    response = await world.client.get(refused["type"])
    assert response.status_code == 200
    found = response.json()
    assert (found["code"], found["remedy"]) == (refused["code"], refused["remedy"])
    every = (await world.client.get("/v1/error-codes")).json()["items"]
    for entry in every:
        assert (await world.client.get(f"/v1/error-codes/{entry['code']}")).json() == entry
    problem_of(await world.client.get("/v1/error-codes/no_such_code"), 404, "not_found")


async def test_the_root_leads_somewhere(world: World) -> None:
    index = (await world.client.get("/")).json()
    page = await world.client.get("/", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert set(index["links"].values()) >= {"/docs", "/openapi.json", "/healthz", "/v1/error-codes"}
    for path in index["links"].values():
        assert (await world.client.get(path)).status_code in (200, 503)
        assert f'href="{path}"' in page.text


async def test_the_documentation_asks_no_foreign_host(world: World) -> None:
    response = await world.client.get("/docs")
    assert "http://" not in response.text
    assert "https://" not in re.sub(r"<d[dt]>.*?</d[dt]>", "", response.text)
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";")
    )
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert "<script>" not in response.text, "the policy would not run it"
    local = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    kinds = {}
    for address in local:
        answer = await world.client.get(f"/{address}")
        assert (answer.status_code, bool(answer.content)) == (200, True), address
        kinds[address.rpartition(".")[2]] = answer.headers["content-type"].partition(";")[0]
    assert kinds == {
        "css": "text/css", "png": "image/png", "js": "text/javascript", "json": "application/json",
    }  # fmt: skip


async def test_the_documentation_names_every_operation_without_any_script(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    page = (await world.client.get("/docs")).text
    place = page[page.index('<div id="swagger-ui">') :]
    place = place[: place.index("<script")]
    for path, item in document["paths"].items():
        for verb in item:
            assert f"{verb.upper()} {path}</code>" in place


async def test_every_answer_is_uncacheable_and_carries_a_correlation_id(world: World) -> None:
    for path in ("/healthz", "/v1/me", "/nowhere", "/openapi.json"):
        response = await world.client.get(path)
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-correlation-id"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("order-system-42", True),
        ("short", False),
        ("x" * 101, False),
        ("a b c d e f", False),
        ("<script>", False),
    ],
)
async def test_a_sane_correlation_id_of_the_caller_is_kept(world: World, given: str, kept: bool) -> None:
    response = await world.client.get("/v1/me", headers={"X-Correlation-Id": given})
    assert (response.headers["x-correlation-id"] == given) is kept
    assert response.json()["correlation_id"] == response.headers["x-correlation-id"]


# --- the document -------------------------------------------------------------------------------------


async def test_the_document_is_valid_and_complete(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    documented = {
        (method.upper(), path) for path, operations in document["paths"].items() for method in operations
    }
    routed = {
        (method, str(found.path))
        for found in iter_route_contexts(world.app.routes)
        if isinstance(found.route, APIRoute)
        for method in found.methods or ()
    }
    assert documented == routed
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.Draft202012Validator(
            {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        )
        assert schema["type"] in ("object", "string")
    for reference in references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        assert target


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for value in node.values() for found in references(value)]


async def test_the_document_says_what_every_call_may_answer(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            assert operation["tags"], (method, path)
            if path in OPEN:
                assert operation["security"] == []
                continue
            assert operation["security"] == [{"apiKey": []}]
            assert {"401", "500", "503"} <= set(responses), (method, path)
            for status, response in responses.items():
                if int(status) >= 400:
                    assert response["content"] == {
                        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                    }, (method, path, status)
                elif status not in ("204", "304"):
                    kind = "text/csv" if path.endswith(".csv") else "application/json"
                    assert response["content"][kind]["schema"], (method, path, status)
            if "{" in path:
                assert "404" in responses
            if "requestBody" in operation:
                assert {"400", "413", "415", "422"} <= set(responses)


async def test_the_document_shows_the_webhooks_with_their_headers(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    assert set(document["webhooks"]) == {type.value for type in EventType}
    for webhook in document["webhooks"].values():
        headers = {parameter["name"] for parameter in webhook["post"]["parameters"]}
        assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        assert webhook["post"]["requestBody"]["content"]["application/json"]["schema"]


async def test_an_order_whose_rows_the_database_breaks_off_is_told_as_an_outage_and_can_be_repeated(
    world: World,
) -> None:
    """Rows are loaded without SQLAlchemy: the driver's errors must count as an outage too."""
    partner = await world.partner()
    body = {"customer_id": str(partner.customer_id), "reference": "PO-1", "devices": [TUPLE]}
    headers = {**partner.headers, "Idempotency-Key": "PO-1"}
    waiting = text(
        "SELECT pid FROM pg_locks WHERE NOT granted AND relation = CAST('registrations' AS regclass)"
    )
    async with world.owner() as owner, owner.begin() as session:
        await session.execute(text("LOCK TABLE registrations IN SHARE ROW EXCLUSIVE MODE"))
        call = asyncio.create_task(world.client.post("/v1/orders", headers=headers, json=body))
        async with asyncio.timeout(45):
            while (pid := (await session.execute(waiting)).scalar()) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # Like a deadlock or an administrator's cancellation; the connection stays open.
        await session.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": pid})
        response = await call
    problem_of(response, 503, "not_ready")
    assert int(response.headers["retry-after"]) > 0
    assert await world.count("orders") == 0
    world.clock.advance(minutes=1)
    again = await world.client.post("/v1/orders", headers=headers, json=body)
    assert again.status_code == 201
    assert await world.count("registrations") == 1
