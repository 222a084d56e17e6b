"""JSON Lines, OA3 reports and gzip: what they give, and what they refuse."""

import gzip
import io
import json
import tracemalloc
from itertools import pairwise

import pytest

from app.intake import bounds
from app.intake.profiles import Profile
from app.intake.rows import Dialect, Row, UnreadableFile, read

HEADER = "Device Serial Number,Windows Product ID,Hardware Hash,Manufacturer name,Device model\r\n"
PLAIN = (HEADER + "5CD0000001,,,HP,HP ProBook 450 G5\r\n").encode()
SECRET = "-".join(["QWERT"] * 5)


def load(data: bytes | str, profile: Profile | None = None) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data.encode() if isinstance(data, str) else data), profile)
    return dialect, list(rows)


def refused(data: bytes | str) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        load(data)
    return caught.value


def codes(row: Row) -> list[str]:
    return [notice.code for notice in row.notices]


# --- JSON Lines -----------------------------------------------------------------------------------


def test_json_lines_know_our_names_and_suppliers_names() -> None:
    text = (
        '{"serial_number": "5CD1", "manufacturer": "HP", "model": "X", "colour": "red"}\n'
        "\n"
        '{"S/N": "5CD2", "PKID": "0284750002680", "hersteller": null, "colour": ""}\n'
    )
    dialect, rows = load(text)
    assert dialect.format == "jsonl"
    assert dialect.columns == (
        ("serial_number", "serial_number"),
        ("manufacturer", "manufacturer"),
        ("model", "model"),
        ("colour", None),
        ("S/N", "serial_number"),
        ("PKID", "product_key"),
        ("hersteller", "manufacturer"),
    )
    assert [(notice.code, notice.column) for notice in dialect.notices] == [("column_unknown", "colour")]
    assert [(row.number, row.line) for row in rows] == [(1, 1), (2, 3)]
    assert rows[0].fields == {"serial_number": "5CD1", "manufacturer": "HP", "model": "X"}
    assert rows[0].extra == {"colour": "red"}
    assert rows[1].fields == {"serial_number": "5CD2", "product_key": "0284750002680"}


def test_a_key_that_appears_late_is_used_and_told_on_its_first_row() -> None:
    lines = ['{"serial_number": "1", "make": "HP", "model": "X"}'] * 300
    lines += ['{"serial_number": "2", "make": "HP", "model": "X", "tag": "Kiosk", "shelf": "9"}'] * 2
    dialect, rows = load("\n".join(lines))
    assert dialect.notices == ()
    assert rows[300].fields["group_tag"] == "Kiosk"
    assert codes(rows[300]) == ["column_unknown"]
    assert codes(rows[301]) == []


def test_numbers_keep_their_digits_and_a_numeric_serial_number_is_told() -> None:
    text = '{"serial_number": 12345, "pkid": 4898710000000, "make": 1.50, "model": "true"}'
    _, (row,) = load(text)
    assert row.fields == {
        "serial_number": "12345",
        "product_key": "4898710000000",
        "manufacturer": "1.50",
        "model": "true",
    }
    assert [(notice.code, notice.column) for notice in row.notices] == [
        ("serial_from_number", "serial_number")
    ]


@pytest.mark.parametrize("field", ["serial_number", "product_key", "manufacturer", "model"])
def test_true_and_false_are_the_name_of_nothing(field: str) -> None:
    sound = {"serial_number": "1", "manufacturer": "HP", "model": "X", "group_tag": True, "shelf": False}
    for value in (True, False):
        _, (row,) = load(json.dumps(sound | {field: value}))
        assert [(n.code, n.column) for n in row.notices if n.code != "column_unknown"] == [
            ("value_is_boolean", field)
        ]
        assert not row.is_sound
        _, (quoted,) = load(json.dumps(sound | {field: str(value)}))
        assert quoted.is_sound


@pytest.mark.parametrize(
    "line, code",
    [
        ("{", "line_not_json"),
        ("[]", "line_not_json"),
        ("nonsense", "line_not_json"),
        ('{"serial_number": "1"} x', "line_not_json"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "line_not_json"),
        ('{"n": ' + "9" * 10_000 + "}", None),
        ('{"serial_number": "1", "serial_number": "2"}', "key_repeated"),
        ('{"serial_number": ["1"]}', "value_nested"),
        ('{"serial_number": {"a": 1}}', "value_nested"),
        ('{"serial_number": "\\ud800"}', "character_unreadable"),
        ('{"serial_number": "\\u0000"}', "character_unreadable"),
        ('{"serial_number": "' + "x" * 70_000 + '"}', "cell_too_long"),
        ('{"serial_number": "' + "x" * 1_100_000 + '"}', "line_too_long"),
        ("{" + ", ".join(f'"k{n}": 1' for n in range(600)) + "}", "too_many_cells"),
    ],
)
def test_a_broken_line_costs_that_line_only(line: str, code: str | None) -> None:
    good = '{"serial_number": "1", "make": "HP", "model": "X"}'
    _, rows = load(f"{good}\n{line}\n{good}\n")
    assert [row.line for row in rows] == [1, 2, 3]
    assert rows[0].fields == rows[2].fields
    assert rows[2].is_sound
    if code is not None:
        assert codes(rows[1])[0] == code
    "".join((*rows[1].original, *rows[1].fields.values())).encode()


def test_json_that_is_no_list_of_lines_is_told_what_to_do() -> None:
    assert refused('{"customer_id": "x", "devices": []}').code == "file_is_json"
    assert refused(json.dumps({"serial_number": "1"}, indent=1)).code == "file_is_json"
    assert refused('[{"serial_number": "1"}]').code == "file_is_json"
    assert refused('{"colour": "red"}\n{"colour": "blue"}\n').code == "columns_unknown"


def test_a_profile_maps_keys_too() -> None:
    profile = Profile.parse({"columns": {"geraet": "serial_number"}, "constants": {"manufacturer": "HP"}})
    _, rows = load('{"Geraet": "5CD1", "model": "X"}', profile)
    assert rows[0].fields == {"serial_number": "5CD1", "model": "X", "manufacturer": "HP"}


def test_json_lines_in_other_encodings_are_read() -> None:
    text = '{"serial_number": "1", "make": "Müller", "model": "X"}\n'
    for codec in ("utf-8-sig", "utf-16", "cp1252"):
        _, rows = load(text.encode(codec))
        assert rows[0].fields["manufacturer"] == "Müller"


# --- OA3 ------------------------------------------------------------------------------------------


def oa3(pkid: str = "0284750002680", hardware_hash: str = "T0HR") -> str:
    return (
        f"<Key>\r\n  <ProductKey>{SECRET}</ProductKey>\r\n  <ProductKeyID>{pkid}</ProductKeyID>\r\n"
        "  <ProductKeyState>3</ProductKeyState>\r\n"
        f"  <HardwareHash>\r\n{hardware_hash}\r\n</HardwareHash>\r\n"
        "</Key>\r\n"
    )


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("declared", ["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>'])
def test_an_oa3_report_gives_pkid_and_hash_and_never_the_key(codec: str, declared: str) -> None:
    dialect, rows = load((declared + oa3()).encode(codec))
    assert dialect.format == "oa3"
    assert dialect.columns == (("ProductKeyID", "product_key"), ("HardwareHash", "hardware_hash"))
    assert [row.fields for row in rows] == [{"product_key": "0284750002680", "hardware_hash": "T0HR"}]
    assert "QWERT" not in repr((dialect, rows))


def test_several_devices_in_one_report_are_several_rows() -> None:
    _, rows = load(f"<Keys>{oa3('0284750002680')}{oa3('6767165464144')}<Key/></Keys>")
    assert [row.fields["product_key"] for row in rows] == ["0284750002680", "6767165464144"]
    assert all(before.line < after.line for before, after in pairwise(rows))
    _, rows = load("<Keys>" + oa3("1").replace("\r\n", "") * 3 + "</Keys>")
    assert [row.line for row in rows] == [1, 2, 3]


BILLION = "".join(f'<!ENTITY a{n} "{"".join(f"&a{n - 1};" for _ in range(10))}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "text, code",
    [
        (f'<?xml version="1.0"?><!DOCTYPE Key [<!ENTITY a0 "ha">{BILLION}]><Key>&a9;</Key>', "xml_declares"),
        ('<!DOCTYPE Key SYSTEM "file:///etc/passwd"><Key/>', "xml_declares"),
        ('<!DOCTYPE Key [<!ENTITY x SYSTEM "file:///etc/passwd">]><Key>&x;</Key>', "xml_declares"),
        ("<Key><ProductKeyID>&undeclared;</ProductKeyID></Key>", "xml_damaged"),
        ("<Key>" * 100_000, "xml_damaged"),
        ("<Key><ProductKeyID>1</ProductKeyID>", "xml_damaged"),
        ("<Key>" + "".join(f"<a{n}/>" for n in range(90_000)), "xml_damaged"),
        ("<Key>" + "".join(f"<a b{n}='1'/>" for n in range(90_000)), "xml_damaged"),
        ("<Key><" + "x" * 3_000_000, "xml_damaged"),
        ("<Key><!--" + "x" * 3_000_000, "xml_damaged"),
        ("<?xml version='1.0'?><HardwareReport/>", "file_is_xml"),
        ("<Key></Key>", "file_is_xml"),
    ],
)
def test_hostile_or_other_xml_is_refused_in_bounded_memory(text: str, code: str) -> None:
    data = text.encode()
    tracemalloc.start()
    refusal = refused(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.code == code
    assert peak < 8_000_000


def test_a_value_that_does_not_end_is_left_out() -> None:
    _, rows = load(oa3(hardware_hash="A" * 3_000_000))
    assert rows[0].fields == {"product_key": "0284750002680"}
    assert codes(rows[0]) == ["cell_too_long"]


# --- gzip -----------------------------------------------------------------------------------------


def test_gzip_is_unpacked_around_any_format() -> None:
    for data, kind in ((PLAIN, "delimited"), (oa3().encode(), "oa3"), (b'{"pkid": "1"}', "jsonl")):
        dialect, rows = load(gzip.compress(data))
        assert (dialect.format, dialect.container) == (kind, "gzip")
        assert len(rows) == 1
    assert load(PLAIN)[0].container is None


def test_gzip_files_put_together_are_one_file() -> None:
    data = gzip.compress(PLAIN) + gzip.compress(b"5CD0000002,,,HP,X\r\n") + bytes(512)
    _, rows = load(data)
    assert [row.fields["serial_number"] for row in rows] == ["5CD0000001", "5CD0000002"]


def test_damaged_gzip_is_refused_wherever_it_is_cut() -> None:
    whole = gzip.compress(PLAIN)
    for end in range(2, len(whole)):
        assert refused(whole[:end]).code == "gzip_damaged", end
    assert refused(whole + b"more").code == "gzip_damaged"
    assert refused(whole[:20] + b"\xff\xff\xff" + whole[23:]).code == "gzip_damaged"


def test_gzip_in_gzip_is_refused() -> None:
    assert refused(gzip.compress(gzip.compress(PLAIN))).code == "file_is_nested_gzip"


@pytest.mark.parametrize("filling", [b"A" * 60_000_000, (b"5CD,," + b"A" * 4_000 + b",,\r\n") * 15_000])
def test_a_gzip_bomb_is_refused_in_bounded_memory(filling: bytes) -> None:
    bomb = gzip.compress(PLAIN + filling)
    tracemalloc.start()
    refusal = refused_lazily(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.code == "compression_bomb"
    assert peak < 8_000_000


def refused_lazily(data: bytes) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        for _ in read(io.BytesIO(data))[1]:
            pass
    return caught.value


def test_what_unpacks_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_BYTES", 1_000_000)
    rows = b"".join(b"5CD%07d,,,HP,X\r\n" % n for n in range(80_000))
    assert refused_lazily(gzip.compress(PLAIN + rows)).code == "file_too_large"
    assert refused_lazily(PLAIN + rows).code == "file_too_large"
