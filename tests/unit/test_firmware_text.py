"""Firmware texts pass without a word; others are reported under the right name."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import pytest

from app.domain.firmware_text import is_machine_type, is_marketing_name
from app.domain.identity import CheckedDevice, Device, IdentityKind, Rules, check
from app.domain.masking import holds_secret
from app.local.synthetic import hardware_hash

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULES = Rules(frozenset(IdentityKind))
TUPLE, KEY, HASH = IdentityKind.TUPLE, IdentityKind.PRODUCT_KEY, IdentityKind.HARDWARE_HASH

UUID_, MAC = UUID("00112233-4455-4677-8899-aabbccddeeff"), bytes.fromhex("020000000001")

HP, LENOVO, DELL, SURFACE = "HP", "LENOVO", "Dell Inc.", "Microsoft Corporation"
GOOD: Final = [
    ("5CG1234XYZ", HP, "HP EliteBook 840 G8 Notebook PC"),
    ("5CD0DA6GT5", HP, "HP ProBook 450 G5"),
    ("CND1234ABC", HP, "HP ZBook Firefly 14 inch G9 Mobile Workstation PC"),
    ("MXL1234ABC", "Hewlett-Packard", "HP Compaq Elite 8300 SFF"),
    ("CZC1234ABC", HP, "HP EliteDesk 800 G6 Desktop Mini PC"),
    ("SGH123ABCD", HP, "HP Z2 Tower G9 Workstation Desktop PC"),
    ("2UA1234ABC", HP, 'HP EliteOne 800 G6 24" All-in-One PC'),
    ("8CC1234ABC", HP, "HP Pro Mini 400 G9 Desktop PC"),
    ("5cg1234xyz", HP, "HP Elite x360 1040 14 inch G10 2-in-1 Notebook PC"),
    ("TRF1234ABC", HP, "HP Engage One Pro (AiO)"),
    ("ABC1234", DELL, "Latitude 5420"),
    ("1ABC234", DELL, "Latitude 7420"),
    ("SABC123", DELL, "Precision 3660"),
    ("S123456", DELL, "XPS 13 9310"),
    ("SN12345", DELL, "XPS 15 9520"),
    ("1SABC23", DELL, "Latitude 3540"),
    ("7654321", DELL, "OptiPlex 7090 (UFF)"),
    ("JG7X2K3", DELL, "OptiPlex 7090"),
    ("5E12345", DELL, "Latitude 7330 Rugged Extreme"),
    ("NULL123", DELL, "Pro 14 Plus PB14250"),
    ("PF3ABCD1", LENOVO, "20XW0026US"),
    ("PC0ABCD1", LENOVO, "21G2001VUS"),
    ("MJ0ABCDE", LENOVO, "11T30029GE"),
    ("R90ABCD1", LENOVO, "20Q5S00A00"),
    ("R9-0ABCD1", LENOVO, "2324AS8"),
    ("LR0ABC12", LENOVO, "20378"),
    ("YD0ABCD1", LENOVO, "82WM"),
    ("SPF12345", LENOVO, "21DE0022MH"),
    ("PW0ABCD1", "Lenovo", "21JN004MGE"),
    ("012345654321", SURFACE, "Surface Laptop 4"),
    ("001234567890", SURFACE, "Surface Pro 9"),
    ("0F00ABC123456X", SURFACE, "Surface Go 3"),
    ("033512345678", SURFACE, "Surface Laptop Studio 2"),
    ("0KTSA12345", "Panasonic Connect Co., Ltd.", "CF-33"),
    ("1ATSA12345", "Panasonic Corporation", "FZ55-2"),
    ("8JKSB54321", "Panasonic Corporation", "CFSV9-1"),
    ("YLXX012345", "FUJITSU CLIENT COMPUTING LIMITED", "LIFEBOOK U9312"),
    ("YMSA012345", "FUJITSU", "LIFEBOOK E5511"),
    ("DSEF012345", "FUJITSU", "ESPRIMO_D7010"),
    ("YLXX012345-1", "FUJITSU", "CELSIUS H7510"),
    ("VMware-56 4d 3f 2a 11 22 33 44-55 66 77 88 99 aa bb cc", "VMware, Inc.", "VMware20,1"),
    ("VMware-42 1c 0e 9d 5f 00 10 ab-de f0 12 34 56 78 9a bc", "VMware, Inc.", "VMware Virtual Platform"),
    ("0000-0011-2233-4455-6677-8899-01", SURFACE, "Virtual Machine"),
    ("9876-5432-1098-7654-3210-9876-54", SURFACE, "Virtual Machine"),
    (
        "Parallels-1A 2B 3C 4D 5E 6F 70 81 92 A3 B4 C5 D6 E7 F8 09",
        "Parallels International GmbH.",
        "Parallels ARM Virtual Machine",
    ),
    ("ec2e1916-9099-7caf-fd21-012345abcdef", "Amazon EC2", "t3.large"),
    ("GoogleCloud-0123456789ABCDEF0123456789ABCDEF", "Google", "Google Compute Engine"),
    ("a1b2c3d4-e5f6-4789-8abc-def012345678", "QEMU", "Standard PC (Q35 + ICH9, 2009)"),
    ("QM00001", "QEMU", "Standard PC (i440FX + PIIX, 1996)"),
    ("vm-00042.lab", "Red Hat", "KVM"),
    ("0123-4567-8901-2345-6789-0123-45", SURFACE, "Virtual Machine"),
    ("RN123S4567", "Getac", "V110"),
    ("RG1234X5678", "Getac Technology Corporation", "S410"),
    ("X1234567H", "Dynabook Inc.", "PORTEGE X40-J"),
    ("3D012345H", "TOSHIBA", "TECRA A50-EC"),
    ("Z2012345R", "Dynabook Inc.", "SATELLITE PRO C50-E"),
    ("NXVPVEG00112345678AB01", "Acer", "TravelMate P214-53"),
    ("NXHQ5EG001123045F23400", "Acer", "Aspire A515-56"),
    ("DTVV2EG0031234567896300", "Acer", "Veriton X2690G"),
    ("L4NXCV12A345678", "ASUSTeK COMPUTER INC.", "ExpertBook B1400CEAE_B1400CEAE"),
    ("M2N0CX01A12345B", "ASUSTeK COMPUTER INC.", "ROG Zephyrus G14 GA402XV_GA402XV"),
    ("R5PFAG001234", "ASUSTeK COMPUTER INC.", "Zenbook UX3402ZA_UX3402ZA"),
    ("9S7-16R6E2-2345", "Micro-Star International Co., Ltd.", "Katana GF66 12UD"),
    ("9S716R6E2234ZK1000123", "Micro-Star International Co., Ltd.", "Modern 14 B11MOU"),
    ("K2201N0012345", "Micro-Star International Co., Ltd.", "MS-7D25"),
    ("3012345", "VAIO Corporation", "VJS142C11N"),
    ("27512345-3001234", "VAIO Corporation", "VJPK11C11N"),
    ("NKNF512345B", "SAMSUNG ELECTRONICS CO., LTD.", "950XDB/951XDB/950XDY"),
    ("0A1B2C3D4E5F", "LG Electronics", "16Z90P-G.AA78G"),
    ("2012345678.001", "Intel(R) Client Systems", "NUC11TNHi5"),
    ("G6PN12345678", "Intel Corporation", "NUC7i5BNH"),
    ("FVFXC123Q6L4", "Apple Inc.", "MacBookPro16,1"),
    ("C02ABC12D3E4", "Apple Inc.", "MacBookAir9,1"),
    ("K1234567890", "Zebra Technologies", "ET80"),
    ("20123000012345", "Zebra Technologies", "XSLATE L10ax"),
    ("N1234567-01", "TUXEDO", "TUXEDO InfinityBook Pro 14 v4"),
    ("TERRA_1234567", "WORTMANN AG", "TERRA MOBILE 1517"),
    ("R2345678", "WORTMANN_AG", "TERRA_PC"),
    ("BTI1234567890", "Positivo Tecnologia SA", "VAIO FE14"),
    ("1234-5678-ABCD", "bluechip", "TRAVELline B14W"),
    ("SYN0000001", "Contoso", "Contoso Book 14"),
    ("FRANBMCPAA1234000A", "Framework", "Laptop (13th Gen Intel Core)"),
    ("E1CX12345", "GIGABYTE", "AERO 16 XE5"),
    ("7CX12345", "Razer", "Blade 15 Advanced Model (Early 2021) - RZ09-036"),
    ("000012345678", "HUAWEI", "MACHC-WAX9"),
    ("S4NXCV00123456", "XIAOMI", "Z13/16"),
    ("0012345", "Motion Computing", "F5m"),
    ("CF1234567890", "Medion", "E15410 MD62110"),
    ("W1234567890123", "Teclast", "F7 Plus"),
    ("ABCDEFG", DELL, "Latitude 5430"),
    ("BCDFGHJ", DELL, "Latitude 5440"),
    ("VMware-56 4d 3f 2a 11 22 33 44-55 66 77 88 99 aa bb ff", "VMware, Inc.", "VMware20,1"),
    ("Parallels-1A BB CC DD EE FF AA BB CC DD EE FF AA BB CC FF", "Parallels", "Parallels ARM"),
    ("9876 5432 1098 7654", SURFACE, "Virtual Machine"),
    ("PC 1234567", "Medion", "AKOYA"),
    ("TOTAL12345", "Contoso", "Contoso Book 15"),
    ("PAGE-12345", "Contoso", "Contoso Book 16"),
    ("27512345-3", "VAIO Corporation", "VJPK21C11N"),
    ("00-11-2233", "Contoso", "Contoso Book 17"),
]


def judged(serial: str, maker: str | None = "HP", model: str | None = "HP ProBook 450 G5") -> CheckedDevice:
    return check(Device(serial_number=serial, manufacturer=maker, model=model), RULES, NOW)


def said(device: CheckedDevice) -> list[tuple[str, str]]:
    return [(finding.code, finding.field) for finding in device.findings]


def test_the_table_of_good_devices_is_large_and_says_each_once() -> None:
    assert len({row[0] for row in GOOD}) == len(GOOD) > 80


@pytest.mark.parametrize(("serial", "maker", "model"), GOOD)
def test_what_real_firmware_says_passes_without_a_word(serial: str, maker: str, model: str) -> None:
    device = judged(serial, maker, model)
    assert (device.kind, said(device)) == (TUPLE, [])
    assert (device.serial_number, device.manufacturer, device.model) == (serial, maker, model)
    assert not any(map(holds_secret, (serial, maker, model)))


@pytest.mark.parametrize(
    "serial",
    [
        *(
            "N.A.",
            "n/a",
            "N A",
            "(n/a)",
            "None",
            "NULL",
            "(null)",
            "nil",
            "TBD",
            "t.b.d.",
            "-",
            "--",
            "?",
            ".",
        ),
        *("...", "—", "---------------", "***", "Unknown", "pending", "see label", "SEE-LABEL", "Empty"),
        *("To be filled by O.E.M.", "To Be Filled By O.E.M", "Default string", "Default_String"),
        *(
            "System Serial Number",
            "Chassis Serial Number",
            "Base Board Serial Number",
            "Serial Number",
            "S/N:",
        ),
        *(
            "Not Available",
            "not applicable",
            "Not Specified",
            "INVALID",
            "OEM",
            "O.E.M.",
            "unbekannt",
            "k.A.",
        ),
        *(
            "XXXXXXX",
            "xxx",
            "0000000",
            "FFFFFFFF",
            "1111111",
            "0123456789",
            "123456789",
            "1234567890",
            "1234567",
        ),
        *("see invoice", "siehe Lieferschein", "siehe Lieferschein 4711", "not yet delivered", "to follow"),
        *(
            "Total",
            "Gesamt 12",
            "Total: 25 devices",
            "25 Stück",
            "Summe:",
            "Page 1 of 3",
            "Seite 1",
            "page 2/3",
        ),
        *("TRUE", "FALSE", "wahr", "Falsch", "no", "voir facture", "en rupture de stock"),
        *("ninguno", "aucun", "нет", "不明", "SMBIOS_STRING_INDEX_1", "123456789ABCDEF"),
    ],
)
def test_a_placeholder_is_no_serial_number_of_a_tuple(serial: str) -> None:
    device = judged(serial)
    assert (device.kind, said(device)) == (None, [("serial_placeholder", "serial_number")])
    beside = check(Device(serial_number=serial, product_key="9999000000001"), RULES, NOW)
    assert (beside.kind, beside.serial_number) == (KEY, None)
    assert said(beside) == [("value_placeholder", "serial_number")]


@pytest.mark.parametrize("field", ["manufacturer", "model"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "To be filled by O.E.M.",
            "System manufacturer",
            "System Product Name",
            "Default string",
            "N/A",
            "-",
        ),
        *(
            "Unknown",
            "unknown",
            "Not Specified",
            "INVALID",
            "OEM",
            "Type1ProductConfigId",
            "None",
            "NULL",
            "?",
        ),
        *("n.a.", "keine", "#", "xxx", "0", "Product Name", "system-manufacturer", "SYSTEM PRODUCT NAME"),
    ],
)
def test_a_placeholder_is_neither_maker_nor_model_of_a_tuple(field: str, value: str) -> None:
    parts = {
        "serial_number": "SYN0000001",
        "manufacturer": "Contoso",
        "model": "Contoso Book 14",
        field: value,
    }
    device = check(Device(**parts), RULES, NOW)
    assert (device.kind, said(device)) == (None, [(f"{field}_placeholder", field)])
    whole = hardware_hash("SYN0000001", "Contoso", "Contoso Book 14", uuid=UUID_, mac=MAC)
    for kind, other in ((KEY, {"product_key": "9999000000001"}), (HASH, {"hardware_hash": whole})):
        device = check(Device(**(parts | other)), RULES, NOW)
        assert (device.kind, getattr(device, field)) == (kind, None)
        assert ("value_placeholder", field) in said(device)
        assert not any(finding.is_error for finding in device.findings)


@pytest.mark.parametrize(
    "serial",
    [
        "5CDBLF0XUA, 5CDBMKKJ9C, 5CDGQZ8Q4B",
        "5CDBLF0XUA,5CDBMKKJ9C",
        "5CDBLF0XUA; 5CDBMKKJ9C",
        "0YRCTY9B/CNDF1A5HS5",
        "0YRCTY9B / CNDF1A5HS5",
        "5CD1234567|5CD1234568",
        "5CD1234567\n5CD1234568",
        "5CD1234567\r\n5CD1234568\r\n",
        "5CD1234567 5CD1234568",
        "5CD1234567 and 5CD1234568",
        "5CD1234567 & 5CD1234568",
        "5CD1234567 und 5CD1234568",
        "5CD1234567 - 5CD1234570",
        "5CD1234567 to 5CD1234570",
        "5CD1234567 bis 70",
        "5CD1234567-5CD1234570",
        "5CD1234567..5CD1234570",
        "S/N: 5CD1234567, 5CD1234568",
        "5CD1111AAA0 -- 5CD1111AAA9",
        "5CD1111AAA0--5CD1111AAA9",
        "5CD1111AB1 ff.",
        "5CD1111AB1 ff",
        "5CD1111AB1 etc",
        "5CD1111AB1, etc.",
        "5CD1111AB1 ...",
        "5CD1111AB1 usw.",
        "5CD1111AAR+5CD1111AAS",
        "5CD1111AAR&5CD1111AAS",
        "5CD1111AAO, -P, -Q",
    ],
)
def test_several_serial_numbers_in_one_cell_are_an_error(serial: str) -> None:
    device = judged(serial)
    assert (device.kind, said(device)) == (None, [("several_serials", "serial_number")])


@pytest.mark.parametrize(
    ("serial", "likely"),
    [
        ("S/N: 5CD1234568", "5CD1234568"),
        ("s/n 5CD1234568", "5CD1234568"),
        ("S/N5CD1234568", "5CD1234568"),
        ("SN 5CD1234568", "5CD1234568"),
        ("SN:5CD1234568", "5CD1234568"),
        ("SN# 5CD1234568", "5CD1234568"),
        ("Serial: 5CD1234568", "5CD1234568"),
        ("Serial No. 5CD1234568", "5CD1234568"),
        ("serial number = 5CD1234568", "5CD1234568"),
        ("Seriennummer: 5CD1234568", "5CD1234568"),
        ("Serien-Nr. 5CD1234568", "5CD1234568"),
        ("Service Tag: ABC1234", "ABC1234"),
        ("Asset: 5CD1234568", "5CD1234568"),
        ("5CD1234568 (HP ProBook 450 G5)", "5CD1234568"),
        ("5CD1234568 [new]", "5CD1234568"),
        ("(5CD1234568)", "5CD1234568"),
        ("*5CD1234568*", "5CD1234568"),
        (">5CD1234568", "5CD1234568"),
        ("5CD1234568;", "5CD1234568"),
        ("S5CD1234568", "5CD1234568"),
        ("Ser.-Nr. 5CD1111AAJ", "5CD1111AAJ"),
        ("Ser. No.: 5CD1111AAJ", "5CD1111AAJ"),
        ("S.Nr. 5CD1111AAJ", "5CD1111AAJ"),
        ("2x 5CD1111AAC", "5CD1111AAC"),
        ("5CD1111AAC x 2", "5CD1111AAC"),
        ("5CD1111AAE - defekt", "5CD1111AAE"),
        ("5CD1111AAE, defekt", "5CD1111AAE"),
        ("5CD1111AAE/defekt", "5CD1111AAE"),
        ("5CD1111AAF defekt", "5CD1111AAF"),
        ("NEW 5CD1111AAF", "5CD1111AAF"),
        ("HP 5CD1111AAF", "5CD1111AAF"),
        ("5CD1111AC0 HP EliteBook", "5CD1111AC0"),
        ("5CD1111AC0 HP EliteBook 840 G8", "5CD1111AC0"),
        ("(21)5CD1111AB8", "5CD1111AB8"),
        ("(01)04012345678901(21)5CD1111AB8", "5CD1111AB8"),
        ("(S) 5CD1111AB8", "5CD1111AB8"),
    ],
)
def test_what_is_around_a_serial_number_is_named_with_the_likely_one(serial: str, likely: str) -> None:
    device = judged(serial)
    assert (device.kind, said(device)) == (TUPLE, [("value_unlikely", "serial_number")])
    assert device.findings[0].detail.endswith(f'probably "{likely}".')


@pytest.mark.parametrize(
    "serial",
    [
        *("http://hp.com/5CD1111AB9", "www.hp.com/5CD1111AB9", "5CD1111AB9@hp.com"),
        *("MAC: 00:11:22:33:44:55", "00-11-22-33-44-55", "X", "AA"),
    ],
)
def test_what_is_hardly_a_serial_number_names_no_likely_one(serial: str) -> None:
    device = judged(serial)
    assert (device.kind, said(device)) == (TUPLE, [("value_unlikely", "serial_number")])
    assert "probably" not in device.findings[0].detail


@pytest.mark.parametrize(
    ("serial", "maker", "model", "likely"),
    [
        ("1S21G2001VUSPF3ABCD1", LENOVO, "21G2001VUS", "PF3ABCD1"),
        ("1S21G2001VUSPF3ABCD1", LENOVO, "ThinkPad", "PF3ABCD1"),
        ("1S2324AS8R90ABCD1", LENOVO, "2324AS8", "R90ABCD1"),
        ("1S2324AS8R90ABCD", LENOVO, "other", "R90ABCD"),
        ("SPF3ABCD1", LENOVO, "21G2001VUS", "PF3ABCD1"),
        ("SABC1234", DELL, "Latitude 5420", "ABC1234"),
        ("S012345678912", SURFACE, "Surface Laptop 4", "012345678912"),
    ],
)
def test_the_prefix_of_a_scanner_is_named_with_the_likely_serial_number(
    serial: str, maker: str, model: str, likely: str
) -> None:
    device = judged(serial, maker, model)
    assert (device.kind, said(device)) == (TUPLE, [("value_unlikely", "serial_number")])
    assert f'"{likely}"' in device.findings[0].detail


@pytest.mark.parametrize("serial", ["5CD12#4567", "5CD123,45", "5CD1234567/01", "5CD1+2", "5CD1:2"])
def test_a_sign_that_hardly_any_serial_number_has_is_named(serial: str) -> None:
    device = judged(serial)
    assert (device.kind, said(device)) == (TUPLE, [("value_unlikely", "serial_number")])


@pytest.mark.parametrize(
    ("serial", "words"),
    [
        ("ＣＮＤ1234567", 'Character 1, "Ｃ", is U+FF23 (FULLWIDTH LATIN CAPITAL LETTER C)'),
        ("5С\N{CYRILLIC CAPITAL LETTER ER}1234567", "Character 2,"),
        ("5CD12345Ο7", "GREEK CAPITAL LETTER OMICRON"),
        ("5CD–1234567", "EN DASH"),
        ("5CDé234567", "LATIN SMALL LETTER E WITH ACUTE"),
    ],
)
def test_a_letter_that_only_looks_right_is_an_error_that_names_it(serial: str, words: str) -> None:
    device = judged(serial)
    assert (device.kind, said(device)) == (None, [("serial_not_ascii", "serial_number")])
    assert words in device.findings[0].detail


def test_a_letter_that_only_looks_right_spoils_no_other_identity() -> None:
    whole = hardware_hash("5CD1234567", "HP", "HP ProBook 450 G5", uuid=UUID_, mac=MAC)
    for kind, other in ((KEY, {"product_key": "9999000000001"}), (HASH, {"hardware_hash": whole})):
        device = check(Device(serial_number="5СD1234567", **other), RULES, NOW)
        assert (device.kind, device.serial_number) == (kind, None)
        assert ("value_not_sent", "serial_number") in said(device)
    device = check(Device(serial_number="5СD7654321", hardware_hash=whole), RULES, NOW)
    assert ("hash_serial_mismatch", "serial_number") in said(device)
    assert not device.is_valid


def test_the_plain_form_of_look_alike_letters_is_offered() -> None:
    assert 'probably "CND1234567"' in judged("ＣＮＤ１２３４５６７").findings[0].detail
    assert 'probably "5CPD234567"' in judged("5С\N{CYRILLIC CAPITAL LETTER ER}D234567").findings[0].detail


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("HP ProBook 450 G5®", "REGISTERED SIGN"),
        ("Latitude 5420 – Rugged", "EN DASH"),
        ("ThinkBook 14² G6", "SUPERSCRIPT TWO"),
        ("Model: Latitude 5420", '"Latitude 5420"'),
        ("*Latitude 5420*", '"Latitude 5420"'),
        ("<Latitude 5420>", '"Latitude 5420"'),
        ("Straße 14", "LATIN SMALL LETTER SHARP S"),
    ],
)
def test_what_hardly_any_firmware_has_in_a_model_is_a_warning(model: str, words: str) -> None:
    device = judged("5CD1234567", "HP", model)
    assert (device.kind, said(device)) == (TUPLE, [("value_unlikely", "model")])
    assert words in device.findings[0].detail


@pytest.mark.parametrize("model", ["Inc.", " Ltd.", "Co., Ltd.", "LLC", "GmbH", "Corporation", "S.A."])
def test_the_end_of_a_makers_name_is_no_model(model: str) -> None:
    device = judged("5CD1234567", "Dell", model)
    assert (device.kind, said(device)[-1]) == (None, ("value_torn", "model"))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('="5CD1234567"', "5CD1234567"),
        ('"=""5CD1234567"""', "5CD1234567"),
        ('=""5CD1234567""', "5CD1234567"),
        ("=5CD1234567", "5CD1234567"),
        ('=T("0012345678")', "0012345678"),
        ('\'="5CD1234567"', "5CD1234567"),
        ("'5CD1234567", "5CD1234567"),
        ("“5CD1234567”", "5CD1234567"),
        ('= "5CD1234567"', "5CD1234567"),
    ],
)
def test_what_a_spreadsheet_puts_around_a_text_is_taken_off(written: str, value: str) -> None:
    device = judged(written)
    assert (device.kind, device.serial_number) == (TUPLE, value)
    assert said(device) == [("value_quoted", "serial_number")]
    assert judged("5CD1234567", f'="{HP}"').manufacturer == HP
    key = check(Device(product_key='="9999000000001"'), RULES, NOW)
    assert (key.kind, key.product_key) == (KEY, "9999000000001")
    tag = check(Device(product_key="9999000000001", group_tag='="Kiosk"'), RULES, NOW)
    assert (tag.group_tag, said(tag)) == ("Kiosk", [("value_quoted", "group_tag")])


@pytest.mark.parametrize(
    "written", ["=A2", "=Sheet1!$A$2", "=VLOOKUP(A2;B:C;2;0)", '=A2&B2&"x"', '=CONCAT("a")']
)
def test_a_formula_that_was_not_worked_out_is_no_value(written: str) -> None:
    device = judged(written)
    assert (device.kind, said(device)) == (None, [("value_is_formula", "serial_number")])


def test_what_is_inside_of_quotation_marks_is_judged_too() -> None:
    assert said(judged('="N/A"')) == [
        ("value_quoted", "serial_number"),
        ("serial_placeholder", "serial_number"),
    ]
    assert said(judged("''"))[0][0] == "incomplete_tuple"


def test_machine_types_are_told_from_the_names_that_devices_are_sold_under() -> None:
    for model in ("20XW0026US", "21G2001VUS", "2324AS8", "82WM", "20378"):
        assert is_machine_type(model)
    assert is_marketing_name("LENOVO", "ThinkPad T14 Gen 2")
    assert not is_marketing_name("LENOVO", "20XW0026US")
    assert not is_marketing_name("HP", "HP ProBook 450 G5")
