"""The reader of Excel workbooks (.xlsx, .xlsm), streaming.

Written on zipfile and expat, because the libraries hold a whole sheet in memory before the first
row (calamine) or a sheet's every text (openpyxl), and neither can be stopped while a bomb unpacks.
The first sheet with a header that is understood is read; the others are named in a notice. What a
spreadsheet does to values is told: dates made of serial numbers, zeros that may be lost, digits
that are.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final

from app.intake import layout, shaping
from app.intake.archive import Archive
from app.intake.cells import Mark, SheetRow
from app.intake.json_lines import NEVER_BOOLEAN, serial_from_number, value_is_boolean
from app.intake.layout import Layout
from app.intake.parts import Sheet, Styles, book_of
from app.intake.profiles import Profile
from app.intake.records import Block, Record
from app.intake.sheet import sheet_rows
from app.intake.table import Dialect, Head, Notice, Row, Source
from app.intake.texts import SharedTexts

SAMPLE: Final = 200
"""Rows looked at on each sheet."""
MAX_SHEETS: Final = 50
"""Sheets looked at."""

_SENT: Final = frozenset(
    {"serial_number", "product_key", "hardware_hash", "manufacturer", "model", "group_tag"}
)

_MARKS: Final = (b"[content_types].xml", b"_rels/", b"_rels\\", b"xl/", b"xl\\")


def claims(head: Head) -> bool:
    """A zip archive with the marks of Microsoft's office formats."""
    if not head.data.startswith(b"PK\x03\x04"):
        return False
    names = head.data.lower()
    return any(mark in names for mark in _MARKS)


def read(head: Head, stream: Source, profile: Profile | None = None) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile, here or later, for damage, for bombs and when no sheet has devices."""
    archive = Archive(head, stream)
    book = book_of(archive)
    sheets = book.sheets
    styles = Styles.of(archive, book)
    texts = SharedTexts(archive, book.texts)
    chosen, found, others = _choose(archive, sheets, styles, texts, profile)
    dialect = Dialect(
        format="xlsx",
        kind=found.kind,
        encoding="",
        delimiter="",
        header_row=found.header_row,
        columns=found.columns.pairs,
        notices=(*found.notices, *found.columns.notices, *_unused(chosen, others)),
        sheet=chosen.name,
    )
    source = _records(sheet_rows(archive.open(chosen.part), styles, texts), found)
    return dialect, shaping.rows(source, found, profile)


def _choose(
    archive: Archive, sheets: Sequence[Sheet], styles: Styles, texts: SharedTexts, profile: Profile | None
) -> tuple[Sheet, Layout, list[Sheet]]:
    """The first sheet with a header that is understood, else the first that is understood at all."""
    readable: list[tuple[Sheet, Layout]] = []
    seen: list[Record] = []
    for sheet in sheets[:MAX_SHEETS]:
        batches = sheet_rows(archive.open(sheet.part), styles, texts)
        sample = list(islice(chain.from_iterable(map(_sampled, batches)), SAMPLE))
        seen += sample
        found = layout.find(sample, profile)
        if found is not None:
            readable.append((sheet, found))
            if found.header_row is not None:
                break
    if not readable:
        raise layout.refusal(seen)
    sheet, found = next((pair for pair in readable if pair[1].header_row is not None), readable[0])
    return sheet, found, [other for other in sheets if other is not sheet]


def _unused(chosen: Sheet, others: Sequence[Sheet]) -> tuple[Notice, ...]:
    if not others:
        return ()
    names = ", ".join(f"'{sheet.name}'" for sheet in others[:12]) + (" and more" if len(others) > 12 else "")
    words = f"Sheet '{chosen.name}' is read. Not read: {names}."
    return (Notice("sheets_unused", words),)


def _sampled(batch: Block | list[SheetRow]) -> Iterator[Record]:
    if isinstance(batch, Block):
        return (Record(line, cells, ()) for line, cells in enumerate(batch.cells, start=batch.line))
    return (Record(row.line, row.cells, ()) for row in batch)


def _records(batches: Iterator[Block | list[SheetRow]], found: Layout) -> Iterator[Block | Record]:
    """Rows with what their cells' types say about the columns that matter, plain ones in blocks."""
    fields, names, front = found.columns.fields, found.columns.names, found.offset + found.added
    width = front + len(names)
    for batch in batches:
        if isinstance(batch, Block):
            # All rows of a block are as wide as their shape.
            missing = [""] * (width - len(batch.cells[0]))
            yield Block(batch.line, [cells + missing for cells in batch.cells]) if missing else batch
            continue
        block: list[list[str]] = []
        begin = following = 0
        for line, cells, marks, notices in batch:
            if marks and line >= found.first_line:
                for at, mark in marks:
                    place = at - front
                    field = fields[place] if 0 <= place < len(fields) else None
                    notice = _told(mark, field, names[place]) if field in _SENT else None
                    if notice is not None:
                        notices = (*notices, notice)
            # A sheet writes no empty cells: that they are missing says nothing.
            while len(cells) < width:
                cells.append("")
            if block and (notices or line != following):
                yield Block(begin, block)
                block = []
            if notices:
                yield Record(line, cells, notices)
                continue
            if not block:
                begin = line
            block.append(cells)
            following = line + 1
        if block:
            yield Block(begin, block)


def _told(mark: Mark, field: str | None, column: str) -> Notice | None:
    match mark:
        case Mark.DATE:
            words = f"The cell of column '{column}' holds a date; the value it was made of is lost."
            return Notice("cell_is_date", words, column)
        case Mark.ERROR:
            return Notice("cell_is_error", f"The cell of column '{column}' shows an error.", column)
        case Mark.UNCALCULATED:
            words = (
                f"The cell of column '{column}' holds a formula, and the file does not hold its result. "
                "Open the workbook in Excel and save it."
            )
            return Notice("formula_without_result", words, column)
        case Mark.ROUNDED:
            words = f"The cell of column '{column}' holds a number of which only 15 digits are kept."
            return Notice("number_rounded", words, column)
        case Mark.NUMBER if field == "serial_number":
            return serial_from_number(column)
        case Mark.BOOLEAN if field in NEVER_BOOLEAN:
            return value_is_boolean(column)
        case Mark.NUMBER | Mark.BOOLEAN:
            return None
