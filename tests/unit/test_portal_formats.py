"""Each portal's file to the byte, and what it cannot carry."""

import pytest

from app.domain import hardware_hash, identity
from app.domain.catalogue import Finding
from app.domain.identity import CheckedDevice, Device, IdentityKind, OutgoingDevice, Rules
from app.domain.portal_file import FileFormat
from app.platforms.base import discover
from simulator.samples import hardware_hash as sample_hash
from tests.support.world import Clock

PLATFORMS = discover()
HASH = sample_hash("SYN00001")
DATA = hardware_hash.decode(HASH).data
TUPLE = OutgoingDevice(serial_number="0012", manufacturer="Dell Inc.", model="Latitude 5530")
KEY = OutgoingDevice(product_key="9999000000017")
BY_HASH = OutgoingDevice(serial_number="SYN00001", hash_data=DATA)
BY_HASH_ALONE = OutgoingDevice(hash_data=DATA)


def format_of(name: str) -> FileFormat:
    format = PLATFORMS[name].file
    assert format is not None
    return format


def written(name: str, *devices: OutgoingDevice, tag: str = "Kiosk") -> bytes:
    format = format_of(name)
    return format.write([format.cells(device, tag) for device in devices])


def test_partner_centers_file_has_its_own_header_and_blanks_where_nothing_is_needed() -> None:
    assert written("partner_center", TUPLE, KEY, BY_HASH, BY_HASH_ALONE) == (
        b"Device serial number,Windows product ID,Hardware hash,Manufacturer name,Device model\r\n"
        b"0012,,,Dell Inc.,Latitude 5530\r\n"
        b",9999000000017,,,\r\n"
        b"SYN00001,," + HASH.encode() + b",,\r\n"
        b",," + HASH.encode() + b",,\r\n"
    )


def test_intunes_file_has_serial_hash_and_group_tag() -> None:
    assert written("intune", BY_HASH, tag="Sales EU") == (
        b"Device Serial Number,Windows Product ID,Hardware Hash,Group Tag\r\n"
        b"SYN00001,," + HASH.encode() + b",Sales EU\r\n"
    )


def test_microsoft_365s_file_has_three_columns_and_no_tag() -> None:
    assert written("m365_business", BY_HASH) == (
        b"Device Serial Number,Windows Product ID,Hardware Hash\r\nSYN00001,," + HASH.encode() + b"\r\n"
    )


@pytest.mark.parametrize("name", ["intune", "m365_business"])
def test_where_a_serial_number_is_wanted_the_hashs_own_stands_in(name: str) -> None:
    assert written(name, BY_HASH_ALONE) == written(name, BY_HASH)


@pytest.mark.parametrize("name", ["partner_center", "intune", "m365_business"])
def test_a_file_is_what_every_ansi_code_page_reads_alike(name: str) -> None:
    content = written(name, BY_HASH)
    assert not content.startswith((b"\xef\xbb\xbf", b"\xff\xfe"))
    assert content.decode("cp1252") == content.decode("utf-8") == content.decode("ascii")
    assert b'"' not in content
    assert content.count(b"\n") == content.count(b"\r\n") == 2


def test_the_hash_is_written_as_its_4000_characters() -> None:
    cell = written("partner_center", BY_HASH_ALONE).splitlines()[1].split(b",")[2]
    assert len(cell) == 4000
    assert hardware_hash.decode(cell).data == DATA


# --- what a file cannot carry --------------------------------------------------------------------


def checked(name: str, device: Device, tag: str = "Kiosk") -> CheckedDevice:
    """As an order checks it, with the cells that would be written."""
    format = format_of(name)

    def objection(found: CheckedDevice) -> Finding | None:
        return format.objection(format.cells(found.outgoing(with_serial=True), found.group_tag or tag))

    rules = Rules(PLATFORMS[name].capabilities.identities, objection=objection)
    return identity.check(device, rules, Clock().now())


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("Standard PC (Q35 + ICH9, 2009)", "comma_in_value"),
        ('Book 14"', "comma_in_value"),
        ("Büchlein", "value_not_in_format"),
        ("ノート", "value_not_in_format"),
    ],
)
def test_a_tuple_that_the_file_can_not_carry_is_refused_with_the_field(model: str, code: str) -> None:
    device = Device(serial_number="S1", manufacturer="QEMU", model=model)
    found = checked("partner_center", device)
    assert not found.is_valid
    assert found.keys == ()
    [error] = [finding for finding in found.findings if finding.is_error]
    assert (error.code, error.field) == (code, "model")
    assert model not in error.detail


def test_the_same_device_by_another_identity_is_carried() -> None:
    device = Device(serial_number="S1", manufacturer="QEMU", model="PC, 2009", product_key="9999000000017")
    assert checked("partner_center", device).kind is IdentityKind.PRODUCT_KEY


def test_a_comma_in_the_group_tag_matters_only_where_the_tag_is_in_the_file() -> None:
    device = Device(hardware_hash=HASH, group_tag="Sales, EU")
    assert checked("partner_center", device).is_valid
    assert checked("m365_business", device).is_valid
    assert [f.field for f in checked("intune", device).findings if f.is_error] == ["group_tag"]
    assert [f.field for f in checked("intune", Device(hardware_hash=HASH), tag="a,b").findings] == [
        "group_tag"
    ]


def test_what_only_a_spreadsheet_would_mind_is_written_to_the_letter() -> None:
    """Portals take bytes, and the steps say that no spreadsheet program may open the file."""
    device = OutgoingDevice(serial_number="=1+1", manufacturer="@Contoso", model="-Book")
    assert b"\r\n=1+1,,,@Contoso,-Book\r\n" in written("partner_center", device)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("Kiosk", "Kiosk - PO-1.csv"),
        ("Sales EU", "Sales EU - PO-1.csv"),
        ("a/b\\c:d", "a_b_c_d - PO-1.csv"),
        ("../../etc/passwd", "_.._etc_passwd - PO-1.csv"),
        ('x"; filename="y', "x__ filename__y - PO-1.csv"),
        ("Zürich", "Z_rich - PO-1.csv"),
        ("...", "devices - PO-1.csv"),
        ("con", "_con - PO-1.csv"),
        ("NUL.txt", "_NUL.txt - PO-1.csv"),
        ("x" * 200, "x" * 60 + " - PO-1.csv"),
    ],
)
def test_a_file_is_named_by_its_group_tag_and_safe_everywhere(tag: str, name: str) -> None:
    assert format_of("partner_center").file_name(tag, "PO-1") == name


def test_files_that_would_share_a_name_are_counted() -> None:
    assert format_of("partner_center").file_name("Kiosk", "PO-1", 2) == "Kiosk - PO-1 (2).csv"


@pytest.mark.parametrize(
    ("one", "other"),
    [("PO/1", "PO:1"), ("PO-1", "PO-1."), ("Ä", "Ö"), ("x" * 60 + "1", "x" * 60 + "2"), (" 1", "1")],
)
def test_files_of_two_orders_for_one_tag_never_share_a_name(one: str, other: str) -> None:
    format = format_of("partner_center")
    names = {format.file_name("Kiosk", reference).casefold() for reference in (one, other)}
    assert len(names) == 2
