"""Every reader and the hash decoder on damaged and invented input: rows or a refusal, nothing else."""

import gzip
import io
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.domain.catalogue import CATALOGUE
from app.domain.hardware_hash import HashError, decode, explain
from app.intake.profiles import Profile, ProfileError
from app.intake.rows import UnreadableFile, read
from app.intake.xlsx.runs import RowRuns
from tests.support.drawing import examples
from tests.support.workbooks import MAIN, Raw, workbook
from tests.unit.test_hardware_hash_damage import capture
from tests.unit.test_intake_formats import oa3

TUPLE = ("Serial Number", "Make", "Model")
BOOK = workbook(
    {
        "Notes": [("hello",), (1, 2.5)],
        "Devices": [TUPLE, ("5CD1", "HP", "Xä"), (12345, None, "Y"), ("=1", "_x000D_", "")],
    },
    formats=("dd.mm.yyyy", "0000"),
)
WHOLE: tuple[bytes, ...] = (
    BOOK,
    workbook({"A": [TUPLE, ("5CD1", "HP", "X")]}, shared=False),
    gzip.compress(b"Serial Number,Make,Model\n5CD1,HP,X\n" * 20),
    gzip.compress(BOOK),
    oa3().encode(),
    oa3().encode("utf-16"),
    b'{"serial_number": "5CD1", "make": "HP", "model": ["X"], "n": 1.5e3}\n' * 3,
    b"row,code,problem,remedy,Serial Number,Make,Model\n1,x,y,z,'=5CD1,HP,X\n",
    b"line,row,code,problem,remedy,Serial Number,Make,Model\n9,1,x,y,z,'=5CD1,HP,X\n",
    "Serial Number;Make;Model\n5CD1;Müller;X\n".encode("utf-16-be"),
)
PROFILE = Profile.parse(
    {
        "columns": {"Make": None, "#2": "manufacturer", "n": "model"},
        "constants": {"model": "X"},
        "group_tag": {"column": "Model", "values": {"x": "T"}, "otherwise": "O"},
    }
)


def is_well_read(data: bytes, profile: Profile | None = None) -> bool:
    """A refusal in words, or rows of which each could be stored."""
    try:
        dialect, rows = read(io.BytesIO(data), profile)
        found = list(rows)
    except UnreadableFile as refusal:
        return bool(refusal.words) and refusal.code in CATALOGUE
    line = 0
    for number, row in enumerate(found, start=1):
        assert row.number == number
        # Devices may stand side by side in one line.
        assert row.line >= line
        line = row.line
        assert row.fields or row.extra or row.notices
        values = (*row.original, *row.fields.values(), *row.extra, *row.extra.values())
        assert "\x00" not in "".join(values)
        "".join(values).encode()
    return bool("".join(name for name, _ in dialect.columns).encode())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole file with some bytes changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 1, 2, 8, 200]))
        piece = draw(st.binary(max_size=8) | st.just(bytes(data[at : at + 40])))
        data[at : at + length] = piece
    return bytes(data)


@settings(max_examples=examples(600))
@given(damaged(), st.sampled_from([None, PROFILE]))
@example(b"\x1f\x8b", None)
@example(b"PK\x03\x04xl/PK\x05\x06" + bytes(18), None)
@example(b'{"a": 1}', PROFILE)
@example(b"<Key>", None)
def test_a_damaged_file_gives_rows_or_a_refusal(data: bytes, profile: Profile | None) -> None:
    assert is_well_read(data, profile)


SCRAPS = (
    "<row>", '<row r="3">', "</row>", "<row/>", "<c>", '<c r="B2">', '<c r="A9" t="s">', "</c>", "<c/>",
    '<c r="C1" t="inlineStr">', "<is>", "</is>", "<t>", "</t>", "<v>", "</v>", "5", "1E9", "x", "ä", "&amp;",
    "&x;", "<!--", "-->", "<![CDATA[", "]]>", "\r", "\x01", "<x:c>", "</x:c>", "_x0041_", "Serial Number",
    '<c r="A1" s="1"><v>45000</v></c>', "<f>1</f>", "</sheetData>", "<rPh>", "</rPh>",
)  # fmt: skip
scraps = st.lists(
    st.sampled_from(SCRAPS),
    max_size=30,
).map("".join)


@settings(max_examples=examples(500))
@given(scraps)
def test_any_markup_in_a_sheet_gives_rows_or_a_refusal(scrap: str) -> None:
    text = f'<worksheet xmlns="{MAIN}"><sheetData>{scrap}</sheetData></worksheet>'
    assert is_well_read(workbook({"A": []}, parts={"xl/worksheets/sheet1.xml": text}))


@settings(max_examples=examples(300))
@given(scraps)
def test_any_markup_in_the_shared_texts_gives_rows_or_a_refusal(scrap: str) -> None:
    text = f'<sst xmlns="{MAIN}"><si><t>Serial Number</t></si>{scrap.replace("row", "si")}</sst>'
    book = workbook({"A": [TUPLE, ("1", "HP", "X")]}, parts={"xl/sharedStrings.xml": text})
    assert is_well_read(book)


cell: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.text(st.sampled_from("aZ9 ä<&>_x0041'\""), max_size=8),
    st.integers(0, 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [
            Raw('<c r="C1" s="1"><v>45000</v></c>'),
            Raw('<c r="C1" t="b"><v>1</v></c>'),
            Raw("<c/>"),
            Raw('<c r="B1" t="e"><v>#N/A</v></c>'),
            Raw('<c r="D1" t="str"><f>A1</f><v>f</v></c>'),
        ]
    ),
)


@settings(max_examples=examples(300))
@given(st.lists(st.lists(cell, max_size=5), max_size=8), st.booleans())
def test_the_pattern_and_expat_read_the_same_rows(rows: list[list[Any]], shared: bool) -> None:
    book = workbook({"A": [TUPLE, *rows]}, shared=shared, formats=("dd.mm.yyyy",))

    def found() -> list[Any]:
        return [(r.line, r.original, r.notices) for r in read(io.BytesIO(book))[1]]

    by_pattern = found()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowRuns, "opening", re.compile(b"(?!)"))
        by_expat = found()
    assert by_pattern == by_expat


@settings(max_examples=examples(500))
@given(
    st.text(max_size=60)
    | st.text("T0HRA+/=\n ", max_size=60)
    | st.builds(
        lambda at, piece, length: capture()[:at] + piece + capture()[at + length :],
        st.integers(0, 4000),
        st.text("AQT0+/= é", max_size=6),
        st.integers(0, 400),
    )
)
def test_any_text_is_a_whole_hash_or_named_damage(text: str) -> None:
    try:
        whole = decode(text)
    except HashError as error:
        assert error.code in CATALOGUE  # noqa: PT017
        assert len(text) < 12 or text[:40] not in error.detail  # noqa: PT017
    else:
        assert explain(whole)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["#1", "model", "Tag"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=examples(400))
@given(
    json_values
    | st.fixed_dictionaries(
        {}, optional={"columns": json_values, "constants": json_values, "group_tag": json_values}
    )
)
def test_any_json_is_a_profile_or_a_named_mistake(value: Any) -> None:
    try:
        profile = Profile.parse(value)
    except ProfileError as error:
        assert error.words  # noqa: PT017
        assert error.pointer == "" or error.pointer.startswith("/")  # noqa: PT017
    else:
        assert Profile.parse(profile.as_json()) == profile
