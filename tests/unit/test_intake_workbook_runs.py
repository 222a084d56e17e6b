"""Rows written alike are read by the chunk: the same rows as by expat, whatever stands among them."""

import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.intake.rows import UnreadableFile, read
from app.intake.table import MAX_FIELD, Head
from app.intake.xlsx import markup, runs, shared_texts
from app.intake.xlsx.archive import Archive
from app.intake.xlsx.cells import SheetRow
from app.intake.xlsx.parts import Styles
from app.intake.xlsx.runs import RowRuns, TextRuns
from app.intake.xlsx.shared_texts import SharedTexts
from app.intake.xlsx.sheet import sheet_rows
from tests.support.drawing import examples
from tests.support.workbooks import MAIN, workbook

NEVER = re.compile(b"(?!)")
LISTED = ("Serial Number", "Make", "Model", "5CD1", "Mü & Söhne", " kept ", "a_x0041_b", "", "lost_x0000_")
FIRST = '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'

VALUES = (
    "", "", ' t="s"><v>3</v></c>', ' t="s"><v>4</v></c>', ' s="3" t="s"><v>5</v></c>', ' t="s"><v>6</v></c>',
    ' t="s"><v>7</v></c>', ' t="s"><v>8</v></c>', ' t="s"><v>99</v></c>', ' t="s"><v> 3 </v></c>',
    ' s="1"/>', "/>", "><v>12345</v></c>", ' s="2"><v>7</v></c>', ' s="1"><v>45000.5</v></c>',
    "><v>1E+20</v></c>", "><v>x</v></c>", ' t="n"><v>0.5</v></c>', ' t="b"><v>1</v></c>',
    ' t="e"><v>#N/A</v></c>', ' t="str"><v>Ä_x000D_</v></c>', ' t="str"><v>\ufffd</v></c>',
    ' t="str"><v>ok</v></c>', ' t="str"><v>a&amp;b</v></c>', ' t="str"><f>A1</f><v>f</v></c>',
    ' t="str"><v></v></c>', ' t="inlineStr"><is><t>in</t></is></c>', ' t="d"><v>2024-01-01</v></c>',
    ' t="inlineStr"><is><t xml:space="preserve"> i </t></is></c>', ' t="s"><is><t>3</t></is></c>',
)  # fmt: skip
"""The markup after a cell's reference; nothing when the row has no such cell."""

shapes = st.lists(st.lists(st.sampled_from(VALUES), min_size=1, max_size=5), min_size=1, max_size=3)


@st.composite
def sheets(draw: st.DrawFn) -> str:
    """Many rows of few shapes, occasionally another one, some lines left out or written twice."""
    kinds = draw(shapes)
    odd = draw(st.lists(st.sampled_from(VALUES), max_size=6))
    order = draw(st.lists(st.integers(0, 19), min_size=5, max_size=40))
    gaps = draw(st.sampled_from([(1,), (1,), (1, 1, 1, 1, 2), (1, 0, 1, -3)]))
    between = draw(st.sampled_from(["", "", "\n  ", '<row r="4" ht="15"/>', '<row ht="15"/>', "<!-- -->"]))
    opening = draw(st.sampled_from(["", ' spans="1:5"', ' spans="1:3" ht="15"']))
    hiding = draw(st.sampled_from(["", ' hidden="1"', " hidden='true'", ' hidden="false"']))
    line, written = 1, []
    for at, pick in enumerate(order):
        line += gaps[at % len(gaps)]
        kind = odd if pick == 19 else kinds[pick % len(kinds)]
        cells = "".join(f'<c r="{"ABCDEF"[n]}{line}"{value}' for n, value in enumerate(kind) if value)
        hidden = hiding if pick % 5 == 2 else ""
        rest = between if pick == 7 else ""
        written.append(f'<row r="{line}"{opening}{hidden}>{cells}</row>{rest}')
    return f'<worksheet xmlns="{MAIN}"><sheetData>{FIRST}{"".join(written)}</sheetData></worksheet>'


def listed(entries: str) -> str:
    return f'<sst xmlns="{MAIN}">{entries}</sst>'


def entries() -> str:
    escaped = (text.replace("&", "&amp;") for text in LISTED)
    return "".join(f"<si><t>{text}</t></si>" for text in escaped)


def found(book: bytes) -> Any:
    try:
        dialect, rows = read(io.BytesIO(book))
        return dialect, [(row.number, row.line, row.original, row.notices) for row in rows]
    except UnreadableFile as refusal:
        return refusal.code


@settings(max_examples=examples(400))
@given(sheets(), st.sampled_from([90, 300, 1000, 65536]))
def test_rows_by_the_pattern_and_by_expat_are_the_same(text: str, chunk: int) -> None:
    parts: dict[str, str | bytes] = {
        "xl/worksheets/sheet1.xml": text,
        "xl/sharedStrings.xml": listed(entries()),
    }
    book = workbook({"A": []}, formats=("dd.mm.yyyy", "0000", "@"), parts=parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHUNK", chunk)
        by_pattern = found(book)
        patch.setattr(RowRuns, "opening", NEVER)
        by_expat = found(book)
    assert by_pattern == by_expat


TEXTS = (
    "<si><t>5CD1</t></si>", "<si><t>Mü</t></si>", "<si><t/></si>", "<si><t></t></si>", "<si/>",
    '<si><t xml:space="preserve"> x </t></si>', "\n <si><t>x</t></si>\n", "<si><t>a\nb\t</t></si>",
    "<si><t>a&amp;lt;b &lt;&gt;&quot;&apos;</t></si>", "<si><t>&#65;</t></si>", "<si><t>&no;</t></si>",
    "<si><t>_x0041__x005F_x0041_</t></si>", "<si><t>_x0000_</t></si>", "<si><t>\ufffd\U0001f600</t></si>",
    "<si><r><t>a</t></r><r><t>b</t></r></si>", "<si><t>a</t><rPh><t>no</t></rPh></si>",
    "<si><t>a\r\nb</t></si>", "<si><t>\x01</t></si>", "<si><t>\uffff</t></si>", "<!-- <si><t>no</t></si> -->",
    f"<si><t>{'y' * 55}</t></si>", f"<si><t>{'é' * 49}</t></si>",
)  # fmt: skip


@settings(max_examples=examples(400))
@given(
    st.lists(st.sampled_from(TEXTS[:2]) | st.sampled_from(TEXTS), max_size=20),
    st.sampled_from([40, 200, 65536]),
    st.sampled_from([0, 200, 2**20]),
)
def test_shared_texts_by_the_chunk_and_by_expat_are_the_same(drawn: list[str], chunk: int, held: int) -> None:
    part = listed("".join(drawn)).encode()
    data = workbook({"A": []}, parts={"xl/sharedStrings.xml": part})

    def read_texts() -> Any:
        try:
            shared = SharedTexts(Archive(Head(data, whole=True), io.BytesIO()), "xl/sharedStrings.xml")
            count = len(shared)
            backwards = [shared[at] for at in reversed(range(count))]
            assert shared.all_of([str(at) for at in range(count)]) == backwards[::-1]
            with pytest.raises(IndexError):
                shared.all_of([str(count)])
        except UnreadableFile as refusal:
            return refusal.code
        return backwards

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "CHUNK", chunk)
        patch.setattr(shared_texts, "HELD", held)
        for module in (runs, shared_texts, markup):
            patch.setattr(module, "MAX_FIELD", 50)
        by_chunk = read_texts()
        patch.setattr(TextRuns, "opening", NEVER)
        by_expat = read_texts()
    assert by_chunk == by_expat


SERIAL = '<c r="A#" t="s"><v>3</v></c>'


def sheet_of(count: int, cells: str) -> str:
    lines = (f'<row r="{n}">{cells.replace("#", str(n))}</row>' for n in range(2, count + 2))
    return f"<worksheet><sheetData>{''.join(lines)}</sheetData></worksheet>"


def rows_of(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[SheetRow], int]:
    """The rows, and how many of them expat had to read."""
    read_by_expat: list[str] = []
    learn = RowRuns.learn

    def noted(self: RowRuns, element: str) -> None:
        read_by_expat.append(element)
        learn(self, element)

    monkeypatch.setattr(RowRuns, "learn", noted)
    book = workbook({"A": []}, parts={"xl/sharedStrings.xml": listed(entries())})
    shared = SharedTexts(Archive(Head(book, whole=True), io.BytesIO()), "xl/sharedStrings.xml")
    rows = [row for batch in sheet_rows(io.BytesIO(text.encode()), Styles(), shared) for row in batch]
    return rows, len(read_by_expat)


def test_rows_like_the_first_one_need_no_expat(monkeypatch: pytest.MonkeyPatch) -> None:
    text = sheet_of(200, SERIAL + '<c r="C#" s="1" t="str"><v>Zoë</v></c>')
    rows, by_expat = rows_of(text, monkeypatch)
    assert [(row.line, row.cells) for row in rows] == [(n, ["5CD1", "", "Zoë"]) for n in range(2, 202)]
    assert not any(row.marks or row.notices or row.is_hidden for row in rows)
    assert by_expat == 1


def test_a_row_of_another_shape_costs_one_row_and_not_the_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = '<row r="102"><c r="A102" t="s"><v>3</v></c><c r="A102" t="s"><v>4</v></c></row>'
    text = sheet_of(200, SERIAL).replace(f'<row r="102">{SERIAL.replace("#", "102")}</row>', odd)
    rows, by_expat = rows_of(text, monkeypatch)
    assert [row.cells for row in rows] == [["5CD1"]] * 100 + [["5CD1", "Mü & Söhne"]] + [["5CD1"]] * 99
    assert by_expat == 2


@pytest.mark.parametrize("around", ["<!--{}-->", "<![CDATA[{}]]>", "<?x {}?>"])
def test_rows_that_are_commented_out_are_no_rows(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = sheet_of(20, SERIAL)
    hidden = f'<row r="90">{SERIAL}</row>'
    rows, _ = rows_of(text.replace('<row r="12">', around.format(hidden) + '<row r="12">'), monkeypatch)
    assert [row.line for row in rows] == list(range(2, 22))
    rows, _ = rows_of(text.replace("<sheetData>", around.format("<sheetData>") + "<sheetData>"), monkeypatch)
    assert [row.line for row in rows] == list(range(2, 22))


def test_a_value_that_is_too_long_gets_its_notice_among_rows_of_its_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = sheet_of(20, '<c r="A#" t="str"><v>5CD#</v></c>')
    rows, by_expat = rows_of(text.replace("5CD12<", "y" * (MAX_FIELD + 1) + "<"), monkeypatch)
    (odd,) = (row for row in rows if row.notices)
    assert (odd.line, odd.cells, odd.notices[0].code) == (12, [""], "cell_too_long")
    assert (len(rows), by_expat) == (20, 1)
