"""Reads Excel workbooks (.xlsx, .xlsm) as a stream.

It uses zipfile and expat, because libraries hold a whole sheet (calamine) or all texts (openpyxl) in memory
before the first row, and cannot be stopped while a bomb unpacks. `sheet_choice` decides which sheet is read;
hidden rows and columns are not. Notices say what a spreadsheet did to values: serial numbers that became
dates, leading zeros that may be lost, digits that are lost.
"""

from collections.abc import Iterator
from typing import Final

from app.intake import row_builder
from app.intake.json_lines import NEVER_BOOLEAN, serial_from_number, value_is_boolean
from app.intake.layout import Layout
from app.intake.profiles import Profile
from app.intake.table import Block, Dialect, Head, Notice, Record, Row, Source, Wanted
from app.intake.xlsx.archive import Archive, Spool
from app.intake.xlsx.cells import Mark, SheetRow
from app.intake.xlsx.one_column import Split
from app.intake.xlsx.parts import book_of
from app.intake.xlsx.sheet_choice import Workbook, choose, without

_SENT: Final = frozenset(
    {"serial_number", "product_key", "hardware_hash", "manufacturer", "model", "group_tag"}
)

_MARKS: Final = (b"[content_types].xml", b"_rels/", b"_rels\\", b"xl/", b"xl\\")


def claims(head: Head) -> bool:
    """Claims a zip archive with the parts of Microsoft's office formats."""
    if not head.data.startswith(b"PK\x03\x04"):
        return False
    names = head.data.lower()
    return any(mark in names for mark in _MARKS)


def read(
    head: Head,
    stream: Source,
    profile: Profile | None = None,
    wanted: Wanted | None = None,
    spool: Spool | None = None,
) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile, here or later, for damage, for bombs, and if no sheet has devices."""
    wanted = wanted or Wanted()
    archive = Archive(head, stream, spool)
    book = Workbook(archive, book_of(archive))
    chosen, notices = choose(book, profile, wanted)
    found = chosen.found
    dialect = Dialect(
        format="xlsx",
        kind=found.kind,
        encoding="",
        delimiter="",
        header_row=found.header_row,
        columns=found.columns.pairs,
        notices=(*found.notices, *found.columns.notices, *notices),
        sheet=chosen.sheet.name,
    )
    batches = book.batches(chosen.sheet)
    if not wanted.include_hidden:
        batches = _shown(batches, chosen.hidden_columns)
    if chosen.split is not None:
        batches = _taken_apart(batches, chosen.split)
    return dialect, row_builder.rows(_records(batches, found), found, profile)


def _shown(batches: Iterator[list[SheetRow]], hidden: frozenset[int]) -> Iterator[list[SheetRow]]:
    """The rows that are not hidden, with hidden columns emptied."""
    for batch in batches:
        rows = [row for row in batch if not row.is_hidden]
        if hidden:
            rows = [
                row._replace(
                    cells=without(row.cells, hidden),
                    marks=[(at, mark) for at, mark in row.marks if at not in hidden],
                )
                for row in rows
            ]
        yield rows


def _taken_apart(batches: Iterator[list[SheetRow]], split: Split) -> Iterator[list[SheetRow]]:
    for batch in batches:
        yield [row._replace(cells=split.taken_apart(row.cells), marks=[]) for row in batch]


def _records(batches: Iterator[list[SheetRow]], found: Layout) -> Iterator[Block | Record]:
    """Rows with notices from the types of the cells that matter; plain rows in blocks."""
    fields, names, front = found.columns.fields, found.columns.names, found.offset + found.added
    width = front + len(names)
    for batch in batches:
        block: list[list[str]] = []
        begin = following = 0
        for line, cells, marks, notices, _ in batch:
            if marks and line >= found.first_line:
                for at, mark in marks:
                    place = at - front
                    field = fields[place] if 0 <= place < len(fields) else None
                    notice = _told(mark, field, names[place]) if field in _SENT else None
                    if notice is not None:
                        notices = (*notices, notice)
            # A sheet stores no empty cells, so missing ones mean nothing.
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
