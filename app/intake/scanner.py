"""Rows of a worksheet by patterns: whole chunks of rows of one shape, and a row at a time what differs."""

import re
from collections.abc import Iterator
from typing import Final

from app.intake.cells import Mark, SheetRow, Values
from app.intake.pieces import Pieces, Rest
from app.intake.records import MAX_CELLS, Block
from app.intake.shapes import HIDDEN, Found, Shape
from app.intake.table import Notice
from app.intake.texts import CHARACTERS, resolved

FEW: Final = 8
"""Rows: a shape that fits no more of them at once is not asked again before the next chunk."""

_CLOSING: Final = "</row>"
_CELL: Final = re.compile(
    '<c r="([A-Z]{1,3})[0-9]{1,7}"(?: s="([0-9]{1,5})")?(?: t="(s|n|str|inlineStr|b|e)")?'
    f"(?:/>|>(?:<v>(?:([0-9]{{1,9}})|({CHARACTERS}))</v>"
    f'|<is><t(?: xml:space="preserve")?>({CHARACTERS})</t></is>)?</c>)'
)
_ROW: Final = re.compile(
    r'\s*((?:<row r="[0-9]{1,9}"(?: [^<>]*)?/>\s*)*+)<row r="([0-9]{1,9})"((?: [^<>]*)?)(?<!/)>'
)
_HIDDEN: Final = re.compile(HIDDEN)
_EMPTY_ROW: Final = re.compile('<row r="([0-9]{1,9})"')


class Scanner:
    """Rows as long as all of them are understood.

    At the end `is_done` says that the sheet's data ended; if not, the rest is given back for expat.
    """

    def __init__(self, values: Values, rest: Rest) -> None:
        self.is_done = False
        self.line = 0
        """That of the last row."""
        self._values = values
        self._shape = Shape(values)
        self._pieces = Pieces(rest, _CLOSING.encode())

    def batches(self) -> Iterator[Block | list[SheetRow]]:
        while text := self._pieces.take():
            at, understood = 0, True
            while at < len(text):
                batch, at, again = self._by_shape(text, at)
                if batch:
                    yield batch
                rows, at, understood = self._by_row(text, at, again)
                if rows:
                    yield rows
                if not understood:
                    self._pieces.leave(text[at:])
                    return
        self.is_done = self._pieces.tail.lstrip().startswith(b"</sheetData>")
        if not self.is_done:
            self._pieces.leave()

    def _by_shape(self, text: str, at: int) -> tuple[Block | list[SheetRow] | None, int, bool]:
        """The rows that have the shape, where they end, and whether to ask for more behind the next row."""
        found, end = self._shape.take(text, at)
        if not found:
            return None, at, False
        batch, self.line = self._shape.rows(found, self.line)
        return batch, end, len(found) >= FEW

    def _by_row(self, text: str, at: int, again: bool) -> tuple[list[SheetRow], int, bool]:
        """Rows one by one, until the shape is to be asked again, or one is not understood."""
        rows: list[SheetRow] = []
        while at < len(text):
            end = text.index(_CLOSING, at)
            read = self._row(text[at:end])
            if read is None:
                return rows, at, False
            row, cells = read
            if row.cells or row.notices:
                rows.append(row)
            at = end + len(_CLOSING)
            if self._shape.learn(cells) or again:
                break
        return rows, at, True

    def _row(self, piece: str) -> tuple[SheetRow, list[Found]] | None:
        """None for what is not wholly understood."""
        opening = _ROW.match(piece)
        if opening is None:
            return None
        matches: list[Found] = _CELL.findall(piece, opening.end())
        tags = piece.count("<", opening.end())
        cells: list[str] = []
        marks: list[tuple[int, Mark]] = []
        flaws: list[Notice] = []
        places = self._values.places
        at = -1
        for letters, style, type_, digits, other, inline in matches:
            at = max(at + 1, places[letters])
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
            if at >= MAX_CELLS:
                return None
            text = self._values.of(at, type_, style, resolved(value), marks, flaws)
            if len(cells) < at:
                cells.extend([""] * (at - len(cells)))
            cells.append(text)
        if tags:
            return None
        for number in (*_EMPTY_ROW.findall(opening.group(1)), opening.group(2)):
            self.line = max(self.line + 1, int(number))
        is_hidden = _HIDDEN.search(opening.group(3)) is not None
        return SheetRow(self.line, cells or [""] * bool(flaws), marks, tuple(flaws), is_hidden), matches
