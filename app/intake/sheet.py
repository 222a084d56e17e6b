"""One worksheet, row by row: where cells stand, and what their types make of them.

This is the inner loop of reading a workbook: five calls for each cell. So it is one closure over
plain local values, and everything that is rare is done elsewhere.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, auto
from typing import Final, NamedTuple
from xml.parsers import expat

from app.intake.archive import Part
from app.intake.markup import local, walk
from app.intake.parts import SharedTexts, Styles
from app.intake.records import LOST, MAX_CELLS, MAX_FIELD, TOO_MANY_CELLS
from app.intake.table import Notice

MAX_LINE: Final = 2**31
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


def sheet_rows(part: Part, styles: Styles, texts: SharedTexts) -> Iterator[SheetRow]:
    """The rows that have cells, numbered as the sheet numbers them."""
    parser = expat.ParserCreate()
    walker = _Walker(styles, texts)
    for _ in walk(part, walker.start, walker.end, walker.text, parser=parser):
        yield from walker.found
        walker.found.clear()


class _Walker:
    def __init__(self, styles: Styles, texts: SharedTexts) -> None:
        self.found: list[SheetRow] = []
        found = self.found
        kinds: dict[str, str] = {}
        places: dict[str, int] = {}
        cells: list[str] = []
        marks: list[tuple[int, Mark]] = []
        flaws: list[Notice] = []
        pieces: list[str] = []
        line = size = 0
        at = -1
        type_ = style = ""
        collecting = phonetic = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal line, at, type_, style, collecting, phonetic, size
            kind = kinds.get(name) or kinds.setdefault(name, local(name))
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
                        letters = pairs[place + 1].rstrip("0123456789")
                        found_at = places.get(letters)
                        if found_at is None:
                            found_at = _column(letters)
                            if len(places) < MAX_CELLS * 2:
                                places[letters] = found_at
                        # A cell never stands before the one in front of it.
                        at = max(at, found_at)
            elif kind in ("v", "t"):
                collecting = not phonetic
            elif kind == "row":
                line = max(line + 1, _line(pairs))
                at = -1
            elif kind == "rPh":
                phonetic = True

        def text(data: str) -> None:
            nonlocal size
            if collecting:
                size += len(data)
                if size <= MAX_FIELD:
                    pieces.append(data)

        def end(name: str) -> None:
            nonlocal collecting, phonetic, cells, marks, flaws
            kind = kinds[name]
            if kind == "c":
                if not pieces and size == 0:
                    return
                if at >= MAX_CELLS:
                    if TOO_MANY_CELLS not in flaws:
                        flaws.append(TOO_MANY_CELLS)
                    return
                value = "".join(pieces)
                if type_ == "s":
                    value = _shared(texts, value)
                elif type_ in ("", "n"):
                    value, mark = _of_number(value, style, styles)
                    if mark is not None:
                        marks.append((at, mark))
                elif type_ == "b":
                    value = "TRUE" if value.strip() == "1" else "FALSE"
                elif type_ == "e":
                    marks.append((at, Mark.ERROR))
                elif type_ == "d":
                    marks.append((at, Mark.DATE))
                if size > MAX_FIELD or len(value) > MAX_FIELD:
                    flaws.append(_too_long(at))
                    value = ""
                elif not value.isascii() or "_x" in value:
                    value = _mended(value, flaws)
                if len(cells) < at:
                    cells.extend([""] * (at - len(cells)))
                cells.append(value)
            elif kind == "row":
                if cells or flaws:
                    found.append(SheetRow(line, cells or [""], marks, tuple(flaws)))
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
    """The position of a column by its letters; anything else stands where it stands."""
    place = 0
    if len(letters) > 3 or not letters.isascii() or not letters.isalpha():
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
