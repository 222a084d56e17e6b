"""Torn rows, columns that mean the same, devices side by side, names in front, wrapped rows and hashes."""

import io

import pytest

from app.domain.hardware_hash import decode
from app.domain.identity import IdentityKind
from app.intake.rows import Dialect, Row, read
from app.local.synthetic import devices
from tests.unit.test_hardware_hash_damage import capture

NAMES = "Device Serial Number,Windows Product ID,Hardware Hash,Manufacturer name,Device model"
HASH = capture()


def load(text: str) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(text.encode()))
    return dialect, list(rows)


def codes(row: Row) -> list[str]:
    return [notice.code for notice in row.notices]


# --- torn rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn, maker, model",
    [
        ("Dell, Inc.,X", "Dell, Inc.", "X"),
        ("Micro-Star International Co., Ltd.,MS-7C37", "Micro-Star International Co., Ltd.", "MS-7C37"),
        ("Shenzhen Foo,Co., LTD,X 1", "Shenzhen Foo,Co., LTD", "X 1"),
        ("Bar, S.A.,X", "Bar, S.A.", "X"),
        ("QEMU,Standard PC (Q35 + ICH9, 2009)", "QEMU", "Standard PC (Q35 + ICH9, 2009)"),
    ],
)
def test_pieces_that_fit_in_one_way_are_joined_and_the_row_says_so(torn: str, maker: str, model: str) -> None:
    _, (row, other) = load(f"{NAMES}\n5CD1,,,{torn}\n5CD2,,,HP,Y\n")
    assert row.fields == {"serial_number": "5CD1", "manufacturer": maker, "model": model}
    assert codes(row) == ["value_joined"]
    assert row.is_sound
    assert codes(other) == []


@pytest.mark.parametrize(
    "row",
    [
        "5CD1,,,Dell Inc.,Latitude 5530, XCTO",
        "5CD1,,,HP,HP,ProBook",
        "5CD1,5CD2,,,HP,X",
        "5CD1,,,Foo, Bar,X",
    ],
)
def test_a_tuple_that_may_have_moved_is_an_error(row: str) -> None:
    _, (torn,) = load(f"{NAMES}\n{row}\n")
    assert "row_torn" in codes(torn)
    assert not torn.is_sound


def test_a_torn_maker_that_pushes_the_model_into_the_tag_is_found_in_a_row_of_the_right_width() -> None:
    rows = "".join(f"5CD{number},HP,X,Kiosk\n" for number in range(500))
    _, found = load(f"Serial,Make,Model,Group Tag\n{rows}5CDX,Dell, Inc.,Latitude\n{rows}")
    assert [row.number for row in found if not row.is_sound] == [501]
    assert codes(found[500]) == ["row_torn"]
    _, (row,) = load("Serial,Make,Model,Group Tag\n5CDX,Dell, Inc.,Latitude,\n")
    assert row.fields == {"serial_number": "5CDX", "manufacturer": "Dell, Inc.", "model": "Latitude"}


def test_a_hash_in_its_column_is_sent_without_what_is_behind_the_tear() -> None:
    _, (row,) = load(f"{NAMES}\n5CD1,,{HASH},Foo, Bar,X\n")
    assert set(row.fields) == {"serial_number", "hardware_hash"}
    assert codes(row) == ["row_long"]
    assert row.extra["Manufacturer name"] == "Foo"
    _, (key,) = load(f"{NAMES}\n5CD1,3305123456789,,Foo, Bar,X\n")
    assert (set(key.fields), key.is_sound) == ({"serial_number", "product_key"}, True)


@pytest.mark.parametrize("name", ["Group Tag", "Customer"])
def test_a_tag_or_customer_behind_the_tear_is_an_error_whatever_is_in_front(name: str) -> None:
    _, (row,) = load(f"Serial,PKID,Hash,{name}\n5CD1,,{HASH},Sales, North\n")
    assert codes(row) == ["row_torn"]


def test_a_tear_behind_all_that_is_sent_costs_nothing() -> None:
    _, (first, second) = load("Serial,Make,Model,Notes\n5CD1,HP,X,a\n5CD2,HP,X,a, b\n")
    assert second.is_sound
    assert codes(second) == ["row_long"]
    assert second.fields == {"serial_number": "5CD2", "manufacturer": "HP", "model": "X"}
    assert codes(first) == []


def test_makers_with_their_legal_form_in_one_cell_are_whole() -> None:
    text = "Serial,Make,Model\n5CD1,ASUSTeK COMPUTER INC.,SE\n5CD2,Apple,SE\n5CD3,Fujitsu Limited,AG\n"
    assert [codes(row) for row in load(text)[1]] == [[], [], []]


# --- columns that mean the same ---------------------------------------------------------------------


def test_a_repeated_serial_number_that_differs_is_an_error_of_its_row() -> None:
    dialect, rows = load(
        "Serial Number,Make,Model,Serial Number\nA1,HP,X,B1\nA2,HP,X,a2\nA3,HP,X,\n,HP,X,A4\n"
    )
    assert [codes(row) for row in rows] == [["identity_contradicts"], [], [], []]
    assert [row.fields["serial_number"] for row in rows] == ["A1", "A2", "A3", "A4"]
    assert [notice.code for notice in dialect.notices] == ["column_repeated"]
    assert "B1" not in rows[0].notices[0].words


def test_a_numbered_second_serial_number_is_no_unknown_column() -> None:
    _, rows = load("Serial Number,Serial Number 2,Make,Model\nA1,B1,HP,X\nA2,,HP,X\n")
    assert [codes(row) for row in rows] == [["identity_contradicts"], []]


def test_the_serial_number_of_a_part_may_differ() -> None:
    _, (row,) = load("Serial Number,Make,Model,Chassis Serial Number\nA1,HP,X,B1\n")
    assert (row.fields["serial_number"], codes(row), row.is_sound) == ("A1", ["columns_differ"], True)


def test_firmwares_names_come_first_and_lenovos_model_is_the_machine_type() -> None:
    header = "Serial Number,System Manufacturer,Manufacturer,Model Name,System Product Name,MTM\n"
    _, (lenovo, hp, same) = load(
        header
        + "A1,LENOVO,Lenovo Group,ThinkPad T14,ThinkPad T14 Gen 3,21AH00BSGE\n"
        + "A2,HP,HP,ProBook 450,HP ProBook 450 G5,\n"
        + "A3,HP,HP,X,X,X\n"
    )
    assert (lenovo.fields["manufacturer"], lenovo.fields["model"]) == ("LENOVO", "21AH00BSGE")
    assert (hp.fields["model"], codes(hp)) == ("HP ProBook 450 G5", ["columns_differ"])
    assert dict(lenovo.columns)["MTM"] == "model"
    assert codes(lenovo) == ["columns_differ", "columns_differ"]
    assert codes(same) == []


@pytest.mark.parametrize(
    "header, fields",
    [
        ("SerialNumber0,Manufacturer0,Model0", ["serial_number", "manufacturer", "model"]),
        ("SerialNumber0,DeviceHardwareData0", ["serial_number", "hardware_hash"]),
        ("IdentifyingNumber0,Name0,Vendor0", ["serial_number", "model", "manufacturer"]),
        ("N° série,Marque,Modèle", ["serial_number", "manufacturer", "model"]),
        ("Nº de serie,Marca,Modelo", ["serial_number", "manufacturer", "model"]),
        ("Lfd. Nr.,Seriennummer,Modellbezeichnung", ["line_ref", "serial_number", "model"]),
        ("Seriennummer,Bestell-Nr.,Gruppe", ["serial_number", "purchase_order", "group_tag"]),
        ("Seriennummer,Name,Hersteller", ["serial_number", None, "manufacturer"]),
    ],
)  # fmt: skip
def test_names_of_wmi_of_configuration_manager_and_of_other_languages(
    header: str, fields: list[str | None]
) -> None:
    dialect, _ = load(f"{header}\n{','.join('1' * len(fields))}\n")
    assert [field for _, field in dialect.columns] == fields


def test_a_produkt_id_is_a_pkid_where_its_content_is_one() -> None:
    dialect, _ = load("Seriennummer,Produkt-ID\n5CD1,3305123456789\n5CD2,3305123456790\n")
    assert dialect.columns[1] == ("Produkt-ID", "product_key")
    other, _ = load("Seriennummer,Produkt-ID\n5CD1,5Y3W8EA\n5CD2,5Y3W8EA\n")
    assert other.columns[1] == ("Produkt-ID", None)


# --- devices side by side -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header, line",
    [
        ("Serial,Make,Model,Serial,Make,Model", "A1,HP,X,B1,Dell Inc.,Y"),
        ("Serial;Make;Model;;Serial;Make;Model", "A1;HP;X;;B1;Dell Inc.;Y"),
        ("Serial 1,Make 1,Model 1,Serial 2,Make 2,Model 2", "A1,HP,X,B1,Dell Inc.,Y"),
        ("Serial,Make,Model,Make.1,Serial.1,Model.1", "A1,HP,X,Dell Inc.,B1,Y"),
        ("Serial 1,Serial 2,Make 1,Make 2,Model 1,Model 2", "A1,B1,HP,Dell Inc.,X,Y"),
    ],
)
def test_devices_side_by_side_are_rows_of_their_own(header: str, line: str) -> None:
    separator = ";" if ";" in header else ","
    tail = separator.join(["Kiosk", ""]).rstrip(separator)
    dialect, rows = load(f"{header}{separator}Group Tag\n{line}{separator}{tail}\n")
    assert [notice.code for notice in dialect.notices] == ["devices_side_by_side"]
    assert [(row.number, row.line) for row in rows] == [(1, 2), (2, 2)]
    assert [row.fields for row in rows] == [
        {"serial_number": "A1", "manufacturer": "HP", "model": "X", "group_tag": "Kiosk"},
        {"serial_number": "B1", "manufacturer": "Dell Inc.", "model": "Y", "group_tag": "Kiosk"},
    ]


def test_an_empty_place_beside_a_device_is_no_row() -> None:
    _, rows = load("Serial,Hash,Serial,Hash\n" + f"A1,{HASH},,\n,,B1,{HASH}\n")
    assert [(row.line, row.fields["serial_number"]) for row in rows] == [(2, "A1"), (3, "B1")]


# --- names in front -----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t", " : ", "="])
def test_names_in_front_of_values_are_devices_by_the_block(separator: str) -> None:
    blocks = [("5CD1", "HP", "HP ProBook 450 G5"), ("5CD2", "Dell Inc.", "Latitude 5530")]
    names = ("Serial Number", "Manufacturer", "Model")
    text = "\n\n".join(
        "\n".join(f"{name}{separator}{value}" for name, value in zip(names, block, strict=True))
        for block in blocks
    )
    dialect, rows = load(text + "\n")
    assert [notice.code for notice in dialect.notices] == ["names_beside_values"]
    assert [tuple(row.fields.values()) for row in rows] == blocks
    assert [(row.number, row.line) for row in rows] == [(1, 1), (2, 5)]


def test_a_vertical_table_may_have_a_device_in_each_column() -> None:
    _, rows = load("Device list\n\nSerial Number;5CD1;5CD2\nManufacturer;HP;Dell Inc.\nModel;X;Y\n")
    assert [row.fields["serial_number"] for row in rows] == ["5CD1", "5CD2"]
    assert [row.fields["model"] for row in rows] == ["X", "Y"]


def test_a_hash_that_the_console_has_wrapped_is_whole() -> None:
    first, *more = [HASH[at : at + 57] for at in range(0, len(HASH), 57)]
    lines = [f"Hardware Hash        : {first}", *(" " * 23 + piece for piece in more)]
    _, (row,) = load("\n\nDevice Serial Number : 5CD1\nWindows Product ID   : \n" + "\n".join(lines) + "\n\n")
    assert row.fields == {"serial_number": "5CD1", "hardware_hash": HASH}


@pytest.mark.parametrize(
    "text",
    [
        "Serial Number,Make,Model\nSerial,HP,X\n5CD1,HP,X\n",
        "Serial Number: as on the label,Make,Model\n5CD1,HP,X: 1\n",
        f"Device Serial Number,Windows Product ID,Hardware Hash,5CD1,,{HASH}\n" * 3,
    ],
)
def test_a_table_is_not_taken_for_names_in_front(text: str) -> None:
    try:
        dialect, _ = load(text)
    except ValueError:
        return
    assert "names_beside_values" not in [notice.code for notice in dialect.notices]


# --- wrapped rows, rules, separators, hashes ----------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_rows_in_quotation_marks_are_split(separator: str) -> None:
    header = separator.join(("Serial Number", "Make", "Model"))
    maker = f'""Dell{separator} Inc.""'
    dialect, rows = load(
        f'"{header}"\n"5CD1{separator}{maker}{separator}X"\n"5CD2{separator}HP{separator}Y"\n'
    )
    assert [notice.code for notice in dialect.notices] == ["rows_in_quotes"]
    assert [row.fields["manufacturer"] for row in rows] == [f"Dell{separator} Inc.", "HP"]
    assert [row.line for row in rows] == [2, 3]


def test_a_quoted_value_with_a_separator_is_no_row_of_its_own() -> None:
    _, rows = load('Serial,Make,Model\n"5CD1, 5CD2"\n5CD3,HP,X\n')
    assert rows[0].fields == {"serial_number": "5CD1, 5CD2"}


@pytest.mark.parametrize("other", [";", "\t", "|"])
def test_rows_with_another_separator_are_read_when_they_are_whole_then(other: str) -> None:
    row = other.join(("5CD2", "", "", '"Dell, Inc."', "X"))
    _, rows = load(f"{NAMES}\n5CD1,,,HP,X\n{row}\n5CD3{other}HP\n")
    assert rows[1].fields == {"serial_number": "5CD2", "manufacturer": "Dell, Inc.", "model": "X"}
    assert [codes(row) for row in rows] == [[], ["separator_differs"], ["row_short"]]


@pytest.mark.parametrize(
    "text",
    [
        "| Serial | Make | Model |\n|:---|---:|:--:|\n| 5CD1 | HP | X |\n",
        "| Serial | Make | Model |\n|:-|-:|:-:|\n| 5CD1 | HP | X |\n",
        "Serial | Make | Model\n--- | --- | ---\n5CD1 | HP | X\n",
        "+------+----+\n|Serial|Make|Model|\n+------+----+\n|5CD1|HP|X|\n+------+----+\n",
        "Serial,Make,Model\n------,----,-----\n5CD1,HP,X\n",
        " Serial | Make | Model \n--------+------+-------\n 5CD1 | HP | X\n",
    ],
)
def test_the_lines_of_a_drawn_table_are_no_devices(text: str) -> None:
    _, rows = load(text)
    assert [row.fields["serial_number"].strip() for row in rows] == ["5CD1"]
    assert rows[0].number == 1


@pytest.mark.parametrize("width", [64, 76, 998])
@pytest.mark.parametrize("tag", ["", "Kiosk"])
def test_a_hash_broken_over_lines_is_one_row_with_one_sentence(width: int, tag: str) -> None:
    line = f"5CD1,,{HASH}"
    pieces = [line[at : at + width] for at in range(0, len(line), width)]
    header = "Serial,PKID,Hash" + (",Tag" if tag else "")
    end = f",{tag}" if tag else ""
    _, rows = load("\n".join((header, *pieces)) + f"{end}\n5CD2,,{HASH}{end}\n")
    assert [row.fields["hardware_hash"] for row in rows] == [HASH, HASH]
    assert [row.fields.get("group_tag", "") for row in rows] == [tag, tag]
    assert [codes(row) for row in rows] == [["hash_joined"], []]
    assert [row.line for row in rows] == [2, 2 + len(pieces)]


def test_a_short_row_behind_a_cut_hash_is_no_piece_of_it() -> None:
    _, rows = load(f"Serial,PKID,Hash\n5CD1,,{HASH[:255]}\n5CD2345678\n5CD3,,{HASH}\n")
    assert [row.fields["serial_number"] for row in rows] == ["5CD1", "5CD2345678", "5CD3"]


def test_a_blank_in_a_hash_is_tried_as_the_plus_it_was() -> None:
    given = [device.hardware_hash or "" for device in devices(20, seed=4, kind=IdentityKind.HARDWARE_HASH)]
    text = next(text for text in given if "+" in text[400:])
    whole = decode(text.replace("+", " "))
    assert (whole.data, whole.repaired) == (decode(text).data, True)
    damaged = text.replace("+", " ")[:200] + "x" + text.replace("+", " ")[201:]
    with pytest.raises(ValueError, match="hash_"):
        decode(damaged)
