"""One worksheet, row by row.

Rows as the usual programs write them are taken apart by patterns (`app.intake.scanner`); at the
first row that is written in another way, expat takes over for the rest of the sheet.
"""

import re
from collections.abc import Iterator
from typing import Final

from app.intake.bounds import CHUNK
from app.intake.cells import Mark, SheetRow, Values
from app.intake.markup import Names, Walk, attributes
from app.intake.parts import TRUE, Styles
from app.intake.pieces import Rest
from app.intake.records import MAX_CELLS, MAX_FIELD, TOO_MANY_CELLS, Block
from app.intake.scanner import Scanner
from app.intake.table import Notice, Source
from app.intake.texts import SharedTexts

_DATA: Final = re.compile(b"<sheetData>")
_ZERO: Final = re.compile(r"0(?:\.0*)?")


def sheet_rows(
    part: Source, styles: Styles, texts: SharedTexts, hidden_columns: set[int] | None = None
) -> Iterator[Block | list[SheetRow]]:
    """The rows that have cells, in batches, numbered as the sheet numbers them.

    A block has rows of one width without marks and notices, none of them hidden; further ones may have
    another width. `hidden_columns` gets the positions of columns that are not shown, before the first row.
    """
    values = Values(styles, texts)
    walker = _Walker(values, set() if hidden_columns is None else hidden_columns)
    walk = Walk(walker.start, walker.end, walker.text)
    rest = Rest(part)
    if rest.skip_to(_DATA, walk) and walker.last == "sheetData" and walk.encoding == "utf-8":
        scanner = Scanner(values, rest)
        yield from scanner.batches()
        if scanner.is_done:
            return
        walker.line = scanner.line
    for _ in walk.through(rest):
        if walker.found:
            yield walker.found
            walker.found = []


class _Walker:
    """Rows by expat: five calls for each cell, so one closure over plain local values."""

    def __init__(self, values: Values, hidden_columns: set[int]) -> None:
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
        collecting = phonetic = is_formula = has_value = is_hidden = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal at, type_, style, collecting, phonetic, size, is_formula, has_value, is_hidden
            kind = self.last = names.of(name, pairs)
            if kind == "c":
                type_ = style = ""
                is_formula = has_value = False
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
                has_value = True
            elif kind == "f":
                is_formula = True
            elif kind == "row":
                self.line = max(self.line + 1, _line(pairs))
                at = -1
                is_hidden = _is_hidden(pairs, "ht")
            elif kind == "col":
                if _is_hidden(pairs, "width"):
                    hidden_columns.update(_columns(pairs))
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
                # What Excel makes of an empty text has the type of a text, and an empty value.
                is_unknown = is_formula and not (pieces or (type_ == "str" and has_value))
                if not pieces and not is_unknown:
                    return
                if at >= MAX_CELLS:
                    if TOO_MANY_CELLS not in flaws:
                        flaws.append(TOO_MANY_CELLS)
                    return
                text = "".join(pieces)
                # Libraries that calculate nothing write 0.
                if is_unknown or (is_formula and text == "0" and type_ in ("", "n")):
                    marks.append((at, Mark.UNCALCULATED))
                    value = ""
                else:
                    value = values.of(at, type_, style, text, marks, flaws)
                if len(cells) < at:
                    cells.extend([""] * (at - len(cells)))
                cells.append(value)
            elif kind == "row":
                if cells or flaws:
                    self.found.append(SheetRow(self.line, cells or [""], marks, tuple(flaws), is_hidden))
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


def _is_hidden(pairs: list[str], extent: str) -> bool:
    """Whether a row or column is not shown: it says so, or it has no extent."""
    found = attributes(pairs)
    return found.get("hidden") in TRUE or _ZERO.fullmatch(found.get(extent, "")) is not None


def _columns(pairs: list[str]) -> range:
    """The positions that a description of columns is for."""
    found = attributes(pairs)
    first, last = found.get("min", ""), found.get("max", "")
    if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        return range(0)
    return range(max(int(first[:6]), 1) - 1, min(int(last[:6]), MAX_CELLS))
