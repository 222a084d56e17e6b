"""Partner Center's abilities against the simulator: requests, answers and failures at the wire."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.identity import IdentityKind
from app.domain.registration import RegistrationState
from app.domain.upstream import (
    ConnectionTrouble,
    NoRelationship,
    OutcomeUnknown,
    Refused,
    Throttled,
    Unreachable,
    UpstreamFailure,
)
from app.platforms.base import (
    Accepted,
)
from app.platforms.partner_center import PLATFORM
from simulator.main import build
from tests.contract.scene import H, Scene, device_of, new_ids, tuples

REGISTERED, ALREADY, CONFLICT, FAILED = (
    RegistrationState.REGISTERED,
    RegistrationState.ALREADY_REGISTERED,
    RegistrationState.CONFLICT,
    RegistrationState.FAILED,
)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    opened = Scene(PLATFORM, build(), asyncio.get_running_loop())
    try:
        await opened.begin()
        yield opened
    finally:
        await opened.close()


# --- registering ----------------------------------------------------------------------------------


async def test_every_accepted_identity_registers_a_device(scene: Scene) -> None:
    devices = [device_of(kind, number) for number, kind in enumerate(IdentityKind, start=1)]
    tracking_id = await scene.submit(*devices, create=True)
    assert await scene.states(tracking_id, devices) == [REGISTERED] * 3
    assert len(await scene.serials()) == 3


async def test_a_full_batch_of_hashes_goes_in_one_call(scene: Scene) -> None:
    devices = [device_of(H, number) for number in range(1, 1001)]
    tracking_id = await scene.submit(*devices, create=True)
    assert await scene.states(tracking_id, devices) == [REGISTERED] * 1000
    assert [call["device_count"] for call in await scene.calls("create")] == [1000]


async def test_devices_are_added_to_a_group_tag_that_exists(scene: Scene) -> None:
    await scene.outcome(await scene.submit(*tuples(2), create=True))
    await scene.outcome(await scene.submit(*tuples(2, first=3), create=False))
    assert sorted(map(str, await scene.serials())) == [f"SN-{n:05d}" for n in (1, 2, 3, 4)]


async def test_what_the_customer_or_another_one_has_already_is_told_per_device(scene: Scene) -> None:
    devices = tuples(3)
    await scene.outcome(await scene.submit(devices[0], create=True))
    await scene.outcome(await scene.submit(devices[1], create=True, customer=scene.other), scene.other)
    tracking_id = await scene.submit(*devices, create=False)
    assert await scene.states(tracking_id, devices) == [ALREADY, CONFLICT, REGISTERED]


@pytest.mark.parametrize("style", ["omit", "null", "empty"])
@pytest.mark.parametrize("hides", [True, False])
async def test_success_is_told_from_failure_however_it_is_written(
    scene: Scene, style: str, hides: bool
) -> None:
    await scene.switch(success_error_fields=style, batch_status_hides_errors=hides)
    await scene.arm({"operation": "create", "kind": "device_error", "positions": [1], "code": "StorageError"})
    devices = tuples(3)
    tracking_id = await scene.submit(*devices, create=True)
    assert await scene.states(tracking_id, devices) == [REGISTERED, FAILED, REGISTERED]


@pytest.mark.parametrize("style", ["in-progress", "enum"])
@pytest.mark.parametrize("shown", [True, False])
async def test_a_job_under_way_has_no_finished_device(scene: Scene, style: str, shown: bool) -> None:
    await scene.switch(
        device_status_style=style,
        device_status_while_running=shown,
        processing_min_ms=60_000,
        processing_max_ms=60_000,
    )
    devices = tuples(2)
    tracking_id = await scene.submit(*devices, create=True)
    assert tracking_id is not None
    for seconds in (0, 30):
        await scene.control("clock", {"advance_s": seconds})
        progress = await scene.registers.poll(scene.connection, scene.customer, Accepted(tracking_id))
        assert not progress.finished
        assert [row.done for row in progress.rows] == ([False, False] if shown else [])
    await scene.control("clock", {"advance_s": 60})
    assert await scene.states(tracking_id, devices) == [REGISTERED] * 2


@pytest.mark.parametrize("style", ["header", "absolute", "body"])
async def test_the_job_is_found_wherever_it_is_named(scene: Scene, style: str) -> None:
    await scene.switch(location_style=style)
    devices = tuples(1)
    assert await scene.states(await scene.submit(*devices, create=True), devices) == [REGISTERED]


async def test_a_job_that_is_not_named_is_accepted_without_one(scene: Scene) -> None:
    await scene.switch(location_style="none")
    assert await scene.submit(*tuples(1), create=True) is None
    assert await scene.serials() == ["SN-00001"]


@pytest.mark.parametrize("tag", ["Sales EU", "a/b", "50% off", "Zürich?#", "..", "v1.2+x"])
async def test_any_group_tag_comes_back_as_it_was_sent(scene: Scene, tag: str) -> None:
    await scene.outcome(await scene.submit(*tuples(1), create=True, tag=tag))
    await scene.outcome(await scene.submit(*tuples(1, first=2), create=False, tag=tag))
    assert await scene.tags.find_group_tag(scene.connection, scene.customer, tag) == tag
    assert await scene.serials(tag) == ["SN-00001", "SN-00002"]


async def test_a_group_tag_is_found_in_the_platforms_own_spelling(scene: Scene) -> None:
    find = scene.tags.find_group_tag
    assert await find(scene.connection, scene.customer, "Sales") is None
    await scene.submit(*tuples(1), create=True, tag="SALES")
    assert await find(scene.connection, scene.customer, "Sales") == "SALES"
    assert await find(scene.connection, scene.other, "Sales") is None
    await scene.switch(batch_ids_ignore_case=False)
    await scene.submit(*tuples(1, first=2), create=True, tag="Sales")
    assert await find(scene.connection, scene.customer, "Sales") == "Sales"


async def test_a_listing_reads_all_pages_but_no_more_than_allowed(scene: Scene) -> None:
    await scene.outcome(await scene.submit(*tuples(250), create=True))
    assert len(set(await scene.serials())) == 250
    assert len(await scene.serials(max_pages=2)) == 200


async def test_a_group_tag_nobody_made_holds_nothing(scene: Scene) -> None:
    assert await scene.serials("Nowhere") == []


# --- failures -------------------------------------------------------------------------------------


async def test_the_same_call_again_is_the_same_job(scene: Scene) -> None:
    ids, devices = new_ids(), tuples(2)
    first = await scene.submit(*devices, create=True, ids=ids)
    assert await scene.submit(*devices, create=True, ids=ids) == first
    assert [call["replayed"] for call in await scene.calls("create")] == [False, True]


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("kind", ["drop", "status"])
async def test_an_answer_that_is_lost_leaves_the_outcome_unknown_and_the_same_call_settles_it(
    scene: Scene, phase: str, kind: str
) -> None:
    await scene.arm({"operation": "create", "kind": kind, "phase": phase, "status": 503})
    ids, devices = new_ids(), tuples(2)
    with pytest.raises(OutcomeUnknown) as raised:
        await scene.submit(*devices, create=True, ids=ids)
    assert raised.value.answered == (kind == "status")
    tracking_id = await scene.submit(*devices, create=True, ids=ids)
    assert await scene.states(tracking_id, devices) == [REGISTERED] * 2
    assert {call["request_id"] for call in await scene.calls("create")} == {str(ids.request_id)}


async def test_a_create_of_an_existing_tag_without_memory_of_the_first_is_refused_as_a_conflict(
    scene: Scene,
) -> None:
    await scene.switch(request_id_dedup=False)
    ids, devices = new_ids(), tuples(1)
    await scene.submit(*devices, create=True, ids=ids)
    with pytest.raises(Refused) as raised:
        await scene.submit(*devices, create=True, ids=ids)
    assert raised.value.said.status == 409


async def test_throttling_says_how_long(scene: Scene) -> None:
    await scene.arm({"operation": "create", "kind": "throttle", "retry_after": 57})
    with pytest.raises(Throttled) as raised:
        await scene.submit(*tuples(1), create=True)
    assert raised.value.retry_after == timedelta(seconds=57)
    assert await scene.calls("create")
    assert await scene.serials() == []


@pytest.mark.parametrize("style", ["forbidden", "not_found"])
async def test_a_customer_who_has_not_agreed_is_told_apart_from_everything_else(
    scene: Scene, style: str
) -> None:
    await scene.switch(unknown_customer_style=style)
    await scene.submit(*tuples(1), create=True)
    await scene.control(f"customers/{scene.customer}:remove")
    for attempt in (
        scene.tags.find_group_tag(scene.connection, scene.customer, "Sales"),
        scene.submit(*tuples(1), create=True, tag="New"),
        scene.submit(*tuples(1), create=False),
        scene.registers.poll(scene.connection, scene.customer, Accepted(str(uuid4()))),
        scene.serials(),
    ):
        with pytest.raises(NoRelationship):
            await attempt
    assert await scene.tags.find_group_tag(scene.connection, scene.other, "Sales") is None


async def test_a_job_nobody_knows_is_refused(scene: Scene) -> None:
    with pytest.raises(Refused) as raised:
        await scene.registers.poll(scene.connection, scene.customer, Accepted(str(uuid4())))
    assert type(raised.value) is Refused


async def test_more_devices_than_the_platform_takes_are_refused_whole(scene: Scene) -> None:
    await scene.switch(max_devices_per_call=2)
    with pytest.raises(Refused) as raised:
        await scene.submit(*tuples(3), create=True)
    assert raised.value.code == "batch_refused"
    assert await scene.tags.find_group_tag(scene.connection, scene.customer, "Sales") is None


# --- tokens ---------------------------------------------------------------------------------------


async def test_a_token_that_has_ended_is_replaced_without_anyone_noticing(scene: Scene) -> None:
    await scene.checks.check(scene.connection)
    await scene.control(f"partners/{scene.partner['tenant_id']}:expire")
    ids = new_ids()
    await scene.submit(*tuples(1), create=True, ids=ids)
    calls = await scene.calls("create")
    assert [call["status"] for call in calls] == [401, 202]
    assert {call["request_id"] for call in calls} == {str(ids.request_id)}


async def test_refresh_tokens_that_are_good_for_one_redemption_are_followed(scene: Scene) -> None:
    await scene.switch(refresh_token_reusable=False)
    for _ in range(3):
        await scene.checks.check(scene.connection)
        scene.connection.forget_tokens()
    assert scene.connection.refresh_token != scene.partner["refresh_token"]


async def broken(scene: Scene) -> str:
    """The code of the trouble that a check of the connection finds."""
    scene.connection.forget_tokens()
    with pytest.raises(ConnectionTrouble) as raised:
        await scene.checks.check(scene.connection)
    assert scene.connection.client_secret not in str(raised.value)
    return raised.value.code


async def test_credentials_that_are_refused_break_the_connection(scene: Scene) -> None:
    await scene.control(f"partners/{scene.partner['tenant_id']}:revoke")
    assert await broken(scene) == "sign_in_revoked"
    scene.connection.client_secret = "another-secret-entirely"
    assert await broken(scene) == "credential_refused"
    scene.connection.entra_tenant_id = uuid4()
    assert await broken(scene) == "tenant_not_found"


@pytest.mark.parametrize("style", ["challenge", "code"])
async def test_a_sign_in_without_mfa_is_named_as_that(scene: Scene, style: str) -> None:
    await scene.switch(mfa_failure_style=style)
    await scene.control(
        "partners",
        {name: scene.partner[name] for name in ("tenant_id", "client_id", "client_secret", "refresh_token")}
        | {"grants": {"mfa": False}},
    )
    assert await broken(scene) == "mfa_required"


async def test_mfa_asked_for_at_the_login_is_named_as_that(scene: Scene) -> None:
    await scene.arm({"operation": "token", "kind": "entra", "aadsts": 50076})
    assert await broken(scene) == "mfa_required"
    await scene.checks.check(scene.connection)


@pytest.mark.parametrize("fault", [{"kind": "drop"}, {"kind": "status", "status": 503}])
@pytest.mark.parametrize("operation", ["token", "openid"])
async def test_a_login_out_of_order_sends_nothing(
    scene: Scene, operation: str, fault: dict[str, Any]
) -> None:
    await scene.arm({"operation": operation, **fault})
    with pytest.raises(Unreachable):
        await scene.submit(*tuples(1), create=True)
    assert await scene.calls("create") == []
    assert await scene.submit(*tuples(1), create=True)


async def test_without_a_refresh_token_everything_works_but_creating_and_inviting(scene: Scene) -> None:
    await scene.outcome(await scene.submit(*tuples(1), create=True))
    scene.connection.refresh_token = None
    devices = tuples(1, first=2)
    assert len(await scene.checks.check(scene.connection)) == 2
    assert await scene.states(await scene.submit(*devices, create=False), devices) == [REGISTERED]
    assert len(await scene.serials()) == 2
    for attempt in (
        scene.submit(*devices, create=True, tag="New"),
        scene.consent.consent_link(scene.connection),
    ):
        with pytest.raises(ConnectionTrouble) as raised:
            await attempt
        assert raised.value.code == "credential_missing"


# --- customers and consent ------------------------------------------------------------------------


async def customers(scene: Scene) -> set[UUID]:
    return {customer.tenant_id async for customer in scene.consent.customers(scene.connection)}


async def test_the_customers_list_is_the_evidence_of_consent(scene: Scene) -> None:
    await scene.control("customers", {"relationship": "advisor"})
    asked = UUID((await scene.control("customers", {"relationship": "none"}))["tenant_id"])
    assert await customers(scene) == {scene.customer, scene.other}
    await scene.control(f"customers/{asked}:accept")
    await scene.control(f"customers/{scene.other}:remove")
    assert await customers(scene) == {scene.customer, asked}


async def test_the_customers_list_is_read_to_its_end(scene: Scene) -> None:
    await scene.control(
        "seed",
        {
            "customers": 1_100,
            "partner": {name: scene.partner[name] for name in ("tenant_id", "client_id", "client_secret")},
        },
    )
    assert len(await customers(scene)) == 1_102
    assert len(await scene.calls("customers")) == 3


async def test_a_customers_list_that_breaks_off_is_a_failure_and_no_shorter_list(scene: Scene) -> None:
    await scene.control(
        "seed",
        {
            "customers": 600,
            "partner": {name: scene.partner[name] for name in ("tenant_id", "client_id", "client_secret")},
        },
    )
    await scene.arm({"operation": "customers", "kind": "status", "skip": 1})
    with pytest.raises(UpstreamFailure):
        await customers(scene)


async def test_the_consent_link_is_one_a_customer_can_open(scene: Scene) -> None:
    link = await scene.consent.consent_link(scene.connection)
    assert link.startswith("https://")
    assert str(scene.connection.entra_tenant_id) in link
