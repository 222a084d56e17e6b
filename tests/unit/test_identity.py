import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.catalogue import CATALOGUE, Finding
from app.domain.duplicates import Compared
from app.domain.identity import CheckedDevice, Device, IdentityKind, Rules, check
from app.local.synthetic import devices, hardware_hash

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TUPLE, PRODUCT_KEY, HASH = IdentityKind.TUPLE, IdentityKind.PRODUCT_KEY, IdentityKind.HARDWARE_HASH
ALL = Rules(frozenset(IdentityKind))
OEM = Rules(frozenset({TUPLE, PRODUCT_KEY}))
INTUNE = Rules(frozenset({HASH}))

SERIAL, MAKER, MODEL, PKID = "SYN0000001", "Contoso", "Contoso Book 14", "9999000000001"
UUID_ = UUID("00112233-4455-4677-8899-aabbccddeeff")
EK = b"\x80" + bytes(254) + b"\x01"
LICENSE_KEY = "ABCDE-FGHIJ-KLMNO-PQRST-UVWXY"
PARTS = {"serial_number": SERIAL, "manufacturer": MAKER, "model": MODEL, "product_key": PKID}


def made(
    serial: str = SERIAL,
    manufacturer: str = MAKER,
    model: str = MODEL,
    product_key: str | None = PKID,
    uuid: UUID = UUID_,
    endorsement_key: bytes | None = EK,
) -> str:
    return hardware_hash(
        serial,
        manufacturer,
        model,
        product_key,
        uuid=uuid,
        mac=bytes.fromhex("020000000001"),
        endorsement_key=endorsement_key,
    )


TEXT = made()


def checked(rules: Rules = ALL, /, **values: str | None) -> CheckedDevice:
    return check(Device(**values), rules, NOW)


def codes(device: CheckedDevice) -> set[str]:
    return {finding.code for finding in device.findings}


def given_by(letters: str) -> dict[str, str]:
    """S serial, M maker, O model, P PKID, H hash."""
    names = {
        "S": "serial_number",
        "M": "manufacturer",
        "O": "model",
        "P": "product_key",
        "H": "hardware_hash",
    }
    return {names[letter]: (PARTS | {"hardware_hash": TEXT})[names[letter]] for letter in letters}


COMBINATIONS = {
    # given: (kind, codes) where everything is accepted
    "": (None, {"missing_identity"}),
    "S": (None, {"incomplete_tuple"}),
    "M": (None, {"incomplete_tuple"}),
    "O": (None, {"incomplete_tuple"}),
    "SM": (None, {"incomplete_tuple"}),
    "SO": (None, {"incomplete_tuple"}),
    "MO": (None, {"incomplete_tuple"}),
    "SMO": (TUPLE, set()),
    "P": (PRODUCT_KEY, set()),
    "SP": (PRODUCT_KEY, {"identity_reduced"}),
    "MP": (PRODUCT_KEY, {"identity_reduced"}),
    "SMP": (PRODUCT_KEY, {"identity_reduced"}),
    "SMOP": (PRODUCT_KEY, {"identity_reduced"}),
    "H": (HASH, set()),
    "SH": (HASH, set()),
    "PH": (HASH, set()),
    "SPH": (HASH, set()),
    "MH": (HASH, {"identity_reduced"}),
    "SMOH": (HASH, {"identity_reduced"}),
    "SMOPH": (HASH, {"identity_reduced"}),
}


@pytest.mark.parametrize("letters", COMBINATIONS)
def test_every_combination_is_sent_as_the_best_legal_identity_or_refused(letters: str) -> None:
    device = checked(**given_by(letters))
    kind, expected = COMBINATIONS[letters]
    assert device.kind == kind
    assert device.is_valid == (kind is not None)
    assert codes(device) == expected
    assert bool(device.keys) == device.is_valid


@pytest.mark.parametrize(
    ("letters", "rules", "kind", "expected"),
    [
        ("SMO", INTUNE, None, {"identity_not_accepted"}),
        ("P", INTUNE, None, {"identity_not_accepted"}),
        ("SMOP", INTUNE, None, {"identity_not_accepted"}),
        ("SPH", INTUNE, HASH, set()),
        ("S", INTUNE, None, {"incomplete_tuple"}),
        ("H", OEM, None, {"identity_not_accepted"}),
        ("SH", OEM, None, {"identity_not_accepted"}),
        ("PH", OEM, PRODUCT_KEY, {"identity_reduced"}),
        ("SMOH", OEM, TUPLE, {"identity_reduced"}),
        ("SMOPH", OEM, PRODUCT_KEY, {"identity_reduced"}),
        ("SMO", Rules(frozenset()), None, {"identity_not_accepted"}),
    ],
)
def test_a_platform_gets_only_what_it_accepts(
    letters: str, rules: Rules, kind: IdentityKind | None, expected: set[str]
) -> None:
    device = checked(rules, **given_by(letters))
    assert (device.kind, codes(device)) == (kind, expected)


def test_a_hash_that_is_not_sent_is_compared_but_its_weaknesses_do_not_count() -> None:
    weak = made(serial="", endorsement_key=None)
    assert codes(checked(OEM, **PARTS, hardware_hash=weak)) == {"identity_reduced"}
    assert "hash_model_mismatch" in codes(checked(OEM, **PARTS, hardware_hash=made(model="Other")))


def test_of_an_invalid_row_nothing_is_said_to_be_sent() -> None:
    assert codes(checked(**given_by("SMOP"), group_tag="x" * 200)) == {"group_tag_too_long"}


def test_what_is_not_sent_is_named() -> None:
    (finding,) = checked(**given_by("SMOH")).findings
    assert finding.detail == "Sent as hardware_hash; not sent: manufacturer, model."
    (finding,) = checked(**given_by("S")).findings
    assert (finding.field, finding.detail) == ("manufacturer", "Missing: manufacturer, model.")


def test_columns_missing_beside_a_hash_stay_empty_but_the_serial_number_can_be_searched() -> None:
    device = checked(hardware_hash=TEXT)
    assert (device.serial_number, device.manufacturer, device.model, device.product_key) == (None,) * 4
    assert device.search_serial == SERIAL
    assert checked(hardware_hash=made(serial="Default string")).search_serial is None
    assert checked(product_key=PKID).search_serial is None
    assert checked(product_key=PKID, serial_number="X1").search_serial == "X1"


# --- values -----------------------------------------------------------------------------------


def test_outer_blanks_are_removed_with_a_word_and_empty_is_missing() -> None:
    device = checked(
        serial_number=f" {SERIAL}\t", manufacturer=MAKER, model=MODEL, group_tag=" ", product_key=""
    )
    assert device.serial_number == SERIAL
    assert device.group_tag is None
    assert device.product_key is None
    assert [(finding.code, finding.field) for finding in device.findings] == [
        ("value_trimmed", "serial_number")
    ]
    assert device.is_valid


def test_invisible_marks_around_a_value_are_blanks_too() -> None:
    device = checked(product_key=f"\ufeff{PKID}\u200b")
    assert (device.product_key, device.kind) == (PKID, PRODUCT_KEY)
    assert codes(device) == {"value_trimmed"}


def test_a_line_reference_is_echoed_to_the_letter() -> None:
    assert checked(product_key=PKID, line_ref=" 10 ").line_ref == " 10 "
    assert checked(product_key=PKID, line_ref="  ").line_ref is None


@pytest.mark.parametrize("name", ["serial_number", "manufacturer", "model", "group_tag", "line_ref"])
@pytest.mark.parametrize("character", ["\x00", "\x07", "\n", "\u200b", "\u00a0", "\ud800"])
def test_invisible_characters_inside_a_value_are_an_error_and_become_visible(
    name: str, character: str
) -> None:
    device = checked(**(PARTS | {name: f"A{character}B"}))
    assert [(finding.code, finding.field) for finding in device.findings if finding.is_error] == [
        ("value_has_control_characters", name)
    ]
    assert getattr(device, name) == "A\ufffdB"
    assert not device.is_valid


@pytest.mark.parametrize("name", ["serial_number", "manufacturer", "model", "product_key", "line_ref"])
def test_a_value_over_the_limit_is_an_error_and_is_not_kept(name: str) -> None:
    rules = Rules(frozenset(IdentityKind), max_value=20)
    assert "value_too_long" not in codes(checked(rules, **(PARTS | {name: "9" * 20})))
    device = checked(rules, **(PARTS | {name: "9" * 21}))
    assert [finding.code for finding in device.findings if finding.is_error] == ["value_too_long"]
    assert getattr(device, name) is None


def test_a_group_tag_over_the_limit_names_the_limit() -> None:
    assert checked(product_key=PKID, group_tag="x" * 128).is_valid
    device = checked(product_key=PKID, group_tag="x" * 129)
    (finding,) = device.findings
    assert (finding.code, finding.field) == ("group_tag_too_long", "group_tag")
    assert "128" in finding.detail
    assert device.group_tag is None


WHOLE_TUPLE = {"serial_number": SERIAL, "manufacturer": MAKER, "model": MODEL}


@pytest.mark.parametrize(
    "value",
    [
        LICENSE_KEY,
        LICENSE_KEY.lower(),
        LICENSE_KEY.replace("-", ""),
        LICENSE_KEY.replace("-", " "),
        LICENSE_KEY.replace("-", "\N{EN DASH}"),
    ],
)
def test_a_product_key_makes_the_row_invalid_even_beside_a_good_hash(value: str) -> None:
    for other in ({}, {"hardware_hash": TEXT}, WHOLE_TUPLE):
        device = checked(product_key=value, **other)
        assert [finding.code for finding in device.findings if finding.is_error] == [
            "product_key_is_license_key"
        ]
        assert not device.is_valid


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("00330-80000-00000-AA206", "product_key_is_product_id"),
        ("00329-00000-0003-AA606", "product_key_is_product_id"),
        ("00330 80000 00000 AA206", "product_key_is_product_id"),
        ("Product ID: 00330-80000-00000-AAOEM", "product_key_is_product_id"),
        ("00330-OEM-8992687-00095", "product_key_is_product_id"),
        ("1.2E+12", "product_key_scientific"),
        ("1,2E+12", "product_key_scientific"),
        ("4.89871e12", "product_key_scientific"),
        ("9E+12", "product_key_scientific"),
        ("ABC", "product_key_impossible"),
        ("see box", "product_key_impossible"),
        ("Manufacturer name : HP", "product_key_impossible"),
        ("COA 00123-456-789-012", "product_key_impossible"),
        ("٩٩٩٩٠٠٠٠٠٠٠٠١", "product_key_impossible"),
    ],
)
def test_what_is_no_pkid_is_an_error_on_its_own_and_spoils_no_other_identity(value: str, code: str) -> None:
    for alone in ({}, {"serial_number": SERIAL}, {"manufacturer": MAKER, "model": MODEL}):
        device = checked(product_key=value, **alone)
        assert [finding.code for finding in device.findings if finding.is_error] == [code]
        assert not device.is_valid
    for kind, other in ((HASH, {"hardware_hash": TEXT}), (TUPLE, WHOLE_TUPLE)):
        device = checked(product_key=value, **other)
        assert (device.kind, device.product_key) == (kind, None)
        assert [(f.code, f.field) for f in device.findings] == [("value_not_sent", "product_key")]
    # Where the platform does not take the other identity, there is nothing but the error.
    assert code in codes(checked(OEM, product_key=value, hardware_hash=TEXT))


@pytest.mark.parametrize("value", ["999900000001", "12345-67890-09876-1", "X21-12345"])
def test_an_unusual_pkid_is_sent_with_a_warning(value: str) -> None:
    device = checked(product_key=value)
    assert (device.kind, device.product_key) == (PRODUCT_KEY, value)
    assert codes(device) == {"product_key_unusual"}


@pytest.mark.parametrize("value", ["999900000001", "X21-12345"])
def test_an_unusual_pkid_outranks_no_whole_identity(value: str) -> None:
    for kind, other in ((HASH, {"hardware_hash": TEXT}), (TUPLE, WHOLE_TUPLE)):
        device = checked(product_key=value, **other)
        assert (device.kind, device.product_key) == (kind, None)
        assert codes(device) == {"product_key_unusual", "identity_reduced"}
    only_keys = Rules(frozenset({PRODUCT_KEY}))
    assert checked(only_keys, product_key=value, **WHOLE_TUPLE).kind is PRODUCT_KEY


def test_an_unusual_pkid_makes_no_duplicates_of_rows_with_other_serial_numbers() -> None:
    rows = [checked(product_key="X21-12345", serial_number=serial) for serial in ("SYN1", "SYN2", "SYN1")]
    assert marks(*rows) == [None, None, 1]
    assert marks(*[checked(product_key=PKID, serial_number=serial) for serial in ("SYN1", "SYN2")]) == [
        None,
        1,
    ]


@pytest.mark.parametrize(
    "value",
    [
        "9999 0000 00001",
        "9999-000000001",
        "PKID: 9999000000001",
        "Product Key ID 9999000000001",
        "9999000000001.0",
        "9999000000001,00",
        "9999\N{EN DASH}0000\N{EN DASH}00001",
        "9999\u00a00000\u00a000001",
        "9999\u202f0000\u202f00001",
        "99990000\u200b00001",
    ],
)
def test_thirteen_digits_are_the_pkid_whatever_was_put_to_them(value: str) -> None:
    for other in ({}, WHOLE_TUPLE, {"hardware_hash": TEXT}):
        device = checked(product_key=value, **other)
        assert device.product_key == PKID
        assert device.kind is (HASH if "hardware_hash" in other else PRODUCT_KEY)
        assert "product_key_cleaned" in codes(device)
    assert marks(checked(product_key=PKID), checked(product_key=value)) == [None, 1]


def test_a_cleaned_pkid_is_compared_with_the_hash() -> None:
    assert "hash_product_key_mismatch" in codes(checked(product_key="9999 0000 00002", hardware_hash=TEXT))


def test_lost_leading_zeros_are_suspected() -> None:
    assert "leading zeros" in checked(product_key="284750002680").findings[0].detail
    assert "leading zeros" not in checked(product_key="2847500026800000").findings[0].detail


def test_a_pkid_of_zeros_counts_as_missing() -> None:
    assert codes(checked(product_key="0000000000000")) == {"product_key_placeholder", "missing_identity"}
    device = checked(**(PARTS | {"product_key": "0000000000000"}))
    assert (device.kind, device.product_key) == (TUPLE, None)
    assert codes(device) == {"product_key_placeholder"}


@pytest.mark.parametrize("serial", ["5E+12", "4.89871E+12", "4,89871e+12"])
def test_a_serial_number_in_scientific_notation_is_an_error_of_its_own_only(serial: str) -> None:
    assert codes(checked(**(PARTS | {"serial_number": serial, "product_key": None}))) == {"serial_scientific"}
    assert codes(checked(serial_number=serial, hardware_hash=TEXT)) == {"serial_scientific"}


@pytest.mark.parametrize("serial", ["5E12", "1E5", "0E+", "12E+1A"])
def test_serial_numbers_with_an_e_are_left_alone(serial: str) -> None:
    assert checked(serial_number=serial, manufacturer=MAKER, model=MODEL).is_valid


@pytest.mark.parametrize("value", ["#N/A", "#REF!", "#NAME?", "#div/0!", "#NV", "#¡REF!", "########"])
@pytest.mark.parametrize("name", ["serial_number", "manufacturer", "model"])
def test_what_a_failed_formula_leaves_in_a_text_is_no_value(name: str, value: str) -> None:
    """A lookup that found nothing would otherwise name the model."""
    tuple_ = {"serial_number": "SYN1", "manufacturer": "Contoso", "model": "Book 14"}
    device = checked(**(tuple_ | {name: value}))
    assert (device.is_valid, codes(device)) == (False, {"cell_is_error"})


@pytest.mark.parametrize("value", ["#N/A", "#REF!", "#WERT!", "#NV", "########", '="#N/A"'])
@pytest.mark.parametrize("name", ["product_key", "hardware_hash", "group_tag"])
def test_a_failed_formula_counts_as_empty_where_a_row_can_do_without(name: str, value: str) -> None:
    device = checked(**(WHOLE_TUPLE | {name: value}))
    assert (device.kind, device.group_tag, device.product_key) == (TUPLE, None, None)
    assert codes(device) - {"value_quoted"} == {"value_placeholder"}
    alone = checked(**{name: value})
    assert not alone.is_valid


def test_a_failed_formula_inside_of_a_formula_is_no_serial_number() -> None:
    device = checked(**(WHOLE_TUPLE | {"serial_number": '="#N/A"'}))
    assert (device.is_valid, codes(device)) == (False, {"value_quoted", "cell_is_error"})


@pytest.mark.parametrize(
    "key", ["1234567890123", "0123456789012", "9876543210987", "1111111111111", "123-4567-890123"]
)
def test_digits_from_the_keyboard_are_no_pkid(key: str) -> None:
    device = checked(**WHOLE_TUPLE, product_key=key)
    assert (device.kind, device.product_key, codes(device)) == (TUPLE, None, {"product_key_placeholder"})
    alone = checked(product_key=key)
    assert (alone.is_valid, codes(alone)) == (False, {"product_key_placeholder", "missing_identity"})


@pytest.mark.parametrize("value", ["#1", "#VIP!", "#7", "N/A-1", "A#N/A"])
def test_a_value_with_a_number_sign_is_left_alone(value: str) -> None:
    device = checked(serial_number="SYN1", manufacturer="Contoso", model=value, group_tag=value)
    assert (device.is_valid, codes(device)) == (True, set())


def test_a_placeholder_serial_number_spoils_a_tuple_only() -> None:
    serial = "To be filled by O.E.M."
    whole_tuple = {"serial_number": serial, "manufacturer": MAKER, "model": MODEL}
    assert codes(checked(**whole_tuple)) == {"serial_placeholder"}
    assert codes(checked(serial_number=serial)) == {"serial_placeholder", "incomplete_tuple"}
    for other in ({"product_key": PKID}, {"hardware_hash": TEXT}):
        device = checked(**whole_tuple, **other)
        assert device.is_valid
        assert device.serial_number is None
        assert codes(device) == {"value_placeholder", "identity_reduced"}
        assert device.findings[0].field == "serial_number"
    assert codes(checked(Rules(frozenset({TUPLE})), **whole_tuple, hardware_hash=TEXT)) == {
        "serial_placeholder"
    }


NOTHING = [
    *("N/A", "n/a", "N.A.", "-", "--", "—", ".", "?", "NULL", "(null)", "null", "none", "None", "nil", "TBD"),
    *(
        "unknown",
        "Not available",
        "not applicable",
        "k.A.",
        "keine",
        "ninguno",
        "unassigned",
        "nan",
        "nicht bekannt",
    ),
]


@pytest.mark.parametrize("value", NOTHING)
def test_a_placeholder_displaces_no_identity_beside_it(value: str) -> None:
    device = checked(**WHOLE_TUPLE, product_key=value, hardware_hash=value)
    assert (device.kind, device.product_key) == (TUPLE, None)
    assert [(finding.code, finding.field) for finding in device.findings] == [
        ("value_placeholder", "product_key"),
        ("value_placeholder", "hardware_hash"),
    ]
    device = checked(
        serial_number=value, manufacturer=value, model=value, product_key=PKID, hardware_hash=value
    )
    assert (device.kind, device.serial_number, device.manufacturer, device.model) == (
        PRODUCT_KEY,
        None,
        None,
        None,
    )
    assert codes(device) == {"value_placeholder"}
    device = checked(
        serial_number=value, manufacturer=value, model=value, product_key=value, hardware_hash=TEXT
    )
    assert (device.kind, codes(device)) == (HASH, {"value_placeholder"})
    assert marks(
        *[
            checked(serial_number=f"SYN{n}", manufacturer=MAKER, model=MODEL, product_key=value)
            for n in (1, 2)
        ]
    ) == [
        None,
        None,
    ]


@pytest.mark.parametrize("value", NOTHING)
def test_a_row_of_placeholders_is_no_device(value: str) -> None:
    assert codes(checked(product_key=value, hardware_hash=value)) == {"value_placeholder", "missing_identity"}
    assert not checked(product_key=value).is_valid
    assert codes(checked(serial_number=value, manufacturer=value, model=value)) == {
        *("serial_placeholder", "manufacturer_placeholder", "model_placeholder")
    }


@pytest.mark.parametrize(
    "value",
    [
        *(*NOTHING, "Unassigned", "(none)", "not assigned", "0", "(blank)", "(leer)", "[blank]", "no tag"),
        *("kein Tag", "Nicht zugewiesen", "non attribué", "sin asignar", "No Group Tag", "(en blanco)"),
    ],
)
def test_a_placeholder_is_no_group_tag(value: str) -> None:
    device = checked(product_key=PKID, group_tag=value)
    assert (device.is_valid, device.group_tag, codes(device)) == (True, None, {"value_placeholder"})


@pytest.mark.parametrize(
    "tag",
    [
        "NA",
        "ND",
        "KA",
        "#",
        "+",
        "Unknown devices",
        "N/A-1",
        "00",
        "Kiosk",
        "S-1",
        "Blank",
        "空",
        "(Kiosk)",
        "Tag 1",
    ],
)
def test_what_may_be_a_group_tag_stays_one(tag: str) -> None:
    device = checked(product_key=PKID, group_tag=tag)
    assert (device.group_tag, codes(device)) == (tag, set())


@pytest.mark.parametrize(
    "value",
    [
        "''",
        '""',
        "x",
        "0",
        "hash not collected",
        "see attached file",
        "pending",
        "'N/A'",
        "n/v",
        "TRUE",
        "T0",
    ],
)
def test_what_is_clearly_no_hash_counts_as_none(value: str) -> None:
    for kind, other in ((TUPLE, WHOLE_TUPLE), (PRODUCT_KEY, {"product_key": PKID})):
        device = checked(**other, hardware_hash=value)
        assert device.kind is kind
        assert codes(device) <= {"value_placeholder", "value_quoted"}


@pytest.mark.parametrize("value", [TEXT[:900], "T0H", "QUJDRA==", "5CD1234XYZ", TEXT[:-500] + "?" * 500])
def test_a_damaged_hash_beside_a_tuple_stays_an_error(value: str) -> None:
    device = checked(**WHOLE_TUPLE, hardware_hash=value)
    assert not device.is_valid
    assert {finding.field for finding in device.findings if finding.is_error} == {"hardware_hash"}


@pytest.mark.parametrize("written", [f"'{TEXT}'", f'"{TEXT}"', f'="{TEXT}"', f"'{TEXT}"])
def test_quotation_marks_around_a_hash_are_taken_off(written: str) -> None:
    device = checked(hardware_hash=written)
    assert (device.kind, codes(device)) == (HASH, {"value_quoted"})


@pytest.mark.parametrize(
    ("maker", "model"),
    [
        ("Micro-Star International Co.", " Ltd."),
        ("Micro-Star International Co.", "Katana GF66"),
        ("Micro-Star International Co., Ltd.", "Ltd."),
        ("To be filled by O.E.M.", "-"),
        ("Micro-Star International Co.– Ltd.", "Katana GF66®"),
    ],
)
def test_a_proved_hash_is_sent_although_maker_or_model_beside_it_are_torn(maker: str, model: str) -> None:
    text = made(manufacturer="Micro-Star International Co., Ltd.", model="Katana GF66")
    device = checked(serial_number=SERIAL, manufacturer=maker, model=model, hardware_hash=text)
    assert (device.kind, device.serial_number) == (HASH, SERIAL)
    assert codes(device) & {"value_not_sent", "value_placeholder"}
    # Where the platform takes no hash, the tuple would be sent: then it is an error.
    assert not checked(
        OEM, serial_number=SERIAL, manufacturer=maker, model=model, hardware_hash=text
    ).is_valid


def test_the_name_a_device_is_sold_under_does_not_contradict_its_machine_type() -> None:
    text = made(manufacturer="LENOVO", model="20XW0026US")
    device = checked(serial_number=SERIAL, manufacturer="LENOVO", model="ThinkPad T14", hardware_hash=text)
    assert (device.kind, codes(device)) == (HASH, {"value_not_sent", "identity_reduced"})
    assert "hash_model_mismatch" in codes(checked(model="21G2001VUS", hardware_hash=text))


@pytest.mark.parametrize(
    "serial", [f"S/N: {SERIAL}", f"*{SERIAL}*", f"S{SERIAL}", f"1S20XW0026US{SERIAL[:8]}"]
)
def test_a_label_around_the_serial_number_does_not_contradict_a_hash(serial: str) -> None:
    text = made(SERIAL[:8] if serial.startswith("1S") else SERIAL)
    device = checked(serial_number=serial, hardware_hash=text)
    assert (device.kind, codes(device)) == (HASH, {"value_unlikely"})


# --- row against hash -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("serial_number", "SYN0000002", "hash_serial_mismatch"),
        ("manufacturer", "CONTOSO", "hash_manufacturer_mismatch"),
        ("model", "Contoso Book 15", "hash_model_mismatch"),
        ("product_key", "9999000000002", "hash_product_key_mismatch"),
    ],
)
def test_a_row_that_contradicts_its_hash_is_invalid(name: str, value: str, code: str) -> None:
    device = checked(hardware_hash=TEXT, **{name: value})
    (finding,) = (finding for finding in device.findings if finding.is_error)
    assert (finding.code, finding.field) == (code, name)
    assert value in finding.detail
    assert PARTS[name] in finding.detail
    assert not device.is_valid


def test_capitals_and_blanks_of_a_serial_number_do_not_contradict_a_hash() -> None:
    assert checked(serial_number=SERIAL.lower(), hardware_hash=TEXT).is_valid
    assert codes(checked(serial_number=SERIAL + " ", hardware_hash=TEXT)) == {"value_trimmed"}


def test_what_one_side_lacks_contradicts_nothing() -> None:
    assert codes(checked(product_key=PKID, hardware_hash=made(product_key=None))) == set()
    assert codes(checked(product_key="ABC", hardware_hash=TEXT)) == {"value_not_sent"}
    assert codes(checked(serial_number="SYN9", hardware_hash=made(serial="Default string"))) == {
        "serial_placeholder_in_hash"
    }


def test_damage_and_repair_of_a_hash_are_findings_of_the_row() -> None:
    damaged = checked(**PARTS, hardware_hash=TEXT[:900])
    assert codes(damaged) == {"hash_truncated"}
    assert (damaged.kind, damaged.hash) == (None, None)
    repaired = checked(hardware_hash=TEXT[:3333])
    assert repaired.is_valid
    assert codes(repaired) == {"hash_repaired"}
    assert codes(checked(hardware_hash=made(serial=""))) == {"hash_lacks_serial"}
    assert codes(checked(hardware_hash=" \n")) == {"missing_identity"}


# --- secrets ----------------------------------------------------------------------------------


def test_hashes_and_license_keys_are_never_repeated() -> None:
    rows = [
        checked(product_key=LICENSE_KEY),
        checked(product_key=LICENSE_KEY.replace("-", "\u2014")),
        checked(product_key=f"ABCDE-\u200b{LICENSE_KEY[6:]}"),
        checked(serial_number=LICENSE_KEY, hardware_hash=TEXT),
        checked(manufacturer=TEXT, hardware_hash=TEXT),
        checked(model=TEXT[:200], hardware_hash=TEXT),
        checked(serial_number=TEXT, manufacturer=MAKER, model=MODEL),
        checked(product_key=TEXT),
        checked(hardware_hash=TEXT[:800]),
        checked(hardware_hash=LICENSE_KEY),
    ]
    for device in rows:
        words = " ".join(finding.detail for finding in device.findings)
        assert not device.is_valid
        assert "FGHIJ" not in words
        assert TEXT[:20] not in words
        assert device.product_key is None
        assert TEXT[:200] not in repr(device).replace(f"model='{TEXT[:200]}'", "")


def test_values_in_details_are_bounded() -> None:
    device = checked(model="x" * 256, hardware_hash=TEXT)
    finding = next(finding for finding in device.findings if finding.code == "hash_model_mismatch")
    assert "x" * 64 in finding.detail
    assert "x" * 65 not in finding.detail


def test_a_printed_device_shows_no_hash_serial_number_or_pkid() -> None:
    device = Device(**PARTS, hardware_hash=TEXT)
    for printed in (repr(device), repr(check(device, ALL, NOW))):
        assert SERIAL not in printed
        assert PKID not in printed
        assert TEXT[:20] not in printed


# --- duplicates -------------------------------------------------------------------------------


def mark_duplicates(rows: Sequence[CheckedDevice]) -> list[CheckedDevice]:
    """Looks at the rows twice, as everybody does: what turns out late is known from the beginning then."""

    def look(late: Mapping[int, Finding]) -> tuple[Compared, list[CheckedDevice]]:
        compared = Compared(late, lambda row: rows[row - 1].line_ref)
        return compared, [compared.add(device, device.group_tag) for device in rows]

    compared, marked = look({})
    if compared.late:
        compared, marked = look(compared.late)
    assert not compared.late
    return marked


def marks(*rows: CheckedDevice) -> list[int | None]:
    """For each row, the 1-based number of the row it repeats."""
    marked = mark_duplicates(rows)
    assert len(marked) == len(rows)
    return [
        next(
            (int(f.detail.split()[5].rstrip(".")) for f in d.findings if f.code == "duplicate_in_order"), None
        )
        for d in marked
    ]


def test_a_device_given_twice_in_any_two_ways_is_found() -> None:
    as_tuple, as_key, as_hash = (checked(**given_by(letters)) for letters in ("SMO", "P", "H"))
    for one in (as_tuple, as_key, as_hash):
        assert marks(one, one) == [None, 1]
        assert marks(as_hash, one) == [None, 1]
        assert marks(one, as_hash) == [None, 1]
    assert marks(as_tuple, as_key) == [None, None]


def test_a_third_row_can_show_that_two_are_one() -> None:
    as_tuple, as_key, as_hash = (checked(**given_by(letters)) for letters in ("SMO", "P", "H"))
    assert marks(as_tuple, as_key, as_hash) == [None, 1, 1]
    assert marks(as_key, as_tuple, as_hash, as_hash) == [None, 1, 1, 1]


def test_the_earlier_row_is_named_and_the_later_one_becomes_invalid() -> None:
    one = checked(product_key=PKID, line_ref="L7")
    other = checked(product_key="9999000000002")
    marked = mark_duplicates([other, one, checked(product_key=PKID, group_tag="Kiosk", line_ref="L9")])
    assert [device.is_valid for device in marked] == [True, True, False]
    assert marked[:2] == [other, one]
    (finding,) = marked[2].findings
    assert finding.detail == 'The same device as row 2 (line_ref "L7").'
    assert (marked[2].kind, marked[2].keys, marked[2].group_tag) == (None, (), "Kiosk")


def test_an_invalid_row_neither_blocks_nor_links_others() -> None:
    broken = checked(**PARTS, group_tag="x" * 200)
    assert marks(broken, checked(product_key=PKID)) == [None, None]
    assert marks(checked(**given_by("SMO")), broken, checked(product_key=PKID)) == [None, None, None]


def test_two_captures_of_one_device_are_one_device() -> None:
    again = hardware_hash(
        SERIAL,
        MAKER,
        MODEL,
        uuid=UUID_,
        mac=b"\x02\0\0\0\0\x07",
        captured_at=datetime(2026, 2, 1, tzinfo=UTC),
    )
    assert marks(checked(hardware_hash=TEXT), checked(hardware_hash=again)) == [None, 1]


@pytest.mark.parametrize("serial", ["Default string", "00000000", "SMBIOS_STRING_INDEX_0"])
@pytest.mark.parametrize(
    "uuid", [UUID(int=0), UUID(int=2**128 - 1), UUID("03000200-0400-0500-0006-000700080009"), UUID_]
)
def test_devices_that_share_only_fillers_of_firmware_are_different(serial: str, uuid: UUID) -> None:
    rows = [
        checked(
            hardware_hash=made(
                serial, product_key=None, uuid=uuid, endorsement_key=b"\x80" + bytes([n]) * 255
            )
        )
        for n in (1, 2)
    ]
    assert all(row.is_valid for row in rows)
    assert marks(*rows) == [None, None]


def test_fillers_make_no_key() -> None:
    text = made("0", product_key="0000000000000", uuid=UUID(int=0), endorsement_key=None)
    device = checked(hardware_hash=text)
    assert device.is_valid
    assert device.keys == ()


def test_equal_serial_numbers_of_different_makers_are_different_devices() -> None:
    one = checked(serial_number="SYN1", manufacturer="Contoso", model="A")
    other = checked(serial_number="SYN1", manufacturer="Fabrikam", model="A")
    assert marks(one, other) == [None, None]


# --- a whole file, everything, and speed --------------------------------------------------------


def test_every_row_of_a_damaged_spreadsheet_gets_its_own_verdict() -> None:
    path = Path(__file__).parents[1] / "samples" / "excel-damaged.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter=";"))[1:]
    names = ("serial_number", "product_key", "hardware_hash", "manufacturer", "model")
    order = [Device(**dict(zip(names, row, strict=False)), line_ref=row[5]) for row in rows]
    marked = mark_duplicates([check(device, ALL, NOW) for device in order])
    assert [[finding.code for finding in device.findings] for device in marked] == [
        ["value_trimmed"],
        ["product_key_scientific"],
        ["serial_placeholder"],
        ["product_key_is_product_id"],
        ["incomplete_tuple"],
        [],
        ["duplicate_in_order"],
        ["hash_serial_mismatch"],
        ["hash_truncated"],  # 900 characters, of which the data needs 1,031
        ["hash_repaired"],
        ["missing_identity"],
        ["hash_checksum_mismatch"],
    ]


ANY_TEXT = st.none() | st.text(max_size=40) | st.text(alphabet="0123456789E+-.,AFT \x00", max_size=30)
ANY_DEVICE = st.builds(
    Device,
    **{
        name.name: ANY_TEXT
        | st.sampled_from([*PARTS.values(), TEXT, TEXT[:3500], LICENSE_KEY, "Default string"])
        for name in fields(Device)
    },
)


@given(ANY_DEVICE, st.frozensets(st.sampled_from(IdentityKind)))
def test_any_row_is_judged_and_its_values_can_be_stored(
    device: Device, accepted: frozenset[IdentityKind]
) -> None:
    result = check(device, Rules(accepted), NOW)
    assert all(finding.code in CATALOGUE and finding.detail for finding in result.findings)
    assert result.is_valid != any(finding.is_error for finding in result.findings)
    assert result.kind is None or result.kind in accepted
    for name in ("serial_number", "manufacturer", "model", "product_key", "group_tag", "line_ref"):
        value = getattr(result, name)
        assert value is None or (value.isprintable() and value and len(value) <= 256)
    json.dumps([finding.detail for finding in result.findings], ensure_ascii=False).encode()
    match result.kind:
        case IdentityKind.TUPLE:
            assert None not in (result.serial_number, result.manufacturer, result.model)
        case IdentityKind.PRODUCT_KEY:
            assert result.product_key
        case IdentityKind.HARDWARE_HASH:
            assert result.hash is not None
        case None:
            assert not result.keys
            return
    assert_sent_as_said(result)


def assert_sent_as_said(device: CheckedDevice) -> None:
    """Of the values that are kept, exactly those are not sent of which the row says so."""
    sent = device.outgoing(with_serial=True)
    said = [f.detail.partition("not sent: ")[2] for f in device.findings if f.code == "identity_reduced"]
    unsent = said[0].rstrip(".").split(", ") if said else []
    for name in ("serial_number", "manufacturer", "model", "product_key"):
        if (value := getattr(device, name)) is not None:
            assert getattr(sent, name) == (None if name in unsent else value)
    assert (sent.hash_data is not None) == (device.kind is IdentityKind.HARDWARE_HASH)


@given(st.lists(ANY_DEVICE, max_size=12))
def test_of_the_valid_rows_that_share_a_key_only_the_first_stays_valid(rows: list[Device]) -> None:
    before = [check(device, ALL, NOW) for device in rows]
    after = mark_duplicates(before)
    seen: set[str] = set()
    for old, new in zip(before, after, strict=True):
        if not old.is_valid:
            assert new is old
        elif seen & set(old.keys):
            assert not new.is_valid
        seen |= set(old.keys)
    still = [key for device in after for key in device.keys]
    assert len(still) == len(set(still))
    assert mark_duplicates(after) == after


@pytest.mark.parametrize("kind", IdentityKind)
def test_a_whole_order_is_checked_in_little_time(kind: IdentityKind) -> None:
    rows = [Device(**device.fields()) for device in devices(2000, 5, kind)]
    started = time.process_time()
    result = mark_duplicates([check(row, ALL, NOW) for row in rows])
    # 4 µs a tuple, 20 µs a hash on a small machine; the bound only catches a change of the order of growth.
    assert time.process_time() - started < 1
    assert all(device.kind is kind and not device.findings for device in result)


@pytest.mark.parametrize("serial", ['"SYNOPEN', "“SYNOPEN", '"', '"A" and B'])
def test_a_quotation_mark_that_never_ends_makes_a_value_doubtful(serial: str) -> None:
    """As a damaged file leaves it: the rest of the value may be in another column."""
    result = check(Device(serial_number=serial, manufacturer=MAKER, model=MODEL), ALL, NOW)
    assert [(finding.code, finding.field) for finding in result.findings] == [
        ("quote_unclosed", "serial_number")
    ]
    assert not result.is_valid


@pytest.mark.parametrize("model", ['Book 15"', 'Book 15" (2026)', "'t Book"])
def test_marks_elsewhere_are_part_of_a_value(model: str) -> None:
    result = check(Device(serial_number=SERIAL, manufacturer=MAKER, model=model), ALL, NOW)
    assert result.is_valid
    assert "quote_unclosed" not in [finding.code for finding in result.findings]
