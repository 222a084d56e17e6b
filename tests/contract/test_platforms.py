"""The contract of all platforms: sensible capabilities, and what each of their abilities promises.

Abilities are tested against the platform's desk (`desks`), at the wire: tokens come from the simulator
through the real token service, calls go through the real HTTP client.
"""

import ast
import asyncio
import io
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from app.domain import hardware_hash
from app.domain.catalogue import CATALOGUE
from app.domain.identity import OutgoingDevice
from app.domain.portal_file import FileFormat
from app.domain.registration import Meaning, RegistrationState, UpstreamRow, interpret
from app.domain.upstream import OutcomeUnknown, Refused, Throttled
from app.intake.rows import read
from app.kernel.settings import Settings
from app.microsoft.http import Microsoft
from app.platforms.base import Accepted, Channel, Platform, Profiles, Submission, TagUse, discover
from tests.architecture.source import sources
from tests.contract.desks import DESKS, PACKAGE, Desk
from tests.contract.scene import H, K, T, device_of, given, new_ids

PLATFORMS = discover([PACKAGE])
DRIVEN = [platform for platform in PLATFORMS.values() if platform.automated]
ROLES = {"direct_bill", "indirect_provider", "indirect_reseller", "distributor", "oem"}

every_platform = pytest.mark.parametrize("platform", PLATFORMS.values(), ids=lambda platform: platform.name)
every_driven = pytest.mark.parametrize("platform", DRIVEN, ids=lambda platform: platform.name)


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
    # A role that may not use the API has the portal; a retired platform has neither.
    assert platform.file is not None or not platform.barred_roles
    assert not (platform.file is not None and platform.capabilities.retired)
    for role in ROLES:
        assert platform.is_driven_for(role) == (platform.automated and role not in platform.barred_roles)


@every_driven
async def test_a_platform_by_api_registers_and_its_capabilities_agree_with_its_abilities(
    platform: Platform,
) -> None:
    async with DESKS[platform.name]() as desk:
        assert desk.abilities.registers is not None
        has_ledger = desk.abilities.group_tags is not None
    assert has_ledger == (platform.capabilities.group_tags is TagUse.GROUP)


def test_the_table_of_platforms_is_the_published_one() -> None:
    table = {
        name: (
            platform.capabilities.max_devices,
            set(platform.capabilities.identities),
            platform.capabilities.profiles,
            platform.capabilities.retired,
        )
        for name, platform in discover().items()
    }
    assert table == {
        "oem_direct": (1000, {T, K}, Profiles.NONE, False),
        "partner_center": (1000, {T, K, H}, Profiles.RETIRING, False),
        "intune": (500, {H}, Profiles.RECOMMENDED, False),
        "store_for_business": (1000, {H}, Profiles.RETIRING, True),
        "m365_business": (1000, {H}, Profiles.LIMITED, False),
    }


KNOWN_BY_NAME = {
    "app/api/connections/models.py": "the default of a new connection",
    "app/services/connections/connections.py": "the same",
    "app/cli/validate.py": "the default of a dry run",
    "app/intake/table.py": "the name of a file's format",
}


def test_no_other_code_knows_a_platform_by_name_or_imports_one() -> None:
    knowing = set()
    for source in sources("app", "workers"):
        if source.path.startswith("app/platforms/"):
            continue
        for node in ast.walk(source.tree):
            of = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            imports = of.startswith("app.platforms") and of != "app.platforms.base"
            if imports or (isinstance(node, ast.Constant) and node.value in PLATFORMS):
                knowing.add(source.path)
    assert knowing == set(KNOWN_BY_NAME)


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
    """With our own reader, which reads what portals, collectors and spreadsheets write."""
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


# --- abilities ------------------------------------------------------------------------------------


@pytest.fixture
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    async with DESKS[request.param.name]() as opened:
        yield opened


_MICROSOFT = Microsoft.open(Settings())
"""Makes no connection; only shows which abilities a platform has."""


def with_ability(name: str) -> pytest.MarkDecorator:
    """Runs a test on the desk of every platform that has this ability."""
    having = [p for p in DRIVEN if p.open and getattr(p.open(Settings(), _MICROSOFT), name) is not None]
    assert having
    return pytest.mark.parametrize("desk", having, ids=lambda platform: platform.name, indirect=True)


def devices_of(desk: Desk, count: int) -> list[OutgoingDevice]:
    """`count` devices, with all kinds of identities that the platform accepts."""
    kinds = sorted(PLATFORMS[desk.platform].capabilities.identities)
    return [device_of(kinds[number % len(kinds)], number + 1) for number in range(count)]


async def registered(desk: Desk, accepted: Accepted, customer: UUID | None = None) -> list[UpstreamRow]:
    """The outcomes, once all of them are there."""
    assert accepted.can_be_followed
    async with asyncio.timeout(45):
        while True:
            progress = await desk.registers.poll(desk.access, customer or desk.customer, accepted)
            if progress.finished:
                return list(progress.rows)
            await asyncio.sleep(0.02)


def meanings(desk: Desk, rows: Sequence[UpstreamRow]) -> list[Meaning | None]:
    return [interpret(row, desk.registers.meaning, was_uncertain=False) for row in rows]


registering = with_ability("registers")


@registering
async def test_every_identity_that_the_platform_takes_registers_a_device(desk: Desk) -> None:
    devices = devices_of(desk, 6)
    rows = await registered(desk, await desk.submit(devices))
    assert meanings(desk, rows) == [Meaning(RegistrationState.REGISTERED, None)] * 6
    assert sorted((await desk.registered()).values()) == [1] * 6


@registering
async def test_a_full_call_is_taken(desk: Desk) -> None:
    devices = devices_of(desk, PLATFORMS[desk.platform].capabilities.max_devices)
    rows = await registered(desk, await desk.submit(devices))
    assert len(rows) == len(devices) == (await desk.registered()).total()


@registering
async def test_the_same_call_again_registers_nothing_twice(desk: Desk) -> None:
    ids, devices = new_ids(), devices_of(desk, 3)
    first = await desk.submit(devices, ids)
    assert await desk.submit(devices, ids) == first
    await registered(desk, first)
    assert sorted((await desk.registered()).values()) == [1] * 3


@registering
@pytest.mark.parametrize("arrives", [True, False])
async def test_a_call_without_an_answer_is_an_unknown_outcome_and_the_same_call_settles_it(
    desk: Desk, arrives: bool
) -> None:
    ids, devices = new_ids(), devices_of(desk, 3)
    await desk.lose_next_answer(arrives=arrives)
    with pytest.raises(OutcomeUnknown):
        await desk.submit(devices, ids)
    rows = await registered(desk, await desk.submit(devices, ids))
    assert meanings(desk, rows) == [Meaning(RegistrationState.REGISTERED, None)] * 3
    assert sorted((await desk.registered()).values()) == [1] * 3


@registering
async def test_throttling_is_told_with_the_wait_that_is_asked_for(desk: Desk) -> None:
    await desk.throttle_next(seconds=57)
    with pytest.raises(Throttled) as raised:
        await desk.submit(devices_of(desk, 1))
    assert raised.value.retry_after == timedelta(seconds=57)
    assert await desk.registered() == {}


@registering
async def test_a_device_of_another_customer_is_an_outcome_of_the_catalogue(desk: Desk) -> None:
    devices = devices_of(desk, 1)
    await registered(desk, await desk.submit(devices, customer=desk.other), desk.other)
    (meaning,) = meanings(desk, await registered(desk, await desk.submit(devices)))
    assert meaning is not None
    assert meaning.state is RegistrationState.CONFLICT
    assert meaning.code in CATALOGUE


@registering
async def test_a_word_that_the_platform_does_not_know_has_no_meaning(desk: Desk) -> None:
    assert desk.registers.meaning("no such code", "NoSuchName") is None


@with_ability("lists")
async def test_the_list_shows_what_was_registered_and_nothing_of_another_tag(desk: Desk) -> None:
    lists, devices = given(desk.abilities.lists), devices_of(desk, 1)
    await registered(desk, await desk.submit(devices))
    for tag, ids in ((desk.group_tag, set(await desk.registered())), ("Another", set())):
        listed = lists.listed(desk.access, desk.customer, tag, max_pages=5)
        assert {device.device_id async for device in listed} == ids
    assert lists.devices_a_page >= 1


@with_ability("consent")
async def test_who_has_consented_is_listed_and_how_one_does_is_a_link(desk: Desk) -> None:
    evidence = given(desk.abilities.consent)
    found = {customer.tenant_id async for customer in evidence.customers(desk.access)}
    assert found == {desk.customer, desk.other}
    assert (await evidence.consent_link(desk.access)).startswith("https://")


@with_ability("group_tags")
async def test_a_tag_is_there_once_it_is_made_and_a_call_that_assumes_otherwise_is_told_so(
    desk: Desk,
) -> None:
    tags, find = given(desk.abilities.group_tags), (desk.access, desk.customer, desk.group_tag)
    assert await tags.find_group_tag(*find) is None
    assert tags.creates([])
    await desk.submit(devices_of(desk, 1))
    assert await tags.find_group_tag(*find) == desk.group_tag
    with pytest.raises(Refused) as exists:
        await desk.submit(devices_of(desk, 1))
    word = tags.contradiction(exists.value, create=True)
    assert word is not None
    assert not tags.creates([word])
    absent = Submission(desk.customer, "Another", False, devices_of(desk, 1))
    with pytest.raises(Refused) as missing:
        await desk.registers.submit(desk.access, new_ids(), absent)
    assert tags.contradiction(missing.value, create=False) not in (None, word)
    assert tags.contradiction(missing.value, create=True) is None


@with_ability("checks")
async def test_a_check_says_what_it_proved(desk: Desk) -> None:
    proved = await given(desk.abilities.checks).check(desk.access)
    assert proved
    assert all(words and not words.endswith(".") for words in proved)
