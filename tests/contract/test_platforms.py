"""One contract for all platforms: sane capabilities for all, a driver's promises for those driven by API.

The drivers are held to their promises against the simulator, in this process and at the wire: tokens
come from its token endpoint through the real token service, calls go through the real HTTP client.
"""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
import pytest

from app.domain import hardware_hash
from app.domain.batch import OutgoingDevice, match_answers
from app.domain.identity import IdentityKind
from app.domain.portal_file import FileFormat
from app.domain.registration import RegistrationState, interpret
from app.domain.upstream import (
    ConnectionTrouble,
    NoRelationship,
    OutcomeUnknown,
    Refused,
    Throttled,
    Unreachable,
    UpstreamFailure,
)
from app.intake.rows import read
from app.kernel.settings import Settings
from app.microsoft.http import Microsoft
from app.microsoft.tokens import Tokens
from app.platforms.base import (
    Accepted,
    CallIds,
    Channel,
    Checks,
    ConsentEvidence,
    GroupTags,
    Lists,
    Platform,
    Profiles,
    Progress,
    Registers,
    Submission,
    TokenFor,
    TokenKind,
    discover,
)
from simulator.main import build
from simulator.samples import hardware_hash as sample_hash
from tests.support.gates import OpenGate

PLATFORMS = discover()
DRIVEN = [platform for platform in PLATFORMS.values() if platform.automated]
ROLES = {"direct_bill", "indirect_provider", "indirect_reseller", "distributor", "oem"}

every_platform = pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda platform: platform.name)

T, K, H = IdentityKind.TUPLE, IdentityKind.PRODUCT_KEY, IdentityKind.HARDWARE_HASH


# --- capabilities ---------------------------------------------------------------------------------


@every_platform
def test_a_platform_describes_itself(platform: Platform) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]{2,39}", platform.name)
    assert platform.title
    assert platform.note.endswith(".")
    assert 1 <= platform.capabilities.max_devices <= 1000
    assert platform.capabilities.identities
    assert platform.barred_roles <= ROLES


@every_platform
def test_a_platform_is_driven_by_api_or_its_orders_are_files(platform: Platform) -> None:
    assert platform.automated == (platform.capabilities.channel is Channel.API)
    assert not (platform.automated and platform.capabilities.retired)
    assert platform.automated or not platform.barred_roles
    # A role that is barred from the API has the portal, and what is retired has neither.
    assert platform.file is not None or not platform.barred_roles
    assert not (platform.file is not None and platform.capabilities.retired)
    for role in ROLES:
        assert platform.is_driven_for(role) == (platform.automated and role not in platform.barred_roles)


def test_the_table_of_platforms_is_the_published_one() -> None:
    table = {
        name: (
            platform.capabilities.max_devices,
            set(platform.capabilities.identities),
            platform.capabilities.profiles,
            platform.capabilities.retired,
        )
        for name, platform in PLATFORMS.items()
    }
    assert table == {
        "oem_direct": (1000, {T, K}, Profiles.NONE, False),
        "partner_center": (1000, {T, K, H}, Profiles.RETIRING, False),
        "intune": (500, {H}, Profiles.RECOMMENDED, False),
        "store_for_business": (1000, {H}, Profiles.RETIRING, True),
        "m365_business": (1000, {H}, Profiles.LIMITED, False),
    }


# --- portals --------------------------------------------------------------------------------------

every_portal = pytest.mark.parametrize(
    "platform",
    [platform for platform in PLATFORMS.values() if platform.file is not None],
    ids=lambda platform: platform.name,
)
FIELDS = {"serial_number", "product_key", "hardware_hash", "manufacturer", "model", "group_tag"}


def file_of(platform: Platform) -> FileFormat:
    assert platform.file is not None
    return platform.file


@every_portal
def test_a_portals_columns_carry_every_identity_that_the_platform_takes(platform: Platform) -> None:
    format = file_of(platform)
    fields = [field for _, field in format.columns]
    assert len(set(fields)) == len(fields)
    assert set(fields) <= FIELDS
    assert len(set(format.header)) == len(format.header)
    for kind in platform.capabilities.identities:
        cells = dict(zip(fields, format.cells(device_of(kind), "Kiosk"), strict=True))
        for name, value in (
            ("serial_number", device_of(kind).serial_number),
            ("product_key", device_of(kind).product_key),
            ("manufacturer", device_of(kind).manufacturer),
            ("model", device_of(kind).model),
        ):
            assert value is None or cells[name] == value
        assert kind is not H or hardware_hash.decode(cells["hardware_hash"]).data == device_of(H).hash_data


@every_portal
def test_a_portals_file_can_be_read_back_as_it_was_written(platform: Platform) -> None:
    """By our own reader, which takes what portals, collectors and spreadsheets write."""
    format = file_of(platform)
    devices = [device_of(kind, n) for n, kind in enumerate(sorted(platform.capabilities.identities) * 3, 1)]
    rows = [format.cells(device, "Kiosk") for device in devices]
    assert [format.objection(cells) for cells in rows] == [None] * len(rows)
    content = format.write(rows)
    dialect, found = read(io.BytesIO(content))
    assert dialect.delimiter == format.delimiter
    assert [tuple(row.original) for row in found] == rows
    assert content == format.write(rows)
    assert len(content.splitlines()) == len(rows) + 1


@every_portal
def test_a_portal_refuses_what_would_shift_its_columns_or_is_outside_its_encoding(platform: Platform) -> None:
    format = file_of(platform)
    for at, (_, field) in enumerate(format.columns):
        for value in (format.delimiter, '"', "\r", "\n", "\ud800"):
            cells = [""] * len(format.columns)
            cells[at] = f"a{value}b"
            finding = format.objection(cells)
            assert finding is not None
            assert finding.field == field
            assert finding.is_error


@every_portal
def test_a_portals_steps_name_the_customer_the_tag_and_the_file(platform: Platform) -> None:
    steps = file_of(platform).steps_for(customer="Contoso {x}", group_tag="Kiosk", file="Kiosk.csv", rows=7)
    words = " ".join(steps)
    assert len(steps) >= 3
    assert all(step.endswith(".") for step in steps)
    assert all(part in words for part in ("Contoso {x}", "Kiosk", "Kiosk.csv", "7 devices"))
    alone = file_of(platform).steps_for(customer="Contoso", group_tag="Kiosk", file="Kiosk.csv", rows=1)
    assert "(1 device)" in " ".join(alone)


# --- the scene ------------------------------------------------------------------------------------


class LoginBridge(httpx.BaseTransport):
    """Carries the token service's blocking calls, which run in threads, to the program on the loop."""

    def __init__(self, program: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = httpx.ASGITransport(program)
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._carry(request, request.read()), self._loop).result(10)

    async def _carry(self, request: httpx.Request, content: bytes) -> httpx.Response:
        carried = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        response = await self._transport.handle_async_request(carried)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


class Connection:
    """One connection as the services keep it: one token of each kind, and the newest refresh token."""

    def __init__(self, microsoft: Microsoft, partner: dict[str, Any]) -> None:
        self.entra_tenant_id = UUID(partner["tenant_id"])
        self.client_id: str = partner["client_id"]
        self.client_secret: str = partner["client_secret"]
        self.refresh_token: str | None = partner["refresh_token"]
        self.gate = OpenGate()
        self._microsoft = microsoft
        self._kept: dict[TokenFor, str] = {}

    @property
    def has_delegated(self) -> bool:
        return self.refresh_token is not None

    async def token(self, wanted: TokenFor) -> str:
        if wanted not in self._kept:
            tokens = await self._fetch(wanted)
            assert tokens.expires_in > timedelta(minutes=5)
            self.refresh_token = tokens.refresh_token or self.refresh_token
            self._kept[wanted] = tokens.access_token
        return self._kept[wanted]

    async def _fetch(self, wanted: TokenFor) -> Tokens:
        service = self._microsoft.tokens
        app = {"client_id": self.client_id, "client_secret": self.client_secret}
        if wanted.kind is TokenKind.APP:
            return await service.for_app(tenant_id=wanted.tenant_id, scope=wanted.scope, **app)
        assert self.refresh_token is not None
        return await service.redeem(
            tenant_id=wanted.tenant_id, scope=wanted.scope, refresh_token=self.refresh_token, **app
        )

    def forget_token(self, wanted: TokenFor) -> None:
        self._kept.pop(wanted, None)

    def forget_tokens(self) -> None:
        self._kept.clear()


Ability = TypeVar("Ability")


def given(ability: Ability | None) -> Ability:
    assert ability is not None
    return ability


class Scene:
    """A platform's abilities on a fresh simulator with one partner and two customers who have agreed."""

    def __init__(self, platform: Platform, program: Any, loop: asyncio.AbstractEventLoop) -> None:
        settings = Settings(partner_center_url="http://simulator", login_url="http://simulator")
        self._transport = httpx.ASGITransport(program)
        self.client = httpx.AsyncClient(transport=self._transport, base_url="http://simulator")
        self.microsoft = Microsoft.open(
            settings, transport=self._transport, login_transport=LoginBridge(program, loop)
        )
        assert platform.open is not None
        self.abilities = platform.open(settings, self.microsoft)

    @property
    def registers(self) -> Registers:
        return given(self.abilities.registers)

    @property
    def lists(self) -> Lists:
        return given(self.abilities.lists)

    @property
    def consent(self) -> ConsentEvidence:
        return given(self.abilities.consent)

    @property
    def tags(self) -> GroupTags:
        return given(self.abilities.group_tags)

    @property
    def checks(self) -> Checks:
        return given(self.abilities.checks)

    async def begin(self) -> None:
        await self.control("presets/instant")
        seeded = await self.control("seed", {"customers": 2})
        self.partner: dict[str, Any] = seeded["partner"]
        self.customer, self.other = (UUID(customer["tenant_id"]) for customer in seeded["customers"])
        self.connection = Connection(self.microsoft, self.partner)

    async def control(self, path: str, body: Any = None, method: str = "POST") -> Any:
        response = await self.client.request(method, f"/control/{path}", json={} if body is None else body)
        assert response.status_code < 300, response.text
        return response.json()

    async def switch(self, **switches: Any) -> None:
        await self.control("switches", switches, "PATCH")

    async def arm(self, *rules: dict[str, Any]) -> None:
        await self.control("faults", list(rules))

    async def calls(self, operation: str) -> list[dict[str, Any]]:
        answer = await self.client.get(f"/control/ledger?devices=false&operation={operation}")
        calls: list[dict[str, Any]] = answer.json()["calls"]
        return calls

    async def submit(
        self,
        *devices: OutgoingDevice,
        create: bool,
        tag: str = "Sales",
        customer: UUID | None = None,
        ids: CallIds | None = None,
    ) -> str | None:
        submission = Submission(customer or self.customer, tag, create, devices)
        accepted = await self.registers.submit(self.connection, ids or new_ids(), submission)
        return accepted.tracking_id

    async def outcome(self, tracking_id: str | None, customer: UUID | None = None) -> Progress:
        """The finished job; waits for it, 10 s at most."""
        assert tracking_id is not None
        async with asyncio.timeout(45):
            while True:
                progress = await self.registers.poll(
                    self.connection, customer or self.customer, Accepted(tracking_id)
                )
                if progress.finished:
                    return progress
                assert all(not row.done for row in progress.rows)
                await asyncio.sleep(0.02)

    async def states(
        self, tracking_id: str | None, devices: Sequence[OutgoingDevice], customer: UUID | None = None
    ) -> list[RegistrationState | None]:
        """What the services would make of the job's answers, per device as sent."""
        progress = await self.outcome(tracking_id, customer)
        found = []
        for match in match_answers([device.as_sent() for device in devices], progress.rows):
            means = self.registers.meaning
            meaning = interpret(match.answer, means, was_uncertain=False) if match.answer else None
            found.append(meaning.state if meaning else None)
        return found

    async def serials(self, tag: str = "Sales", max_pages: int = 50) -> list[str | None]:
        listed = self.lists.listed(self.connection, self.customer, tag, max_pages=max_pages)
        return [device.serial_number async for device in listed]

    async def close(self) -> None:
        await self.client.aclose()
        await self.microsoft.close()


@pytest.fixture(params=DRIVEN, ids=lambda platform: platform.name)
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    opened = Scene(request.param, build(), asyncio.get_running_loop())
    try:
        await opened.begin()
        yield opened
    finally:
        await opened.close()


def new_ids() -> CallIds:
    return CallIds(uuid4(), uuid4())


def device_of(kind: IdentityKind, number: int = 1) -> OutgoingDevice:
    serial = f"SN-{number:05d}"
    match kind:
        case IdentityKind.TUPLE:
            return OutgoingDevice(serial_number=serial, manufacturer="Contoso", model="Sample 14")
        case IdentityKind.PRODUCT_KEY:
            return OutgoingDevice(product_key=f"{number:013d}")
        case IdentityKind.HARDWARE_HASH:
            return OutgoingDevice(hash_data=hardware_hash.decode(sample_hash(serial)).data)


def tuples(count: int, first: int = 1) -> list[OutgoingDevice]:
    return [device_of(T, number) for number in range(first, first + count)]


REGISTERED, ALREADY, CONFLICT, FAILED = (
    RegistrationState.REGISTERED,
    RegistrationState.ALREADY_REGISTERED,
    RegistrationState.CONFLICT,
    RegistrationState.FAILED,
)


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
    """The code of the connection's trouble that a check finds."""
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
