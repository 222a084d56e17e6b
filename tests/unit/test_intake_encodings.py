"""Bytes become characters, and what is no text is refused in words."""

import codecs
import gzip
import io
import zipfile

import pytest

from app.intake.rows import Dialect, Row, UnreadableFile, read

HEADER = "Device Serial Number,Windows Product ID,Hardware Hash,Manufacturer name,Device model\r\n"
TEXT = HEADER + "5CD0000001,,,Möbius GmbH,Modèle Ω\r\n"
PLAIN = HEADER + "5CD0000001,,,Dell Inc.,Latitude 5530\r\n"


def load(data: bytes) -> tuple[Dialect, list[Row]]:
    dialect, rows = read(io.BytesIO(data))
    return dialect, list(rows)


def refused(data: bytes) -> UnreadableFile:
    with pytest.raises(UnreadableFile) as caught:
        load(data)
    return caught.value


@pytest.mark.parametrize(
    "data, encoding",
    [
        (TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "utf-8 with BOM"),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        (TEXT.encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), "utf-16-le with BOM"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16-be with BOM"),
        (codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"), "utf-32-le with BOM"),
        (codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"), "utf-32-be with BOM"),
    ],
)
def test_unicode_is_read_with_and_without_a_mark(data: bytes, encoding: str) -> None:
    dialect, rows = load(data)
    assert dialect.encoding == encoding
    assert rows[0].fields == {
        "serial_number": "5CD0000001",
        "manufacturer": "Möbius GmbH",
        "model": "Modèle Ω",
    }
    assert rows[0].notices == ()


def test_ansi_is_read_as_windows_1252() -> None:
    dialect, rows = load((HEADER + "5CD0000001,,,Möbius “GmbH”,Modèle €\n").encode("cp1252"))
    assert dialect.encoding == "cp1252"
    assert rows[0].fields["manufacturer"] == "Möbius “GmbH”"
    assert rows[0].fields["model"] == "Modèle €"


def test_ansi_after_64_kib_of_ascii_is_still_read_and_said() -> None:
    many = PLAIN.encode() + b"5CD0000002,,,Dell Inc.,Latitude 5530\r\n" * 4000
    _, rows = load(many + "5CD0000003,,,Möbius,Modèle\r\n".encode("cp1252") + b"5CD0000004,,,HP,X\r\n")
    assert rows[-2].fields["manufacturer"] == "Möbius"
    assert [notice.code for notice in rows[-2].notices] == ["encoding_mixed"]
    assert rows[-2].is_sound
    assert rows[-1].notices == rows[0].notices == ()


def test_a_character_cut_by_the_end_of_the_head_is_no_damage() -> None:
    # Two-byte characters at both alignments: one of them straddles the 64 KiB boundary.
    for shift in ("", "x"):
        _, rows = load((HEADER + f"5CD0000001{shift},,,HP,é" + "\r\n1,,,HP,é" * 8000 + "\r\n").encode())
        assert all(row.notices == () for row in rows)
        assert {row.fields["model"] for row in rows} == {"é"}


def test_zero_bytes_after_the_head_cost_their_row_only() -> None:
    many = PLAIN.encode() + b"5CD0000002,,,Dell Inc.,Latitude 5530\r\n" * 4000
    _, rows = load(many + b"5CD\x000000003,,,HP,X\r\n5CD0000004,,,HP,X\r\n")
    assert [notice.code for notice in rows[-2].notices] == ["character_unreadable"]
    assert not rows[-2].is_sound
    assert "\x00" not in "".join(rows[-2].original)
    assert rows[-1].is_sound


def test_an_appended_file_with_its_own_mark_loses_nothing() -> None:
    one = codecs.BOM_UTF8 + PLAIN.encode()
    _, rows = load(one + one.replace(b"5CD0000001", b"5CD0000002"))
    assert [row.fields["serial_number"] for row in rows] == ["5CD0000001", "5CD0000002"]
    _, bare = load(PLAIN.encode() + codecs.BOM_UTF8 + b"5CD0000002,,,HP,X\r\n")
    assert bare[1].fields["serial_number"] == "5CD0000002"


def test_the_dos_end_mark_is_not_a_row() -> None:
    _, rows = load(PLAIN.encode() + b"\x1a")
    assert len(rows) == 1


def xlsx() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("devices.csv", PLAIN)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data, code, word",
    [
        (b"", "empty_file", "empty"),
        (codecs.BOM_UTF8, "empty_file", "no rows"),
        (b"\r\n,,,\r\n \r\n", "empty_file", "no rows"),
        (xlsx(), "workbook_damaged", ".xlsx"),
        (archive(), "file_is_archive", "zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "file_is_unsupported_workbook", ".xls"),
        (gzip.compress(gzip.compress(PLAIN.encode())), "file_is_nested_gzip", "gzip"),
        (b"%PDF-1.7\n%\xe2\xe3", "file_is_pdf", "PDF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "file_is_picture", "picture"),
        (b"MZ\x90\x00\x03\x00", "file_is_program", "program"),
        (b"a\x00\x00\x00\x01\x02\xff" * 50, "file_is_not_text", "not a text"),
        (bytes(range(1, 32)) * 20, "file_is_not_text", "not a text"),
        (b'[{"serial_number": "1"}]', "file_is_json", "JSON"),
        (b'{"devices": []}', "file_is_json", "JSON"),
        (b"<!DOCTYPE html><html>", "file_is_web_page", "web page"),
        ("\ufeff<?xml version='1.0'?><Key/>".encode("utf-16-le"), "file_is_xml", "XML"),
        (b"<Report><ProductKeyID>1</ProductKeyID></Report>", "file_is_xml", "XML"),
        (
            b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
            "file_is_opendocument",
            ".xlsx",
        ),
    ],
)
def test_what_is_no_delimited_text_is_named(data: bytes, code: str, word: str) -> None:
    refusal = refused(data)
    assert refusal.code == code
    assert word in refusal.words
    assert str(refusal) == refusal.words


def test_a_serial_number_that_looks_like_a_signature_is_a_serial_number() -> None:
    _, rows = load(b"MZ00000001,,,HP,HP ProBook 450 G5\r\nMZ00000002,,,HP,HP ProBook 450 G5\r\n")
    assert [row.fields["serial_number"] for row in rows] == ["MZ00000001", "MZ00000002"]


def test_a_pipe_that_answers_in_small_pieces_is_read_whole() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size) if size and size > 0 else 7)

    dialect, rows = read(Dripping(TEXT.encode("utf-16")))
    assert dialect.encoding == "utf-16-le with BOM"
    assert [row.fields["model"] for row in rows] == ["Modèle Ω"]


def test_utf8_with_as_much_ansi_pasted_in_comes_out_right_row_by_row() -> None:
    """Most German letters as ANSI has them are no UTF-8: read as ANSI, the others would become two each."""
    _, rows = load(
        HEADER.encode()
        + "5CD0000001,,,Köln,Büro\r\n".encode()
        + "5CD0000002,,,Köln,Büro\r\n".encode("cp1252")
    )
    assert [row.fields["manufacturer"] for row in rows] == ["Köln", "Köln"]
    assert [[notice.code for notice in row.notices] for row in rows] == [[], ["encoding_mixed"]]


def test_a_pair_that_happens_to_be_utf8_does_not_make_ansi_utf8() -> None:
    dialect, rows = load((HEADER + "5CD0000001,,,«CAFÉ»,Modèle été élève à café\n").encode("cp1252"))
    assert (dialect.encoding, rows[0].fields["manufacturer"]) == ("cp1252", "«CAFÉ»")
