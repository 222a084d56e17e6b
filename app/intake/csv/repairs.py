"""Repairs records that a program has wrapped: a whole row in quotation marks, a hash over several lines."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from app.domain.hardware_hash import TEXT_LENGTH
from app.intake.layout import Layout
from app.intake.table import Block, Notice, Record
from app.intake.text.records import cells_of

LEAST_CELLS: Final = 3
"""The fewest cells of a row in quotation marks, in a file whose other rows are not."""
LEAST_PIECE: Final = 40
"""The fewest characters of a line that can only be a piece of a hash."""

IN_QUOTES: Final = Notice(
    "rows_in_quotes",
    "Each row is enclosed in one pair of quotation marks, so it is one cell; it was split at its separators.",
)

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_BEGINS: Final = re.compile(r"T0[E-H]")


def are_in_quotes(sample: Sequence[Record], delimiter: str) -> bool:
    """Whether most rows are one quoted cell with separators in it."""
    filled = [record for record in sample if any(cell.strip() for cell in record.cells)]
    return bool(filled) and 2 * sum(_is_in_quotes(record, delimiter) for record in filled) > len(filled)


def unwrapped(
    source: Iterable[Block | Record], delimiter: str, quote: str, least: int
) -> Iterator[Block | Record]:
    """Splits rows in quotation marks at their separators, if that gives at least `width` cells."""
    for item in source:
        if type(item) is Record and _is_in_quotes(item, delimiter):
            cells = cells_of(item.cells[0], delimiter, quote)
            yield item._replace(cells=cells) if len(cells) >= least else item
        else:
            yield item


def _is_in_quotes(record: Record, delimiter: str) -> bool:
    # Without marks no cell contains its separator.
    return len(record.cells) == 1 and delimiter in record.cells[0]


def whole_hashes(source: Iterable[Block | Record], found: Layout) -> Iterator[Block | Record]:
    """Joins hashes that were broken over several lines without quotation marks."""
    if "hardware_hash" not in found.columns.fields or found.columns.groups:
        yield from source
        return
    front = found.offset + found.added
    joiner = _Joiner(front + found.columns.fields.index("hardware_hash"), front + len(found.columns.fields))
    for item in source:
        if isinstance(item, Record):
            yield from joiner.take(item)
        elif joiner.is_idle and joiner.are_whole(item.cells):
            yield item
        else:
            for line, cells in enumerate(item.cells, start=item.line):
                yield from joiner.take(Record(line, cells, ()))
    yield from joiner.end()


class _Joiner:
    """Holds a row with a cut hash until the next lines are known."""

    def __init__(self, at: int, width: int) -> None:
        self._at = at
        self._width = width
        self._held: list[Record] = []
        self._size = 0

    @property
    def is_idle(self) -> bool:
        return not self._held

    def are_whole(self, rows: list[list[str]]) -> bool:
        """Whether no row of a block can be the first line of a broken hash."""
        at = self._at
        if at + 1 not in set(map(len, rows)):
            return True
        return not any(
            len(cells) == at + 1 and cells[at][:2] == "T0" and len(cells[at]) < TEXT_LENGTH for cells in rows
        )

    def take(self, record: Record) -> Iterator[Record]:
        if self._held:
            if self._goes_on(record):
                self._held.append(record)
                self._size += len(record.cells[0].strip())
                if self._size >= TEXT_LENGTH or len(record.cells) > 1:
                    yield from self.end()
                return
            yield from self.end()
        cells = record.cells
        text = cells[self._at].strip() if len(cells) == self._at + 1 else ""
        if LEAST_PIECE <= len(text) < TEXT_LENGTH and _BEGINS.match(text) and _BASE64.fullmatch(text):
            self._held, self._size = [record], len(text)
        else:
            yield record

    def end(self) -> Iterator[Record]:
        """The held lines: as one row if they are one hash, otherwise as they came."""
        held, self._held = self._held, []
        pieces = [len(record.cells[0]) for record in held[1:]]
        is_whole = abs(self._size - TEXT_LENGTH) <= 3
        if pieces and (is_whole or (len(pieces) > 1 and min(pieces[:-1]) >= LEAST_PIECE)):
            first = held[0]
            text = "".join((first.cells[self._at].strip(), *(record.cells[0].strip() for record in held[1:])))
            cells = [*first.cells[: self._at], text, *held[-1].cells[1:]]
            yield Record(first.line, cells, (*first.notices, _joined(len(held))), first.flaws)
        else:
            yield from held

    def _goes_on(self, record: Record) -> bool:
        text = record.cells[0].strip()
        return (
            len(record.cells) in {1, self._width - self._at}
            and self._size + len(text) <= TEXT_LENGTH + 3
            and not record.notices
            and _BASE64.fullmatch(text) is not None
            and _BEGINS.match(text) is None
        )


def _joined(lines: int) -> Notice:
    words = f"The hash of this row was broken over {lines} lines; they were put together again."
    return Notice("hash_joined", words)
