"""Splits delimited text into records of cells, within bounds that keep a hostile or broken file harmless.

It replaces the csv module for three reasons. csv's field limit is global to the process. After a quotation
mark that is never closed, csv takes the rest of the file as one value; here that costs one row. And csv does
not say on which physical line a record began. For well-formed text the cells are the same as csv's, which a
property test proves.
"""

import re
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from app.intake.table import MAX_CELLS, MAX_FIELD, TOO_MANY_CELLS, Block, Flaw, Notice, Record
from app.intake.text.encodings import Text

MAX_LINE: Final = 1024 * 1024
"""Characters in one physical line."""
MAX_RECORD_LINES: Final = 1_000
"""The most physical lines of a quoted cell: a hash wrapped at 64 characters has 63."""
MAX_WASTED: Final = 100_000
"""The most lines of a file that are searched for closing marks without success. After that a cell may span
only FEW_LINES."""
FEW_LINES: Final = 50

UNCLOSED = Notice(
    "quote_unclosed",
    "A quotation mark opens a value and is never closed; the marks of this line were read as characters.",
)
LINE_TOO_LONG = Notice(
    "line_too_long", f"The line has more than {MAX_LINE:,} characters; the rest was left out."
)


def lines(text: Text) -> Iterator[str]:
    """Physical lines without their ends. An overlong one is cut after MAX_LINE + 1 characters.

    Only line feeds end a line: `str.splitlines` would also cut at characters that belong to values.
    """
    for batch, _ in _batches(text, '"'):
        yield from batch


def records(text: Text, delimiter: str, quote: str = '"') -> Iterator[Record]:
    """The records of a text, including blank lines. Never raises and never looks far ahead."""
    for found in blocks(text, delimiter, quote):
        if isinstance(found, Block):
            for line, cells in enumerate(found.cells, start=found.line):
                if len(cells) > MAX_CELLS:
                    yield Record(line, cells[:MAX_CELLS], (TOO_MANY_CELLS,))
                else:
                    yield Record(line, cells, ())
        else:
            yield found


def blocks(text: Text, delimiter: str, quote: str = '"') -> Iterator[Block | Record]:
    """Like `records`, with plain ones in blocks. A block's rows have at most MAX_CELLS + 1 cells."""
    batches = _batches(text, quote)
    parser = _Parser(text, delimiter, quote, batches)
    number = 1
    for batch, plain in batches:
        if plain:
            yield Block(number, [line.split(delimiter, MAX_CELLS) for line in batch])
            number += len(batch)
            continue
        parser.ahead.extend(batch)
        while parser.ahead:
            record, taken = parser.record(number, parser.ahead.popleft())
            yield record
            number += 1 + taken


def cells_of(line: str, delimiter: str, quote: str = '"') -> list[str]:
    """The cells of a single line."""
    cells, _, is_open = _quoting(delimiter, quote).cells(line)
    return cells if is_open is None else line.split(delimiter)


def _batches(text: Text, quote: str) -> Iterator[tuple[list[str], bool]]:
    """Yields lines in chunks, and whether all of them are plain."""
    held: list[str] = []
    size = 0
    plain = True
    for chunk in text:
        plain = plain and quote not in chunk and "\ufeff" not in chunk
        pieces = chunk.split("\n")
        last = pieces.pop()
        if pieces:
            if held:
                pieces[0] = "".join((*held, pieces[0]))[: MAX_LINE + 1]
            yield pieces, plain and not text.damaged and len(pieces[0]) <= MAX_FIELD
            held, size = [], 0
            plain = quote not in last and "\ufeff" not in last
        if last and size <= MAX_LINE:
            held.append(last)
            size += len(last)
    if held:
        yield ["".join(held)[: MAX_LINE + 1]], False


Flaws = list[tuple[int, Flaw]]


class _Quoting:
    """Splits a line with quotation marks into cells.

    A mark counts only at the start of a cell, perhaps after blanks: `15" panel` is text. The mark that closes
    a cell is followed by a separator or the line's end, perhaps after blanks.
    """

    def __init__(self, delimiter: str, quote: str) -> None:
        self.quote = quote
        self.delimiter = delimiter
        blank, mark, other = "[ ]*+" if delimiter == "\t" else r"[ \t]*+", re.escape(quote), f"[^{quote}]*+"
        end = rf"{blank}(?={re.escape(delimiter)}|\Z)"
        self._whole = re.compile(f"{blank}{mark}({other}(?:{mark}{mark}{other})*+){mark}{end}")
        self._opens = re.compile(blank + mark)
        self.closes = re.compile(mark + end)

    def cells(
        self, line: str, at: int = 0, cells: list[str] | None = None, flaws: Flaws | None = None
    ) -> tuple[list[str], Flaws, int | None]:
        """The cells from a position on, and where a cell begins that does not end on this line."""
        cells, flaws = cells or [], flaws or []
        quote, delimiter = self.quote, self.delimiter
        escaped = "\\" + quote
        whole, opens = self._whole.match, self._opens.match
        while True:
            if found := whole(line, at):
                value = found[1]
                cells.append(value.replace(quote + quote, quote) if quote in value else value)
                end = found.end()
            elif begin := opens(line, at):
                odd = self.odd(line, begin.end())
                if odd is None:
                    return cells, flaws, begin.end()
                value, end, flaw = odd
                if flaw is not None:
                    flaws.append((len(cells), flaw))
                cells.append(value)
            else:
                end = line.find(delimiter, at)
                end = end if end >= 0 else len(line)
                value = line[at:end]
                if escaped in value:
                    value = value.replace(escaped, quote)
                    flaws.append((len(cells), Flaw.INSIDE))
                cells.append(value)
            if end == len(line):
                return cells, flaws, None
            at = end + 1

    def odd(self, line: str, start: int) -> tuple[str, int, Flaw | None] | None:
        """A cell with odd quotation marks: value, end, flaw. None if it does not end here.

        Some databases write a mark inside a value as a backslash and a mark.
        """
        quote = self.quote
        inner, escaped = -1, False
        at = line.find(quote, start)
        while at >= 0:
            behind_backslash = at > start and line[at - 1] == "\\"
            closing = self.closes.match(line, at)
            if closing is not None and not (behind_backslash and escaped):
                if inner >= 0 and self.delimiter in line[inner:at]:
                    break
                value = line[start:at].replace("\\" + quote, quote).replace(quote + quote, quote)
                return value, closing.end(), Flaw.INSIDE
            if behind_backslash:
                escaped = True
            elif line.startswith(quote + quote, at):
                at += 1
            elif inner < 0:
                inner = at
            at = line.find(quote, at + 1)
        if inner < 0:
            return None
        end = line.find(self.delimiter, inner)
        end = end if end >= 0 else len(line)
        return line[start:end], end, Flaw.BEHIND

    def doubled_at_the_end(self, line: str, start: int) -> tuple[str, int] | None:
        """Whether the first of two marks belongs to the value and the second closes it: `"ThinkBook 14""`."""
        at = line.find(self.quote * 2, start)
        while at >= 0:
            if closing := self.closes.match(line, at + 1):
                return line[start : at + 1], closing.end()
            at = line.find(self.quote * 2, at + 2)
        return None


@lru_cache(maxsize=16)
def _quoting(delimiter: str, quote: str) -> _Quoting:
    return _Quoting(delimiter, quote)


class _Parser:
    """Records of the lines that are not plain."""

    def __init__(
        self, text: Text, delimiter: str, quote: str, batches: Iterator[tuple[list[str], bool]]
    ) -> None:
        self.ahead: deque[str] = deque()
        self._text = text
        self._batches = batches
        self._quoting = _quoting(delimiter, quote)
        self._wasted = 0

    def record(self, number: int, line: str) -> tuple[Record, int]:
        """One record, and the number of further lines in it."""
        taken = 0
        notices: list[Notice] = []
        flaws: Flaws = []
        quoting = self._quoting
        if quoting.quote not in line or len(line) > MAX_LINE:
            cells = line.split(quoting.delimiter, MAX_CELLS)
        else:
            quoted = self._unquoted(line)
            if quoted is None:
                cells = line.split(quoting.delimiter, MAX_CELLS)
                notices.append(UNCLOSED)
            else:
                cells, flaws, taken = quoted
        if taken or len(line) > MAX_FIELD or len(cells) > MAX_CELLS:
            cells = _bound(cells, len(line) > MAX_LINE, notices)
        if self._text.damaged:
            cells = self._text.mend_cells(number, cells, notices)
        return Record(number, cells, tuple(notices), tuple(flaws)), taken

    def _unquoted(self, line: str) -> tuple[list[str], Flaws, int] | None:
        """Cells of a record with quotation marks, and the number of further lines in it.

        None if a mark stays open to the end of the file or beyond the bounds. The lines that were read go
        back to `ahead`.
        """
        quoting = self._quoting
        taken: list[str] = []
        cells, flaws, start = quoting.cells(line)
        while start is not None:
            closed = self._look_ahead(line, start, taken)
            doubled = None if closed or taken else quoting.doubled_at_the_end(line, start)
            if closed is not None:
                value, line, at = closed
            elif doubled is not None:
                value, at = doubled
                flaws.append((len(cells), Flaw.INSIDE))
            else:
                self.ahead.extendleft(reversed(taken))
                return None
            cells.append(value)
            if at == len(line):
                break
            cells, flaws, start = quoting.cells(line, at + 1, cells, flaws)
        return cells, flaws, len(taken)

    def _look_ahead(self, line: str, start: int, taken: list[str]) -> tuple[str, str, int] | None:
        """The value of a cell that ends on a later line, that line, and the cell's end on it."""
        quote = self._quoting.quote
        limit = MAX_RECORD_LINES if self._wasted < MAX_WASTED else FEW_LINES
        pieces = [line[start:]]
        size = len(pieces[0])
        while len(pieces) <= limit and size <= MAX_FIELD and (following := self._next()) is not None:
            at = following.find(quote)
            while at >= 0 and following.startswith(quote + quote, at):
                at = following.find(quote, at + 2)
            closing = self._quoting.closes.match(following, at) if at >= 0 else None
            if closing is not None:
                taken += [*pieces[1:], following]
                value = "\n".join((*pieces, following[:at])).replace(quote + quote, quote)
                return value, following, closing.end()
            pieces.append(following)
            size += len(following) + 1
            if at >= 0:
                break
        self.ahead.extendleft(reversed(pieces[1:]))
        self._wasted += len(pieces) - 1
        return None

    def _next(self) -> str | None:
        while not self.ahead:
            batch = next(self._batches, None)
            if batch is None:
                return None
            self.ahead.extend(batch[0])
        return self.ahead.popleft()


def _bound(cells: list[str], cut: bool, flaws: list[Notice]) -> list[str]:
    if cut:
        # The last cell may be incomplete.
        cells = cells[:-1] or [""]
        flaws.append(LINE_TOO_LONG)
    if len(cells) > MAX_CELLS:
        cells = cells[:MAX_CELLS]
        flaws.append(TOO_MANY_CELLS)
    for at, cell in enumerate(cells):
        if len(cell) > MAX_FIELD:
            words = f"Cell {at + 1} has more than {MAX_FIELD:,} characters and was left out."
            flaws.append(Notice("cell_too_long", words))
            cells[at] = ""
    return cells
