"""One worksheet, row by row: where cells stand, and what their types make of them.

Rows as the usual programs write them are taken apart by one pattern (`app.intake.sheet_patterns`);
at the first row that is written in another way, expat takes over for the rest of the sheet.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, auto
from typing import Final, NamedTuple

from app.intake.bounds import CHUNK
from app.intake.markup import Names, Walk
from app.intake.parts import SharedTexts, Styles
from app.intake.pieces import Pieces, Rest
from app.intake.records import LOST, MAX_CELLS, MAX_FIELD, TOO_MANY_CELLS
from app.intake.table import Notice, Source

EXACT: Final = 15
"""Digits that a spreadsheet keeps of a number."""

_EPOCH: Final = datetime(1899, 12, 30)  # noqa: DTZ001 - a sheet's dates have no zone
_ESCAPED: Final = re.compile("_x([0-9A-Fa-f]{4})_")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff\ufffd]")


class Mark(Enum):
    """What a cell holds other than a text."""

    NUMBER = auto()
    ROUNDED = auto()
    DATE = auto()
    ERROR = auto()


class SheetRow(NamedTuple):
    line: int
    cells: list[str]
    marks: list[tuple[int, Mark]]
    notices: tuple[Notice, ...]


def sheet_rows(part: Source, styles: Styles, texts: SharedTexts) -> Iterator[list[SheetRow]]:
    """The rows that have cells, in batches, numbered as the sheet numbers them."""
    values = _Values(styles, texts)
    walker = _Walker(values)
    walk = Walk(walker.start, walker.end, walker.text)
    rest = Rest(part)
    if rest.skip_to(_DATA, walk) and walker.last == "sheetData" and walk.encoding == "utf-8":
        scanner = _Scanner(values, rest)
        yield from scanner.batches()
        if scanner.is_done:
            return
        walker.line = scanner.line
    for _ in walk.through(rest):
        if walker.found:
            yield walker.found
            walker.found = []


class _Values:
    """What a cell's type and style make of its text."""

    def __init__(self, styles: Styles, texts: SharedTexts) -> None:
        self.texts = texts
        self._styles = styles
        self.places = _Places()

    def of(
        self, at: int, type_: str, style: str, text: str, marks: list[tuple[int, Mark]], flaws: list[Notice]
    ) -> str:
        if type_ == "s":
            text = _shared(self.texts, text)
        elif type_ in ("", "n"):
            text, mark = _of_number(text, style, self._styles)
            if mark is not None:
                marks.append((at, mark))
        elif type_ == "b":
            text = "TRUE" if text.strip() == "1" else "FALSE"
        elif type_ == "e":
            marks.append((at, Mark.ERROR))
        elif type_ == "d":
            marks.append((at, Mark.DATE))
        if len(text) > MAX_FIELD:
            flaws.append(_too_long(at))
            return ""
        return text if text.isascii() and "_x" not in text else _mended(text, flaws)


class _Places(dict[str, int]):
    """The position of a column by its letters, -1 for anything else."""

    def __missing__(self, letters: str) -> int:
        at = _column(letters)
        if len(self) < 20_000:
            self[letters] = at
        return at


_DATA: Final = re.compile(b"<sheetData>")
_CELL: Final = re.compile(
    '<c r="([A-Z]{1,3})[0-9]{1,7}"(?: s="([0-9]{1,5})")?(?: t="(s|n|str|inlineStr|b|e)")?'
    '(?:/>|>(?:<v>(?:([0-9]{1,9})|([^<&]*))</v>|<is><t(?: xml:space="preserve")?>([^<&]*)</t></is>)?</c>)'
)
_ROW: Final = re.compile(r'\s*(?:<row [^<>]*/>\s*)*<row r="([0-9]{1,9})"(?: [^<>]*)?(?<!/)>')


class _Scanner:
    """Rows by pattern. `is_done` when the sheet's data ended; else `line` was the last row's."""

    def __init__(self, values: _Values, rest: Rest) -> None:
        self.is_done = False
        self.line = 0
        self._values = values
        self._pieces = Pieces(rest, "</row>")

    def batches(self) -> Iterator[list[SheetRow]]:
        while pieces := self._pieces.take():
            found: list[SheetRow] = []
            for number, piece in enumerate(pieces):
                row = self._row(piece)
                if row is None:
                    if found:
                        yield found
                    self._pieces.leave(pieces[number:])
                    return
                if row.cells or row.notices:
                    found.append(row)
            yield found
        self.is_done = self._pieces.text.lstrip().startswith("</sheetData>")
        if not self.is_done:
            self._pieces.leave([])

    def _row(self, piece: str) -> SheetRow | None:
        """None for what is not wholly understood."""
        opening = _ROW.match(piece)
        if opening is None:
            return None
        matches = _CELL.findall(piece, opening.end())
        tags = piece.count("<", opening.end())
        cells: list[str] = []
        marks: list[tuple[int, Mark]] = []
        flaws: list[Notice] = []
        values, places = self._values, self._values.places
        held, odd = values.texts.held, values.texts.has_odd
        at = -1
        for letters, style, type_, digits, other, inline in matches:
            at += 1
            column = places[letters]
            if column > at:
                at = column
            value = digits or other
            if value:
                tags -= 4
            elif inline:
                tags -= 6
                value = inline
            else:
                # Nothing in it. That is written in several ways; all but one are for expat.
                tags -= 1
                continue
            if type_ == "s" and digits and (index := int(digits)) < len(held):
                text = held[index]
                if odd or not text.isascii():
                    text = values.of(at, "str", style, text, marks, flaws)
            else:
                text = values.of(at, type_, style, value, marks, flaws)
            if len(cells) < at:
                if at >= MAX_CELLS:
                    return None
                cells.extend([""] * (at - len(cells)))
            cells.append(text)
        if len(cells) > MAX_CELLS:
            return None
        if tags:
            return None
        self.line = max(self.line + 1, int(opening.group(1)))
        return SheetRow(self.line, cells or [""] * bool(flaws), marks, tuple(flaws))


class _Walker:
    """Rows by expat: five calls for each cell, so one closure over plain local values."""

    def __init__(self, values: _Values) -> None:
        self.found: list[SheetRow] = []
        self.last = ""
        """The name that came last."""
        self.line = 0
        names = Names()
        cells: list[str] = []
        marks: list[tuple[int, Mark]] = []
        flaws: list[Notice] = []
        pieces: list[str] = []
        size = 0
        at = -1
        type_ = style = ""
        collecting = phonetic = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal at, type_, style, collecting, phonetic, size
            kind = self.last = names.of(name, pairs)
            if kind == "c":
                type_ = style = ""
                pieces.clear()
                size = 0
                at += 1
                for place in range(0, len(pairs), 2):
                    key = pairs[place]
                    if key == "t":
                        type_ = pairs[place + 1]
                    elif key == "s":
                        style = pairs[place + 1]
                    elif key == "r":
                        # A cell never stands before the one in front of it.
                        at = max(at, values.places[pairs[place + 1].rstrip("0123456789")])
            elif kind in ("v", "t"):
                collecting = not phonetic
            elif kind == "row":
                self.line = max(self.line + 1, _line(pairs))
                at = -1
            elif kind == "rPh":
                phonetic = True

        def text(data: str) -> None:
            nonlocal size
            if collecting:
                size += len(data)
                # One piece more than a value may have shows that it had too much.
                if size <= MAX_FIELD + CHUNK:
                    pieces.append(data)

        def end(name: str) -> None:
            nonlocal collecting, phonetic, cells, marks, flaws
            kind = names.of(name)
            if kind == "c":
                if not pieces:
                    return
                if at >= MAX_CELLS:
                    if TOO_MANY_CELLS not in flaws:
                        flaws.append(TOO_MANY_CELLS)
                    return
                value = values.of(at, type_, style, "".join(pieces), marks, flaws)
                if len(cells) < at:
                    cells.extend([""] * (at - len(cells)))
                cells.append(value)
            elif kind == "row":
                if cells or flaws:
                    self.found.append(SheetRow(self.line, cells or [""], marks, tuple(flaws)))
                    cells, marks, flaws = [], [], []
            elif kind in ("v", "t"):
                collecting = False
            elif kind == "rPh":
                phonetic = False

        self.start, self.text, self.end = start, text, end


def _line(pairs: list[str]) -> int:
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if key == "r" and value.isascii() and value.isdecimal() and len(value) < 10:
            return int(value)
    return 0


def _column(letters: str) -> int:
    place = 0
    if not 0 < len(letters) <= 3 or not letters.isascii() or not letters.isalpha():
        return -1
    for letter in letters.upper():
        place = place * 26 + ord(letter) - 64
    return place - 1


def _shared(texts: SharedTexts, value: str) -> str:
    value = value.strip()
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        return ""
    try:
        return texts[int(value)]
    except IndexError:
        return ""


def _of_number(value: str, style: str, styles: Styles) -> tuple[str, Mark | None]:
    """A number as its digits, as it is shown where its format only adds zeros in front."""
    if not value:
        return "", None
    number = int(style) if style.isascii() and style.isdecimal() and len(style) < 6 else 0
    if number in styles.dates:
        return _as_date(value), Mark.DATE
    if value.isascii() and value.isdecimal() and len(value) <= EXACT:
        width = styles.digits.get(number)
        return (value, Mark.NUMBER) if width is None else (value.zfill(width), None)
    return _unusual(value)


def _unusual(value: str) -> tuple[str, Mark]:
    """`4.89871E+12` and `4898710000000.0` are 4898710000000; fractions stay as they are."""
    try:
        number = Decimal(value.strip()) if len(value) < 64 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number.adjusted() > 40 or number.adjusted() < -40:
        return value, Mark.ROUNDED
    if number != number.to_integral_value():
        return value, Mark.NUMBER
    digits = format(number.to_integral_value(), "f")
    return digits, Mark.NUMBER if len(digits.lstrip("-")) <= EXACT else Mark.ROUNDED


def _as_date(value: str) -> str:
    try:
        moment = _EPOCH + timedelta(days=float(value))
    except (ValueError, OverflowError):
        return value
    return (
        moment.date().isoformat()
        if moment.time() == datetime.min.time()
        else moment.isoformat(" ", "seconds")
    )


def _mended(value: str, flaws: list[Notice]) -> str:
    """Excel writes what XML can not hold as `_x000D_`."""
    value = _ESCAPED.sub(lambda hit: chr(int(hit.group(1), 16)), value) if "_x" in value else value
    if _UNSTORABLE.search(value):
        value = _UNSTORABLE.sub("\ufffd", value)
        if LOST not in flaws:
            flaws.append(LOST)
    return value


def _too_long(at: int) -> Notice:
    words = f"Cell {at + 1} has more than {MAX_FIELD:,} characters and was left out."
    return Notice("cell_too_long", words)
