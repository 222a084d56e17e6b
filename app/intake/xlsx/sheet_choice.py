"""Chooses which sheet of a workbook to read, and reports what the others hold.

Users mean what they see: visible sheets come before hidden ones, filled before empty, real devices before a
template's examples. A notice says how many rows of the other sheets look like devices, so that nothing is
left out silently.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Final

from app.intake import layout, row_builder
from app.intake.bounds import CHUNK
from app.intake.columns import IDENTITY
from app.intake.layout import Layout
from app.intake.profiles import Profile
from app.intake.table import Notice, Record, UnreadableFile, Wanted
from app.intake.xlsx import one_column
from app.intake.xlsx.archive import Archive
from app.intake.xlsx.cells import SheetRow
from app.intake.xlsx.one_column import Split
from app.intake.xlsx.parts import Book, Sheet, Styles
from app.intake.xlsx.shared_texts import SharedTexts
from app.intake.xlsx.sheet import sheet_rows

SAMPLE: Final = 200
"""The most rows examined on each sheet."""
MAX_SHEETS: Final = 50
"""The most sheets examined."""
NAMED: Final = 12
"""The most sheets that a notice names."""

MOST_COUNTED: Final = 200_000
"""The most rows of unread sheets that are counted. Beyond, the notice says "more than"."""

_HIDES: Final = re.compile(
    rb"""hidden\s*=\s*["'](?:1|t|on)|\sht\s*=\s*["']0(?:\.0*)?["']|h\0i\0d\0d\0e\0n|h\0t\0="""
)
"""Attributes that hide a row, in UTF-8. In UTF-16 it is enough that a row may be hidden."""
_MAY_HIDE: Final = (b"hidden", b'ht="0', b"ht='0", b"h\0i\0d\0d\0e\0n", b"h\0t\0=")
"""Bytes that all such attributes contain: searching for them is thirty times as fast as for a pattern."""
MARK_LENGTH: Final = 64
"""The most bytes of such an attribute."""

_EXAMPLE_NAME: Final = re.compile(
    r"(?<![^\W\d_])(examples?|samples?|templates?|instructions?|beispiele?|muster|vorlage|anleitung|exemples?|"
    r"ejemplos?|plantilla|esempi[oi]?|exemplos?|voorbeeld(en)?|sjabloon|przykład|szablon|demo)(?![^\W\d_])",
    re.IGNORECASE,
)
_EXAMPLE_SERIAL: Final = re.compile(
    r"(s/?n[- ]?)?(x{4,}|0*123(4(5(6(7(89?0?)?)?)?)?)?|abc[-_ ]?123\w{0,6}|[<\[{].*[>\]}])", re.IGNORECASE
)


class Workbook:
    """The sheets of a workbook. Each can be read repeatedly."""

    def __init__(self, archive: Archive, book: Book) -> None:
        self.sheets = book.sheets
        self._archive = archive
        self._styles = Styles.of(archive, book)
        self._texts = SharedTexts(archive, book.texts)

    def batches(self, sheet: Sheet, hidden_columns: set[int] | None = None) -> Iterator[list[SheetRow]]:
        return sheet_rows(self._archive.open(sheet.part), self._styles, self._texts, hidden_columns)

    def may_hide_rows(self, sheet: Sheet) -> bool:
        """Whether the sheet may have hidden rows, found much faster than which ones."""
        part = self._archive.open(sheet.part)
        tail = b""
        while piece := part.read(CHUNK):
            data = tail + piece
            if any(mark in data for mark in _MAY_HIDE) and _HIDES.search(data):
                return True
            tail = data[-MARK_LENGTH:]
        return False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sheet that can be read, with its first rows."""

    sheet: Sheet
    found: Layout
    split: Split | None
    hidden_columns: frozenset[int]
    """The columns that are not read."""
    lacking: tuple[Notice, ...]
    """The notices about these."""
    devices: int
    """Rows of the sample that look like devices, without examples."""
    rows: int
    """Rows of the sample with any identity, without examples."""
    place: int

    @property
    def rank(self) -> tuple[int, bool, bool, int]:
        """The sort key: the smallest is read."""
        if self.devices:
            first = 2 if self.sheet.is_hidden else 0
        elif self.rows:
            first = 4 if self.sheet.is_hidden else 1
        else:
            # A visible empty sheet comes after a hidden one with devices, because it has nothing to read.
            first = 5 if self.sheet.is_hidden else 3
        is_example = _EXAMPLE_NAME.search(self.sheet.name) is not None
        return first, is_example, self.found.header_row is None, self.place


def choose(book: Workbook, profile: Profile | None, wanted: Wanted) -> tuple[Candidate, tuple[Notice, ...]]:
    """The sheet to read, and notices about the choice. Raises UnreadableFile."""
    named = None if wanted.sheet is None else _named(book.sheets, wanted.sheet)
    tried = {
        sheet: _candidate(book, place, sheet, profile, wanted)
        for place, sheet in enumerate(book.sheets)
        if place < MAX_SHEETS or sheet is named
    }
    candidates = {sheet: found for sheet, found in tried.items() if isinstance(found, Candidate)}
    if not candidates or (named is not None and named not in candidates):
        samples = [
            found for sheet, found in tried.items() if named in (None, sheet) and isinstance(found, list)
        ]
        raise _refusal(book, profile, wanted, named, [*chain.from_iterable(samples)])
    chosen = candidates[named] if named is not None else min(candidates.values(), key=lambda one: one.rank)
    counted = _count(book, chosen.sheet, tried, profile)
    notices = [*_others(book, chosen.sheet, counted, wanted), *chosen.lacking]
    if chosen.sheet.is_hidden and wanted.sheet is None:
        words = f"Sheet '{chosen.sheet.name}' is hidden; it is read because no visible sheet has devices."
        notices.insert(0, Notice("sheet_hidden", words))
    if chosen.split is not None:
        notices.append(chosen.split.notice)
    if wanted.include_hidden is not True and (hidden := _hidden_rows(book, chosen)):
        rows = "1 row is" if hidden == 1 else f"{hidden:,} rows are"
        words = f"{rows} hidden, by a filter or by hand, and not read. {_ASK_HIDDEN}"
        notices.append(_omission("rows_hidden", words, wanted.include_hidden is not None))
    return chosen, tuple(notices)


_ASK_HIDDEN: Final = "Read what is hidden too with --include-hidden or include_hidden=true."


def _refusal(
    book: Workbook, profile: Profile | None, wanted: Wanted, named: Sheet | None, sample: Sequence[Record]
) -> UnreadableFile:
    """Why no sheet can be read."""
    sheets = book.sheets[:MAX_SHEETS] if named is None else [named]
    all_of_it = replace(wanted, include_hidden=True)
    if wanted.include_hidden or not any(
        isinstance(_candidate(book, 0, sheet, profile, all_of_it), Candidate) for sheet in sheets
    ):
        return layout.refusal(sample)
    words = f"The rows or columns that say which devices these are, are hidden. {_ASK_HIDDEN}"
    return UnreadableFile("columns_unknown", words)


def _omission(code: str, words: str, as_asked: bool) -> Notice:
    return Notice("omitted_as_asked" if as_asked else code, words)


def _named(sheets: Sequence[Sheet], name: str) -> Sheet:
    def same(sheet: Sheet) -> bool:
        return sheet.name.strip().casefold() == name.strip().casefold()

    exact = next((sheet for sheet in sheets if sheet.name == name), None)
    found = exact or next(filter(same, sheets), None)
    if found is None:
        names = ", ".join(f"'{sheet.name}'" for sheet in sheets[:NAMED])
        raise UnreadableFile("sheet_unknown", f"The workbook has no sheet '{name}'. It has {names}.")
    return found


def _candidate(
    book: Workbook, place: int, sheet: Sheet, profile: Profile | None, wanted: Wanted
) -> Candidate | list[Record]:
    """The sheet if it can be read, otherwise the examined rows."""
    columns: set[int] = set()
    everything = list(islice(chain.from_iterable(book.batches(sheet, columns)), SAMPLE))
    whole = [_record(row) for row in everything]
    hidden = frozenset() if wanted.include_hidden else frozenset(columns)
    shown = [
        Record(row.line, without(row.cells, hidden), ())
        for row in everything
        if wanted.include_hidden or not row.is_hidden
    ]
    reading = _reading(shown, profile)
    if reading is None or reading[0].header_row is None:
        # A hidden header is still the header of the rows below it.
        lines = {row.line for row in everything if row.is_hidden}
        other = _reading([record._replace(cells=without(record.cells, hidden)) for record in whole], profile)
        if other is not None and other[0].header_row in lines:
            reading = other
    if reading is None:
        # One row is enough to say why; fifty sheets of long cells would fill the memory.
        return next(([record] for record in whole if any(cell.strip() for cell in record.cells)), [])
    found, split = reading
    devices, rows = _counted(shown, found, split, profile)
    if not devices and split is None and (apart := one_column.find(shown, profile)) is not None:
        # The header has columns, but each row below it is in one cell.
        counted = _counted(shown, *apart, profile)
        if counted[0]:
            (found, split), (devices, rows) = apart, counted
    lacking = _lacking(whole, hidden, profile, wanted)
    return Candidate(sheet, found, split, hidden, lacking, devices, rows, place)


def _reading(sample: Sequence[Record], profile: Profile | None) -> tuple[Layout, Split | None] | None:
    found = layout.find(sample, profile)
    return one_column.find(sample, profile) if found is None else (found, None)


def _record(row: SheetRow) -> Record:
    return Record(row.line, row.cells, ())


def without(cells: list[str], hidden: frozenset[int]) -> list[str]:
    """The cells, empty in columns that are not read."""
    return ["" if at in hidden else cell for at, cell in enumerate(cells)] if hidden else cells


def _lacking(
    sample: Sequence[Record], hidden: frozenset[int], profile: Profile | None, wanted: Wanted
) -> tuple[Notice, ...]:
    """The meaning of hidden columns."""
    filled = {at for record in sample for at in hidden if at < len(record.cells) and record.cells[at].strip()}
    if not filled:
        return ()
    whole = layout.find(sample, profile)
    pairs = {} if whole is None else dict(enumerate(whole.columns.pairs, start=whole.offset + whole.added))
    known = [name for at, (name, field) in pairs.items() if at in filled and field is not None]
    columns = "1 column is" if len(filled) == 1 else f"{len(filled)} columns are"
    words = f"{columns} hidden and not read"
    if not known:
        return (_omission("columns_hidden_unknown", f"{words}.", wanted.include_hidden is not None),)
    named = ", ".join(f"'{name}'" for name in known[:NAMED])
    words = f"{words}, among them {named}. {_ASK_HIDDEN}"
    return (_omission("columns_hidden", words, wanted.include_hidden is not None),)


# --- counting -------------------------------------------------------------------------------------


def looks_like_device(fields: Mapping[str, str]) -> bool:
    return (
        "hardware_hash" in fields
        or "product_key" in fields
        or ("serial_number" in fields and ("manufacturer" in fields or "model" in fields))
    )


def is_example(fields: Mapping[str, str]) -> bool:
    """Whether a row is a template's example: by its words, or by a serial number that no device has."""
    texts = (fields.get(field, "") for field in ("serial_number", "manufacturer", "model", "product_key"))
    serial = fields.get("serial_number", "").strip()
    return _EXAMPLE_SERIAL.fullmatch(serial) is not None or any(map(_EXAMPLE_NAME.search, texts))


def _counted(
    records: Sequence[Record], found: Layout, split: Split | None, profile: Profile | None
) -> tuple[int, int]:
    """The numbers of rows that look like devices, and of rows with any identity, without examples."""
    devices = rows = 0
    apart = records
    if split is not None:
        apart = [record._replace(cells=split.taken_apart(record.cells)) for record in records]
    for row in row_builder.rows(iter(apart), found, profile):
        fields = row.fields
        if not is_example(fields):
            rows += not IDENTITY.isdisjoint(fields) or bool(row.notices)
            devices += looks_like_device(fields)
    return devices, rows


@dataclass(frozen=True, slots=True)
class _Count:
    """Rows of an unread sheet that look like devices, as far as counted."""

    devices: int
    is_whole: bool

    @property
    def words(self) -> str:
        if not self.is_whole:
            return f"more than {self.devices:,} rows look like devices" if self.devices else "not looked at"
        return (
            "1 row looks like a device" if self.devices == 1 else f"{self.devices:,} rows look like devices"
        )


def _count(
    book: Workbook,
    chosen: Sheet,
    tried: Mapping[Sheet, Candidate | list[Record]],
    profile: Profile | None,
) -> dict[Sheet, _Count]:
    """The unread sheets that have devices, or may have some."""
    counts: dict[Sheet, _Count] = {}
    left = MOST_COUNTED
    for sheet in book.sheets:
        candidate = tried.get(sheet)
        if sheet is chosen or isinstance(candidate, list):
            continue
        if candidate is None or not left:
            counts[sheet] = _Count(0, is_whole=False)
            continue
        rows = islice(_rows(book, candidate, profile), left + 1)
        seen = devices = 0
        for seen, fields in enumerate(rows, start=1):
            if seen <= left:
                devices += looks_like_device(fields) and not is_example(fields)
        counts[sheet] = _Count(devices, is_whole=seen <= left)
        left -= min(seen, left)
    return {sheet: count for sheet, count in counts.items() if count.devices or not count.is_whole}


def _rows(book: Workbook, candidate: Candidate, profile: Profile | None) -> Iterator[Mapping[str, str]]:
    """Counts the rows of the whole sheet, including hidden ones."""

    def records() -> Iterator[Record]:
        for batch in book.batches(candidate.sheet):
            for record in map(_record, batch):
                split = candidate.split
                yield record if split is None else record._replace(cells=split.taken_apart(record.cells))

    return (row.fields for row in row_builder.rows(records(), candidate.found, profile))


def _others(
    book: Workbook, chosen: Sheet, counts: Mapping[Sheet, _Count], wanted: Wanted
) -> Iterator[Notice]:
    others = [sheet for sheet in book.sheets if sheet is not chosen]
    if not others:
        return
    # Sheets with devices come first, so that they are named.
    others.sort(key=lambda sheet: sheet not in counts)
    told = []
    for sheet in others:
        what = ["hidden"] if sheet.is_hidden else []
        if sheet in counts:
            what.append(counts[sheet].words)
        told.append(f"'{sheet.name}' ({', '.join(what)})" if what else f"'{sheet.name}'")
    names = ", ".join(told[:NAMED]) + (" and more" if len(told) > NAMED else "")
    words = f"Sheet '{chosen.name}' is read. Not read: {names}."
    if not counts:
        yield Notice("sheets_unused", words)
        return
    words += " Read another one with --sheet or sheet=."
    yield _omission("sheets_with_devices", words, wanted.sheet is not None)


def _hidden_rows(book: Workbook, chosen: Candidate) -> int:
    """Hidden non-empty rows below the header."""
    if not book.may_hide_rows(chosen.sheet):
        return 0
    first = chosen.found.first_line
    return sum(
        row.is_hidden and row.line >= first and any(cell.strip() for cell in row.cells)
        for row in chain.from_iterable(book.batches(chosen.sheet))
    )
