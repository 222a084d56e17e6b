"""Text to cells: lines, quotes, and the bounds that keep a hostile or broken file harmless.

The csv module is not used, for three reasons. Its field limit is one number for the process. One
quotation mark that is never closed makes it swallow the rest of the file as a single value; here
that costs one row. And it does not tell on which physical line a record began. For well-formed
text the cells are the same as csv's; a property test holds that.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from app.intake.encodings import Text, mend
from app.intake.table import Notice

MAX_FIELD: Final = 64 * 1024
"""Characters in one cell; a hardware hash has 4,000."""
MAX_LINE: Final = 1024 * 1024
"""Characters in one physical line."""
MAX_CELLS: Final = 512
MAX_RECORD_LINES: Final = 50
"""Physical lines that one quoted record may span."""

UNCLOSED = Notice(
    "quote_unclosed",
    "A quotation mark opens a value and is never closed; the marks of this line were read as characters.",
)
LINE_TOO_LONG = Notice(
    "line_too_long", f"The line has more than {MAX_LINE:,} characters; the rest was left out."
)
TOO_MANY_CELLS = Notice("too_many_cells", f"The row has more than {MAX_CELLS} cells; the rest was left out.")
MIXED = Notice(
    "encoding_mixed",
    "A value is not UTF-8 like the file before it; it was read as Windows-1252 (ANSI).",
)
LOST = Notice(
    "character_unreadable",
    "A value has a character that can not be read: enter it again by hand.",
)


class Record(NamedTuple):
    line: int
    cells: list[str]
    notices: tuple[Notice, ...]


class Block(NamedTuple):
    """Records of successive lines that have no quotation mark, no damage and no bound in sight.

    `line` is that of the first. Most files are nothing else, so these are what must be fast.
    """

    line: int
    cells: list[list[str]]


def lines(text: Text) -> Iterator[str]:
    """Physical lines without their ends; of an overlong one its first MAX_LINE + 1 characters.

    Only line feeds end a line: `str.splitlines` would also cut at characters that belong to values.
    """
    for batch, _ in _batches(text):
        yield from batch


def records(text: Text, delimiter: str) -> Iterator[Record]:
    """The records of a text, blank lines included. Never raises and never looks far ahead."""
    for found in blocks(text, delimiter):
        if isinstance(found, Block):
            for line, cells in enumerate(found.cells, start=found.line):
                if len(cells) > MAX_CELLS:
                    yield Record(line, cells[:MAX_CELLS], (TOO_MANY_CELLS,))
                else:
                    yield Record(line, cells, ())
        else:
            yield found


def blocks(text: Text, delimiter: str) -> Iterator[Block | Record]:
    """`records`, those that are plain in blocks. A block's rows have at most MAX_CELLS + 1 cells."""
    batches = _batches(text)
    ahead: deque[str] = deque()

    def more() -> str | None:
        while not ahead:
            batch = next(batches, None)
            if batch is None:
                return None
            ahead.extend(batch[0])
        return ahead.popleft()

    number = 1
    for batch, plain in batches:
        if plain:
            yield Block(number, [line.split(delimiter, MAX_CELLS) for line in batch])
            number += len(batch)
            continue
        ahead.extend(batch)
        while ahead:
            record, taken = _record(number, ahead.popleft(), delimiter, ahead, more, text)
            yield record
            number += 1 + taken


def _batches(text: Text) -> Iterator[tuple[list[str], bool]]:
    """Lines by the chunk, and whether all of them are plain."""
    held: list[str] = []
    size = 0
    plain = True
    for chunk in text:
        plain = plain and '"' not in chunk and "\ufeff" not in chunk
        pieces = chunk.split("\n")
        last = pieces.pop()
        if pieces:
            if held:
                pieces[0] = "".join((*held, pieces[0]))[: MAX_LINE + 1]
            yield pieces, plain and not text.damaged and len(pieces[0]) <= MAX_FIELD
            held, size = [], 0
            plain = '"' not in last and "\ufeff" not in last
        if last and size <= MAX_LINE:
            held.append(last)
            size += len(last)
    if held:
        yield ["".join(held)[: MAX_LINE + 1]], False


def _record(
    number: int,
    line: str,
    delimiter: str,
    ahead: deque[str],
    more: Callable[[], str | None],
    text: Text,
) -> tuple[Record, int]:
    """One record, and how many further lines it takes up."""
    taken = 0
    flaws: list[Notice] = []
    if '"' not in line or len(line) > MAX_LINE:
        cells = line.split(delimiter, MAX_CELLS)
    else:
        quoted = _unquote(line, delimiter, ahead, more)
        if quoted is None:
            cells = line.split(delimiter, MAX_CELLS)
            flaws.append(UNCLOSED)
        else:
            cells, taken = quoted
    if taken or len(line) > MAX_FIELD or len(cells) > MAX_CELLS:
        cells = _bound(cells, len(line) > MAX_LINE, flaws)
    if text.damaged:
        cells = _mend(cells, flaws)
    return Record(number, cells, tuple(flaws)), taken


def _unquote(
    line: str, delimiter: str, ahead: deque[str], more: Callable[[], str | None]
) -> tuple[list[str], int] | None:
    """Cells of a record with quotation marks, and how many further lines it takes up.

    A mark counts only at the start of a cell, as in RFC 4180: `15" panel` is text. None when a
    mark stays open to the end of the file or beyond the bounds; lines looked at go back to `ahead`.
    """
    taken: list[str] = []
    cells: list[str] = []
    at = 0
    while True:
        if line.startswith('"', at):
            search = at + 1
            while True:
                close = line.find('"', search)
                if close >= 0:
                    if not line.startswith('""', close):
                        break
                    search = close + 2
                    continue
                search = len(line)
                within = len(taken) < MAX_RECORD_LINES and search - at <= MAX_FIELD
                following = more() if within else None
                if following is None:
                    ahead.extendleft(reversed(taken))
                    return None
                taken.append(following)
                line = f"{line}\n{following}"
            end = line.find(delimiter, close + 1)
            value = line[at + 1 : close].replace('""', '"') + line[close + 1 : end if end >= 0 else len(line)]
        else:
            end = line.find(delimiter, at)
            value = line[at : end if end >= 0 else len(line)]
        cells.append(value)
        if end < 0:
            return cells, len(taken)
        at = end + 1


def _bound(cells: list[str], cut: bool, flaws: list[Notice]) -> list[str]:
    if cut:
        # What stands last may be half a value.
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


def _mend(cells: list[str], flaws: list[Notice]) -> list[str]:
    mended = [mend(cell) for cell in cells]
    if any(mixed for _, mixed, _ in mended):
        flaws.append(MIXED)
    if any(lost for _, _, lost in mended):
        flaws.append(LOST)
    return [cell for cell, _, _ in mended]
