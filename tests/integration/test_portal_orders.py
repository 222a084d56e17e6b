"""Portal mode from connection to settled order: indirect resellers, and uploads by hand elsewhere."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.domain.scope import Scope
from app.services.access import identities
from app.services.access.identities import PartnerRole
from app.services.connections import customer_readings
from app.services.consents import consents
from app.services.operations import sweep
from app.services.registering import batches
from tests.integration.test_api_bad_input import problem_of
from tests.support.import_scene import work_imports
from tests.support.portals import PortalPartner, hash_of, portal_partner, tuple_of
from tests.support.receiver import open_receiver
from tests.support.world import World, tuples

HEADER = b"Device serial number,Windows product ID,Hardware hash,Manufacturer name,Device model\r\n"


async def fetch(partner: PortalPartner, file: Any) -> httpx.Response:
    path = str(file["href"]).removeprefix("/v1")
    return await partner.call("GET", path)


# --- the whole way --------------------------------------------------------------------------------


async def test_an_indirect_reseller_registers_by_hand_from_the_held_order_to_the_last_webhook(
    world: World,
) -> None:
    partner = await portal_partner(world, consented=False)
    async with open_receiver(world) as receiver:
        await partner.ok("POST", "/webhook-endpoints", {"url": receiver.url()})
        order = await partner.order([tuple_of(1), {"product_key": "9999000000017"}, hash_of(3)])
        assert (order["state"], order["portal"]) == ("held", True)
        (held,) = await partner.files(order)
        assert (held["state"], held["href"]) == ("held", None)
        assert "consent:record" in held["steps"][0]

        shown = await partner.consent()
        assert (shown["state"], shown["evidence"], shown["lets_pass"]) == ("granted", "manual", True)
        newest = shown["history"][0]
        assert newest["note"] == "Seen in the customers list of the portal."
        assert newest["made_by"] == str(partner.caller.key_id)
        (file,) = await partner.files(order)
        assert (file["name"], file["rows"], file["state"]) == ("Standard - P-1.csv", 3, "queued")
        assert any("Standard" in step and "group tag" in step for step in file["steps"])

        response = await fetch(partner, file)
        assert response.headers["content-type"].startswith("text/csv")
        assert 'filename="Standard - P-1.csv"' in response.headers["content-disposition"]
        lines = response.content.removeprefix(HEADER).split(b"\r\n")
        assert lines[0] == b"SYN00001,,,Contoso,Contoso Book 14"
        assert lines[1] == b",9999000000017,,,"
        assert lines[2].startswith(b"SYN00003,,T0")
        assert lines[3:] == [b""]

        marked = await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
        assert (marked["state"], marked["counts"]["processing"]) == ("submitted", 3)
        said = await partner.record(file["batch_id"], outcome="registered")
        assert said.status_code == 200, said.text
        assert (said.json()["recorded"], said.json()["open"]) == (3, 0)
        assert said.json()["batch"]["state"] == "settled"

        assert (await partner.view(order))["state"] == "completed"
        assert await world.count("device_hashes") == 0
        await world.deliver()
        types = [message.type for message in receiver.messages]
        assert sorted(types) == sorted(
            ["order.accepted", "order.held", "consent.granted", "registration.settled", "order.completed"]
        )
        settled = next(m for m in receiver.messages if m.type == "registration.settled")
        assert [row["state"] for row in settled.data["registrations"]] == ["registered"] * 3

    detail = await partner.ok("GET", f"/batches/{file['batch_id']}")
    attempts = {attempt["kind"]: attempt for attempt in detail["attempts"]}
    assert set(attempts) == {"upload", "outcome"}
    assert {attempt["made_by"] for attempt in attempts.values()} == {str(partner.caller.key_id)}
    assert attempts["outcome"]["said"] == "registered: 3"
    assert (await world.ledger())["calls"] == []


async def test_an_outcome_recorded_without_an_upload_names_the_person_for_both(world: World) -> None:
    partner = await portal_partner(world)
    (file,) = await partner.files(await partner.order([tuple_of(1)]))
    rows = [{"row": 1, "outcome": "registered"}]
    said = await partner.record(file["batch_id"], rows=rows)
    assert (said.status_code, said.json()["recorded"]) == (200, 1), said.text
    detail = await partner.ok("GET", f"/batches/{file['batch_id']}")
    made = {attempt["kind"]: attempt["made_by"] for attempt in detail["attempts"]}
    assert made == dict.fromkeys(("upload", "outcome"), str(partner.caller.key_id))


@pytest.mark.parametrize(("platform", "limit"), [("intune", 500), ("m365_business", 1000)])
async def test_hand_uploads_are_cut_at_the_platforms_limit_and_by_group_tag(
    world: World, platform: str, limit: int
) -> None:
    partner = await portal_partner(world, platform, PartnerRole.DIRECT_BILL)
    devices = [hash_of(n) for n in range(1, limit + 2)] + [hash_of(9999, group_tag="Kiosk")]
    order = await partner.order(devices)
    files = await partner.files(order)
    assert [(file["name"], file["rows"]) for file in files] == [
        ("Standard - P-1.csv", limit),
        ("Standard - P-1 (2).csv", 1),
        ("Kiosk - P-1.csv", 1),
    ]
    first = await fetch(partner, files[0])
    assert first.content.count(b"\r\n") == limit + 1
    assert first.content.startswith(b"Device Serial Number,Windows Product ID,Hardware Hash")


async def test_only_a_hash_is_taken_where_the_portal_takes_nothing_else(world: World) -> None:
    partner = await portal_partner(world, "intune")
    order = await partner.order([tuple_of(1), hash_of(2)])
    assert [row["error_code"] for row in await partner.rows(order)] == ["identity_not_accepted", None]


async def test_what_the_file_can_not_carry_is_refused_for_that_row_with_the_alternative(world: World) -> None:
    partner = await portal_partner(world)
    devices = [tuple_of(1), tuple_of(2, model="PC (Q35, 2009)"), tuple_of(3, model="Büchlein")]
    order = await partner.order(devices)
    rows = await partner.rows(order)
    assert [row["error_code"] for row in rows] == [None, "comma_in_value", "value_not_in_format"]
    assert all("PKID or hardware hash" in row["remedy"] for row in rows[1:])
    (file,) = await partner.files(order)
    assert (await fetch(partner, file)).content == HEADER + b"SYN00001,,,Contoso,Contoso Book 14\r\n"


async def test_where_registrar_calls_the_api_a_comma_is_no_objection(world: World) -> None:
    partner = await world.partner()
    response = await world.post_order(partner, [tuple_of(1, model="PC (Q35, 2009)")])
    assert response.json()["counts"]["invalid"] == 0
    assert response.json()["portal"] is False


# --- the file -------------------------------------------------------------------------------------


async def test_fetching_a_file_changes_nothing_and_gives_the_same_bytes(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([hash_of(n) for n in range(1, 40)])
    (file,) = await partner.files(order)
    before = await world.dump()
    first, second = await fetch(partner, file), await fetch(partner, file)
    without_last_use = [
        line for line in before.splitlines() if "rk_" not in line and "orders:write" not in line
    ]
    after = [line for line in (await world.dump()).splitlines() if "orders:write" not in line]
    assert first.content == second.content
    assert set(without_last_use) == set(after)
    await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    assert (await fetch(partner, file)).content == first.content


async def test_a_file_whose_hashes_are_deleted_is_not_made_again(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([hash_of(1), hash_of(2)])
    (file,) = await partner.files(order)
    await partner.record(file["batch_id"], rows=[{"row": 1, "outcome": "registered"}])
    found = problem_of(await fetch(partner, file), 409, "invalid_state")
    assert "hashes are deleted" in found["detail"]


async def test_a_file_with_hashes_is_not_for_keys_that_may_only_read(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([hash_of(1)])
    (file,) = await partner.files(order)
    key = await identities.create_key(world.runtime, partner, name="dashboard", scopes=[Scope.ORDERS_READ])
    partner.key = key.secret
    assert (await partner.files(order))[0]["name"] == "Standard - P-1.csv"
    problem_of(await fetch(partner, file), 403, "scope_missing")


async def test_a_group_tag_can_not_break_out_of_the_answers_header(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)], group_tag='a"; filename="b.exe é/../x')
    (file,) = await partner.files(order)
    disposition = (await fetch(partner, file)).headers["content-disposition"]
    assert disposition.startswith('attachment; filename="a__ filename__b.exe _')
    assert disposition.count('"') == 2
    assert "/" not in file["name"]


async def test_files_are_listed_page_by_page_with_their_own_names(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(n, group_tag=("a/b", "a_b", "A_B!")[n % 3]) for n in range(3)])
    names: list[str] = []
    token = None
    for _ in range(3):
        page = await partner.ok(
            "GET",
            f"/orders/{order['id']}/portal-files",
            params={"page_size": 1} | ({"page_token": token} if token else {}),
        )
        names += [file["name"] for file in page["items"]]
        token = page["next_page_token"]
    assert token is None
    assert names == ["a_b - P-1.csv", "a_b - P-1 (2).csv", "A_B_ - P-1.csv"]


async def test_a_cancelled_order_has_no_file_to_upload(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)])
    (file,) = await partner.files(order)
    cancelled = await partner.ok("POST", f"/orders/{order['id']}:cancel")
    assert cancelled["state"] == "cancelled"
    problem_of(await fetch(partner, file), 409, "invalid_state")
    response = await partner.call("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    problem_of(response, 409, "invalid_state")
    assert (await partner.files(order))[0]["href"] is None


# --- who may, and for what ------------------------------------------------------------------------


async def test_other_partners_portal_orders_look_unknown(world: World) -> None:
    mine, theirs = await portal_partner(world), await portal_partner(world)
    order = await theirs.order([tuple_of(1)])
    (file,) = await theirs.files(order)
    batch = f"/batches/{file['batch_id']}"
    for method, path, body in (
        ("GET", f"/orders/{order['id']}/portal-files", None),
        ("GET", f"{batch}/portal-file.csv", None),
        ("POST", f"{batch}:mark-uploaded", None),
        ("POST", f"{batch}:record-outcome", {"outcome": "registered"}),
    ):
        problem_of(await mine.call(method, path, body), 404, "not_found")
    problem_of(
        await mine.result(file["batch_id"], "Serial number,Status\r\nSYN00001,Success\r\n"), 404, "not_found"
    )
    path = f"/customers/{theirs.customer_id}/consent:record"
    problem_of(await mine.call("POST", path, {"state": "revoked", "note": "x"}), 404, "unknown_customer")
    assert (await theirs.files(order))[0]["state"] == "queued"


async def test_what_registrar_sends_by_itself_has_no_files_and_nothing_to_record(world: World) -> None:
    partner = await world.partner()
    order = await world.order(partner, tuples(1))
    order_id = order.view.record.id
    (batch,) = await world.batches(order_id)
    call = world.client.request
    for method, path, body in (
        ("GET", f"/v1/orders/{order_id}/portal-files", None),
        ("GET", f"/v1/batches/{batch['id']}/portal-file.csv", None),
        ("POST", f"/v1/batches/{batch['id']}:mark-uploaded", None),
        ("POST", f"/v1/batches/{batch['id']}:record-outcome", {"outcome": "registered"}),
    ):
        problem_of(await call(method, path, headers=partner.headers, json=body), 422, "not_a_portal_order")
    path = f"/v1/customers/{partner.customer_id}/consent:record"
    body = {"state": "granted", "note": "they said so"}
    response = await world.client.post(path, headers=partner.headers, json=body)
    problem_of(response, 422, "consent_is_looked_up")
    await world.work()
    assert (await world.batches(order_id))[0]["state"] == "settled"


@pytest.mark.parametrize(
    ("platform", "role", "code"),
    [
        ("partner_center", PartnerRole.INDIRECT_RESELLER, "partner_role_cannot_use_api"),
        ("intune", PartnerRole.DIRECT_BILL, "platform_not_automated"),
    ],
)
async def test_nothing_is_ever_asked_of_microsoft_for_a_portal_connection(
    world: World, platform: str, role: PartnerRole, code: str
) -> None:
    partner = await portal_partner(world, platform, role)
    problem_of(await partner.call("POST", f"/connections/{partner.connection_id}:check"), 422, code)
    for verb in ("request", "recheck"):
        path = f"/customers/{partner.customer_id}/consent:{verb}"
        problem_of(await partner.call("POST", path), 422, code)
    world.clock.advance(days=1)
    assert (await sweep.sweep(world.runtime))["connections"] == 0
    assert not await customer_readings.read_due(world.runtime)
    assert (await world.ledger())["calls"] == []


async def test_an_api_connection_still_needs_its_credentials(world: World) -> None:
    partner = await world.partner(consented=False)
    body = {"name": "second", "entra_tenant_id": str(uuid4()), "default_group_tag": "x"}
    response = await world.client.post("/v1/connections", headers=partner.headers, json=body)
    found = problem_of(response, 422, "validation_failed")
    assert [error["pointer"] for error in found["errors"]] == ["/client_id", "/client_secret"]


async def test_the_database_refuses_an_api_connection_without_credentials(world: World) -> None:
    partner = await portal_partner(world)
    with pytest.raises(Exception, match="ck_connections_credentials_given"):
        await world.select(
            "UPDATE connections SET client_id = 'app' WHERE id = :id RETURNING id", id=partner.connection_id
        )


async def test_a_platform_says_whether_it_has_a_portal(world: World) -> None:
    partner = await portal_partner(world)
    platforms = (await partner.ok("GET", "/platforms"))["items"]
    assert {p["name"] for p in platforms if p["portal"]} == {"partner_center", "intune", "m365_business"}


# --- consent by hand ------------------------------------------------------------------------------


async def test_consent_by_hand_is_renewed_ages_and_ends(world: World) -> None:
    partner = await portal_partner(world)
    first = await partner.ok("GET", f"/customers/{partner.customer_id}/consent")
    world.clock.advance(days=world.runtime.settings.consent_valid_days - 1)
    renewed = await partner.consent()
    assert renewed["since"] == first["since"]
    assert renewed["proved_at"] > first["proved_at"]
    assert [change["to_state"] for change in renewed["history"]] == ["granted", "granted"]
    world.clock.advance(days=2)
    assert await consents.age(world.runtime) == 0
    world.clock.advance(days=world.runtime.settings.consent_valid_days)
    assert await consents.age(world.runtime) == 1
    stale = await partner.ok("GET", f"/customers/{partner.customer_id}/consent")
    assert (stale["state"], stale["lets_pass"]) == ("stale", True)
    assert (await partner.consent())["state"] == "granted"
    assert (await partner.consent("revoked"))["state"] == "revoked"
    assert (await partner.consent("revoked"))["state"] == "revoked"


async def test_consent_that_was_never_given_can_not_be_ended(world: World) -> None:
    partner = await portal_partner(world, consented=False)
    path = f"/customers/{partner.customer_id}/consent:record"
    response = await partner.call("POST", path, {"state": "revoked", "note": "n"})
    problem_of(response, 409, "invalid_state")
    problem_of(await partner.call("POST", path, {"state": "granted"}), 422, "validation_failed")


async def test_a_revoked_consent_holds_what_is_not_uploaded_and_nothing_else(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1, group_tag="a"), tuple_of(2, group_tag="b")])
    first, second = await partner.files(order)
    await partner.ok("POST", f"/batches/{first['batch_id']}:mark-uploaded")
    await partner.consent("revoked")
    assert [file["state"] for file in await partner.files(order)] == ["submitted", "held"]
    problem_of(await fetch(partner, second), 409, "invalid_state")
    response = await partner.call("POST", f"/batches/{second['batch_id']}:mark-uploaded")
    assert "consent" in problem_of(response, 409, "invalid_state")["detail"]
    assert (await partner.record(first["batch_id"], outcome="registered")).status_code == 200
    await partner.consent()
    await partner.ok("POST", f"/batches/{second['batch_id']}:mark-uploaded")
    assert (await partner.record(second["batch_id"], outcome="registered")).status_code == 200
    assert (await partner.view(order))["state"] == "completed"


# --- no worker ------------------------------------------------------------------------------------


async def test_no_worker_ever_takes_a_portal_batch_whatever_its_state_and_however_long_it_waits(
    world: World,
) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(n, group_tag=f"tag {n}") for n in range(4)])
    files = await partner.files(order)
    await partner.ok("POST", f"/batches/{files[0]['batch_id']}:mark-uploaded")
    await partner.record(files[1]["batch_id"], outcome="failed")
    api = await world.partner()
    await world.order(api, tuples(1))
    await world.work()
    for state in ("queued", "submitting", "submitted", "unknown"):
        await world.select(
            "UPDATE batches SET state = :state, due_at = :due WHERE order_id = :id RETURNING id",
            state=state,
            due=world.clock.now(),
            id=UUID(order["id"]),
        )
        world.clock.advance(days=40)
        assert await batches.advance_next(world.runtime) is None
        found = await sweep.sweep(world.runtime)
        assert (found["batches"], found["stuck"]) == (0, 0)
    stored = await world.batches(UUID(order["id"]))
    assert {row["owner"] for row in stored} == {None}
    assert [
        row["made_by"]
        for row in await world.select("SELECT made_by FROM batch_attempts WHERE kind = 'create'")
    ] == [None]


async def test_limits_show_what_waits_for_people(world: World) -> None:
    partner = await portal_partner(world)
    await partner.order([tuple_of(1)])
    limits = await partner.ok("GET", "/limits")
    assert limits["connections"][0]["connection_id"] == str(partner.connection_id)


@pytest.mark.parametrize(
    ("platform", "role"),
    [("partner_center", PartnerRole.INDIRECT_RESELLER), ("intune", PartnerRole.DIRECT_BILL)],
)
async def test_credentials_that_nothing_would_be_called_with_are_refused_and_not_dropped(
    world: World, platform: str, role: PartnerRole
) -> None:
    partner = await portal_partner(world, platform, role)
    body = {
        "name": "second",
        "platform": platform,
        "entra_tenant_id": str(uuid4()),
        "default_group_tag": "x",
        "client_id": "app",
        "client_secret": "synthetic-secret",
        "refresh_token": "synthetic-token",
    }
    found = problem_of(await partner.call("POST", "/connections", body), 422, "validation_failed")
    pointers = [error["pointer"] for error in found["errors"]]
    assert pointers == ["/client_id", "/client_secret", "/refresh_token"]
    assert "synthetic" not in str(found)
    assert [row["name"] for row in (await partner.ok("GET", "/connections"))["items"]] == ["portal"]


async def test_a_portal_connection_takes_no_credentials_later_either(world: World) -> None:
    partner = await portal_partner(world)
    for name in ("client_id", "client_secret", "refresh_token"):
        response = await partner.call(
            "PATCH", f"/connections/{partner.connection_id}", json={name: "synthetic"}
        )
        found = problem_of(response, 422, "validation_failed")
        assert [error["pointer"] for error in found["errors"]] == [f"/{name}"]
    shown = (await partner.call("GET", f"/connections/{partner.connection_id}")).json()
    assert (shown["portal"], shown["client_id"]) == (True, None)


async def test_an_import_of_an_indirect_reseller_is_judged_like_its_orders(
    world: World,
) -> None:
    partner = await portal_partner(world)
    lines = (
        "Device Serial Number,Manufacturer name,Device model\r\n"
        'SYN00001,Contoso,Contoso Book 14\r\nSYN00002,"Contoso, Ltd.",Contoso Book 14\r\n'
    )
    made = await world.client.post(
        "/v1/imports",
        content=lines.encode(),
        params={"customer_id": str(partner.customer_id)},
        headers=partner.headers,
    )
    assert made.status_code == 201, made.text
    path = f"/imports/{made.json()['id']}"
    await work_imports(world)
    found = await partner.ok("GET", path)
    assert found["counts"] == {"total": 2, "valid": 1, "warning": 0, "invalid": 1}
    assert [problem["code"] for problem in found["preview"]["problems"]] == ["comma_in_value"]
    await partner.ok("POST", f"{path}:commit", {})
    await work_imports(world)
    [order] = (await partner.ok("GET", path))["orders"]
    [file] = (await partner.ok("GET", f"/orders/{order['order_id']}/portal-files"))["items"]
    assert (await fetch(partner, file)).content == HEADER + b"SYN00001,,,Contoso,Contoso Book 14\r\n"
