"""Headers by any of their names, files without names, reports, and what gets reported."""

import io

import pytest

from app.intake.columns import ALIASES, FIELDS, field_of, normalise
from app.intake.rows import Dialect, Kind, Row, UnreadableFile, read

HASH = "T0HR" + "AgEA" * 999
PKIDS = ["0284750002680", "6767165464144", "0578813788017"]


def load(text: str) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(text.encode()))
    return dialect, list(rows)


def fields_of(dialect: Dialect) -> list[str | None]:
    return [field for _, field in dialect.columns]


@pytest.mark.parametrize("field", FIELDS)
def test_every_alias_means_its_field_in_any_capitalisation(field: str) -> None:
    for name in ALIASES[field]:
        for written in (name, name.upper(), name.lower(), name.replace(" ", "_"), f" {name} "):
            assert field_of(written) == field


@pytest.mark.parametrize(
    "name, field",
    [
        ("deviceSerialNumber", "serial_number"),
        ("serialNumber", "serial_number"),
        ("hardwareIdentifier", "hardware_hash"),
        ("ProductKeyID", "product_key"),
        ("productKey", "product_key"),
        ("oemManufacturerName", "manufacturer"),
        ("modelName", "model"),
        ("orderIdentifier", "group_tag"),
        ("assignedUserPrincipalName", "assigned_user"),
        ("Serial No.", "serial_number"),
        ("NUMERO DE SERIE", "serial_number"),
        ("Order ID", "purchase_order"),
        ("Product Number", None),
        ("x" * 5000, None),
    ],
)
def test_names_of_apis_and_spreadsheets_are_known(name: str, field: str | None) -> None:
    assert field_of(name) == field


def test_names_are_compared_without_accents_and_punctuation() -> None:
    assert normalise("Numéro_de-Série (N°)") == "numerodeserien"


@pytest.mark.parametrize("style", [str, str.upper, str.lower, str.title])
def test_partner_centers_template_is_known_in_any_capitalisation(style: type[str]) -> None:
    header = style("Device serial number,Windows product ID,Hardware hash,Manufacturer name,Device model")
    dialect, rows = load(header + "\n5CD1,,,HP,X\n")
    assert dialect.kind is Kind.PARTNER_CENTER
    assert rows[0].fields == {"serial_number": "5CD1", "manufacturer": "HP", "model": "X"}


def test_columns_in_an_order_of_their_own_are_generic_and_unknown_ones_are_kept_and_reported() -> None:
    dialect, rows = load("Model;Warranty;Make;Line;S/N;\nX;3 years;HP;7;5CD1;\n")
    assert dialect.kind is Kind.GENERIC
    assert dialect.columns == (
        ("Model", "model"),
        ("Warranty", None),
        ("Make", "manufacturer"),
        ("Line", "line_ref"),
        ("S/N", "serial_number"),
    )
    assert rows[0].extra == {"Warranty": "3 years"}
    assert rows[0].fields["line_ref"] == "7"
    assert rows[0].notices == ()
    assert [(n.code, n.column) for n in dialect.notices] == [
        ("column_unknown", "Warranty"),
        ("column_not_sent", "Line"),
    ]


def test_of_two_columns_for_one_field_the_more_exact_name_wins_and_the_other_is_kept() -> None:
    dialect, rows = load("Service Tag,Device Serial Number,Make,Model,Notes,Notes\nTAG1,5CD1,HP,X,a,b\n")
    assert rows[0].fields["serial_number"] == "5CD1"
    assert rows[0].extra == {"Service Tag": "TAG1", "Notes": "a", "Notes (column 6)": "b"}
    codes = [notice.code for notice in dialect.notices]
    assert codes == ["column_repeated", "column_unknown", "column_unknown"]


def test_a_doubtful_name_is_believed_only_when_the_content_proves_it() -> None:
    proved, rows = load("Serial Number,Product ID\n5CD1,0284750002680\n5CD2,6767165464144\n")
    assert rows[0].fields["product_key"] == "0284750002680"
    assert [notice.code for notice in proved.notices] == ["column_by_content"]
    article, rows = load("Serial Number,Product ID\n5CD1,5Y3W8EA#ABD\n5CD2,5Y3W8EA#ABD\n")
    assert rows[0].extra == {"Product ID": "5Y3W8EA#ABD"}
    assert [notice.code for notice in article.notices] == ["column_unknown"]


def test_title_lines_above_the_header_are_passed_over_and_counted() -> None:
    dialect, rows = load("Delivery note 4711\n\nDevices,,\nSerial Number,Make,Model\n5CD1,HP,X\n")
    assert dialect.header_row == 4
    assert [notice.words for notice in dialect.notices] == ["2 lines above the table were passed over."]
    assert (rows[0].number, rows[0].line) == (1, 5)


def test_excels_separator_line_is_understood() -> None:
    dialect, rows = load("sep=;\nSerial Number;Make;Model\n5CD1;HP;X, Y\n")
    assert (dialect.delimiter, dialect.header_row, dialect.notices) == (";", 2, ())
    assert rows[0].fields["model"] == "X, Y"


def test_the_same_header_again_is_no_device() -> None:
    one = "Device Serial Number,Windows Product ID,Hardware Hash\n5CD1,," + HASH + "\n"
    _, rows = load(one + one + one)
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 4), (3, 6)]
    assert all(row.notices == () for row in rows)


def test_another_header_further_down_changes_the_columns_from_there_on() -> None:
    first = "Device Serial Number,Windows Product ID,Hardware Hash\n5CD1,," + HASH + "\n"
    second = "Device Serial Number,Windows Product ID,Hardware Hash,Group Tag\n5CD2,," + HASH + ",Kiosk\n"
    _, rows = load(first + second)
    assert rows[1].fields["group_tag"] == "Kiosk"
    assert [notice.code for notice in rows[1].notices] == ["header_repeated"]


def test_lines_below_a_device_are_never_passed_over() -> None:
    _, rows = load(
        "Serial Number,Make,Model\n5CD1,HP,X\nSerial Number,Make,Model,Group Tag\n5CD2,HP,X,Kiosk\n"
    )
    assert [row.fields["serial_number"] for row in rows] == ["5CD1", "5CD2"]
    _, rows = load(
        f"5CD1000,,{HASH}\nDevice Serial Number,Windows Product ID,Hardware Hash\n5CD1001,,{HASH}\n"
    )
    assert [row.fields["serial_number"] for row in rows] == ["5CD1000", "5CD1001"]


def test_a_configmgr_report_with_one_device_is_recognised_by_its_hash() -> None:
    names = "Device Serial Number,Windows Product ID,Hardware Hash"
    dialect, rows = load(f"Report,,,,,\n{names},5CD1,,{HASH}\n")
    assert dialect.kind is Kind.CONFIGMGR
    assert rows[0].fields == {"serial_number": "5CD1", "hardware_hash": HASH}


def test_a_configmgr_row_is_read_by_its_own_names_and_a_footer_is_an_error_row() -> None:
    names = "Device Serial Number,Windows Product ID,Hardware Hash"
    other = "Windows Product ID,Device Serial Number,Hardware Hash"
    _, rows = load(f"{names},5CD1,,{HASH}\n{names},5CD2,,{HASH}\n{other},,5CD3,{HASH}\n2 devices,,,,,\n")
    assert [row.fields.get("serial_number") for row in rows] == ["5CD1", "5CD2", "5CD3", None]
    assert [notice.code for notice in rows[3].notices] == ["names_missing"]
    assert not rows[3].is_sound


def headerless(*rows: str) -> tuple[list[str | None], list[Row]]:
    dialect, read_rows = load("".join(row + "\n" for row in rows))
    assert dialect.kind is Kind.HEADERLESS
    assert "header_missing" in [notice.code for notice in dialect.notices]
    return fields_of(dialect), read_rows


@pytest.mark.parametrize(
    "lines, fields",
    [
        ([HASH], ["hardware_hash"]),
        (PKIDS, ["product_key"]),
        ([f"5CD1,{HASH}"], ["serial_number", "hardware_hash"]),
        ([f"{HASH}\t5CD1"], ["hardware_hash", "serial_number"]),
        ([f"5CD1,,{HASH},Kiosk"], ["serial_number", "product_key", "hardware_hash", "group_tag"]),
        (
            [f"5CD1,,{HASH},Kiosk,jane@contoso.example"],
            ["serial_number", "product_key", "hardware_hash", "group_tag", "assigned_user"],
        ),
        (
            ["5CD1,,,HP,HP ProBook 450 G5", "5CD2,,,Dell Inc.,Latitude 5530"],
            ["serial_number", "product_key", "hardware_hash", "manufacturer", "model"],
        ),
        (
            ["5CD1000,,,HP,HP ProBook 450 G5", f",{PKIDS[0]},,,", f",,{HASH},,"],
            ["serial_number", "product_key", "hardware_hash", "manufacturer", "model"],
        ),
        (["5CD1|Dell Inc.|Latitude 5530"], ["serial_number", "manufacturer", "model"]),
        (["PF0DLN1BS,LENOVO,21G2001VUS"], ["serial_number", "manufacturer", "model"]),
    ],
)
def test_files_without_a_header_are_told_by_their_content(lines: list[str], fields: list[str | None]) -> None:
    found, rows = headerless(*lines)
    assert found == fields
    assert len(rows) == len(lines)


def test_the_identifier_order_is_taken_with_a_warning() -> None:
    dialect, rows = load("Microsoft,Surface Laptop 5,012345678901\nHP,HP ProBook 450 G5,5CD1000\n")
    assert rows[1].fields == {"manufacturer": "HP", "model": "HP ProBook 450 G5", "serial_number": "5CD1000"}
    assert [notice.code for notice in dialect.notices] == ["header_missing", "corporate_identifier_layout"]


def test_unknown_names_over_hashes_are_a_header_and_not_a_device() -> None:
    dialect, rows = load(f"Laitteen numero,Tiiviste\n5CD1000,{HASH}\n5CD1001,{HASH}\n")
    assert dialect.header_row == 1
    assert dialect.columns == (("Laitteen numero", "serial_number"), ("Tiiviste", "hardware_hash"))
    assert [notice.code for notice in dialect.notices] == ["column_by_content"] * 2
    assert [row.number for row in rows] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "5CD1000\n5CD1001\n",
        "Contoso,Notebook,5CD1000\nFabrikam,Tablet,5CD1001\n",
        "Name,Department\nJane,Sales\n",
        "Group Tag,Assigned User\nKiosk,jane@contoso.example\n",
        "hello",
    ],
)
def test_what_the_content_does_not_decide_is_refused_with_a_header_to_copy(text: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        load(text)
    assert caught.value.code == "columns_unknown"
    assert "Device Serial Number,Windows Product ID,Hardware Hash" in caught.value.words
    assert "5CD1000" not in caught.value.words


def test_a_header_without_rows_gives_no_rows() -> None:
    dialect, rows = load("Device Serial Number,Windows Product ID,Hardware Hash\r\n")
    assert dialect.kind is Kind.COLLECTOR
    assert rows == []


def test_notices_never_carry_values() -> None:
    secret = "SECRET0001"
    text = f"Serial Number,Make,Model,Other\n{secret},{secret}\n{secret},HP,X,{secret},{secret}\n"
    dialect, rows = load(text)
    words = [n.words for n in dialect.notices] + [n.words for row in rows for n in row.notices]
    assert len(words) == 3
    assert not any(secret in sentence for sentence in words)
