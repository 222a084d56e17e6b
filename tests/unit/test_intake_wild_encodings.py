"""Texts of the world's code pages, stated or guessed, and plain text behind UTF-16."""

import io

import pytest

from app.intake.rows import Dialect, Row, Wanted, read
from app.intake.text.encodings import NAMES, named

HEADER = "Serial Number,Manufacturer,Model,Group Tag\r\n"


def load(data: bytes, encoding: str | None = None) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data), wanted=Wanted(encoding=encoding))
    return dialect, list(rows)


def codes(row: Row) -> list[str]:
    return [notice.code for notice in row.notices]


TAGS = [
    ("cp1252", "Zürich"), ("cp1252", "Straße"), ("cp1252", "Siège social"), ("cp1252", "Ação"),
    ("cp1252", "København"), ("cp1252", "Málaga"), ("cp1252", "GRÖSSE"), ("cp1252", "Dell’s"),
    ("cp1251", "Москва"), ("cp1251", "Бухгалтерия"), ("cp1251", "Київ"), ("cp866", "Бухгалтерия"),
    ("koi8_r", "Склад"), ("cp1250", "Księgowość"), ("cp1250", "Účetní oddělení"),
    ("cp852", "Księgowość Kraków"),
    ("cp1253", "Θεσσαλονίκη"), ("cp1254", "İstanbul Satış"), ("cp1255", "תל אביב"), ("cp1256", "الرياض"),
    ("cp1257", "Šiauliai ąžuolas"), ("mac_roman", "Siège social à Orléans"), ("cp850", "Geschäftsführung"),
    ("cp932", "東京本社"), ("cp932", "ノートパソコン"), ("cp932", "大阪支店"), ("gb18030", "上海办公室"),
    ("gb18030", "北京"), ("cp949", "서울 본사"), ("cp949", "영업부"), ("big5", "台北總公司"),
    ("euc_jp", "情報システム部"),
]  # fmt: skip


@pytest.mark.parametrize("codec, tag", TAGS)
@pytest.mark.parametrize("count", [1, 400])
def test_a_group_tag_of_a_guessed_encoding_is_right_and_says_that_it_is_a_guess(
    codec: str, tag: str, count: int
) -> None:
    lines = "".join(f"5CD{number:07},HP,HP ProBook 450 G5,{tag}\r\n" for number in range(count))
    dialect, rows = load((HEADER + lines).encode(codec))
    assert {row.fields["group_tag"] for row in rows} == {tag}
    assert [notice.code for notice in dialect.notices] == ["encoding_guessed"]
    assert NAMES[dialect.encoding] in dialect.notices[0].words
    assert {(n.code, n.column) for row in rows for n in row.notices} == {("letters_guessed", "Group Tag")}
    assert all(row.is_sound for row in rows)


def test_letters_of_a_guess_in_a_column_that_is_not_sent_are_no_ones_trouble() -> None:
    _, rows = load("Serial Number,Make,Model,Notes\n5CD1,HP,X,Köln\n".encode("cp1252"))
    assert codes(rows[0]) == []


def test_letters_that_come_late_are_read_by_the_likeliest_encoding_too() -> None:
    many = "5CD0000001,HP,X,Kiosk\r\n" * 5000
    _, rows = load((HEADER + many).encode() + "5CD1,HP,X,東京本社\r\n5CD2,HP,X,大阪支店\r\n".encode("cp932"))
    assert [row.fields["group_tag"] for row in rows[-2:]] == ["東京本社", "大阪支店"]
    assert [codes(row) for row in rows[-3:]] == [[], ["encoding_mixed"], ["encoding_mixed"]]
    assert "Shift-JIS" in rows[-1].notices[0].words


@pytest.mark.parametrize("name", ["cp1251", "Windows-1251", "shift-jis", "SJIS", "gbk", "EUC-KR", "latin1"])
def test_an_encoding_has_the_names_that_people_give_it(name: str) -> None:
    assert named(name).codec in NAMES


@pytest.mark.parametrize("name", ["", "klingon", "rot13", "zlib_codec", "utf-7", "\x00", "bytes"])
def test_what_is_no_encoding_of_texts_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(ValueError, match="cp1252, cp1250"):
        named(name)


def test_a_stated_encoding_is_used_and_a_mark_of_the_same_is_dropped() -> None:
    data = (HEADER + "5CD1,HP,X,Gdańsk\r\n").encode("cp1250")
    dialect, rows = load(data, "windows-1250")
    assert (rows[0].fields["group_tag"], dialect.encoding) == ("Gdańsk", "cp1250")
    assert dialect.notices == rows[0].notices == ()
    marked, rows = load((HEADER + "5CD1,HP,X,Gdańsk\r\n").encode("utf-8-sig"), "utf-8")
    assert marked.columns[0] == ("Serial Number", "serial_number")
    assert rows[0].fields["group_tag"] == "Gdańsk"


APPENDED = b"5CD2,Dell Inc.,Latitude 5530,Kiosk\r\n5CD3,HP,X,Sales\r\n"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("rows_before", [1, 5000])
@pytest.mark.parametrize("last_line_end", [True, False])
def test_plain_text_behind_utf16_is_read_as_what_it_is(
    codec: str, rows_before: int, last_line_end: bool
) -> None:
    first = (HEADER + "5CD1,HP,X,Zürich\r\n" * rows_before).encode(codec)
    plain = APPENDED if last_line_end else APPENDED.rstrip()
    again = "5CD4,HP,X,Genève\r\n".encode(codec) if last_line_end else b""
    _, rows = load(first + plain + again)
    assert len(rows) == rows_before + 2 + bool(again)
    behind = rows[rows_before:]
    assert [row.fields["serial_number"] for row in behind] == ["5CD2", "5CD3", "5CD4"][: len(behind)]
    assert [codes(row) for row in behind] == [["encoding_mixed"], ["encoding_mixed"], []][: len(behind)]
    assert [row.line for row in behind] == [rows_before + 2 + at for at in range(len(behind))]
    assert {tuple(codes(row)) for row in rows[:rows_before]} == {()}


def test_chinese_in_utf16_is_not_taken_for_plain_text() -> None:
    text = "型号,序列号,制造商\r\n上海海上漢字漢字,5CD1,联想\r\n漢字漢字漢字漢字,5CD2,联想\r\n" * 300
    _, rows = load(text.encode("utf-16"))
    assert {row.fields["model"] for row in rows} == {"上海海上漢字漢字", "漢字漢字漢字漢字"}
    assert {tuple(codes(row)) for row in rows} == {()}


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "cp1252"])
def test_two_carriage_returns_and_a_line_feed_end_one_line(codec: str) -> None:
    text = "Node,IdentifyingNumber,Name,Vendor\r\r\n" + "PC,5CD1,Latitude,Dell Inc.\r\r\n" * 3000
    _, rows = load(text.encode(codec))
    assert [row.line for row in rows] == list(range(2, 3002))
    assert rows[0].fields == {"serial_number": "5CD1", "model": "Latitude", "manufacturer": "Dell Inc."}
