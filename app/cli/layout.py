"""Layout of words and tables in a given width: lines end between words, and no value is cut.

A table that is too wide first loses its empty columns, then those of ids, then wraps its columns of prose
at their words. If it still does not fit, its rows are stacked: one value a line, each after its name. A word
that is longer than the line stays whole, because a terminal shows it and a copy of it is right.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len

GAP: Final = 2
"""Blanks between two columns."""
INDENT: Final = 2
"""Blanks in front of a value that has a line of its own."""
PROSE: Final = 40
"""Characters from which a value counts as a sentence, which may wrap."""
NARROWEST: Final = 24
"""The narrowest column of prose: with a word on each line nobody would read it."""

_WORD: Final = re.compile(r"(\s*)((?:`[^`]*`|\S)+)")
"""A command in backticks is one word, so that it can be copied whole."""


@dataclass(frozen=True, slots=True)
class Column:
    header: str
    cells: Sequence[str]
    numbers: bool = False
    whole: bool = False
    """Never wrapped, however long."""
    id: bool = False
    """Left out where there is no room for it."""

    @property
    def natural(self) -> int:
        return max(map(cell_len, (self.header, *self.cells)))

    @property
    def wraps(self) -> bool:
        return not (self.whole or self.numbers or self.id) and self.natural > PROSE

    @property
    def least(self) -> int:
        if not self.wraps:
            return self.natural
        longest = max(longest_word(text) for text in (self.header, *self.cells))
        return max(longest, min(self.natural, NARROWEST))


def longest_word(text: str) -> int:
    return max((cell_len(word) for _, word in _WORD.findall(text)), default=0)


def wrap(text: str, width: int | None) -> list[str]:
    """Lines of at most `width`, broken between words and indented like the first."""
    if width is None or cell_len(text) <= width:
        return [text]
    start = text[: len(text) - len(text.lstrip())]
    lines: list[str] = []
    line = ""
    for blanks, word in _words(text, width):
        joined = f"{line}{blanks}{word}" if line else f"{start}{word}"
        if line and cell_len(joined) > width:
            lines.append(line)
            joined = f"{start}{word}"
        line = joined
    return [*lines, line] if line else lines or [text]


def _words(text: str, width: int) -> Iterator[tuple[str, str]]:
    for blanks, word in _WORD.findall(text):
        if cell_len(word) <= width or " " not in word:
            yield blanks, word
        else:
            # A command that is longer than the line has to break somewhere.
            pieces = word.split(" ")
            yield from zip((blanks, *[" "] * (len(pieces) - 1)), pieces, strict=True)


def facts(pairs: Sequence[tuple[str, str]], width: int | None) -> Iterator[tuple[str, str]]:
    """Yields (name, value) for each line. The name is padded, and empty on a value's later lines."""
    place = max((cell_len(name) for name, _ in pairs), default=0) + 3
    for name, value in pairs:
        room = None if width is None else width - place
        if width is not None and not _fits(value, width - place, width - INDENT):
            yield name, ""
            for line in wrap(value, max(width - INDENT, 1)):
                yield "", f"{' ' * INDENT}{line}"
            continue
        for at, line in enumerate(wrap(value, room)):
            yield _padded(name if at == 0 else "", place), line


def _fits(value: str, beside: int, below: int) -> bool:
    """Whether a value is printed beside its name: not when it is whole, or has its words whole, only
    below."""
    if cell_len(value) <= beside:
        return True
    return cell_len(value) > below and longest_word(value) <= beside


def fitting(columns: Sequence[Column], width: int | None, *, drop_ids: bool) -> tuple[list[Column], bool]:
    """The columns that are shown, and whether they fit beside each other."""
    shown = list(columns)
    if width is None or _sum(column.natural for column in shown) <= width:
        return shown, True
    shown = [column for column in shown if any(column.cells)]
    if drop_ids and _sum(column.natural for column in shown) > width:
        shown = [column for column in shown if not column.id]
    return shown, _sum(column.least for column in shown) <= width


def widths(columns: Sequence[Column], width: int | None) -> list[int]:
    """Widths of columns that fit: the natural ones, or what is left for those that wrap."""
    found = [column.natural for column in columns]
    if width is None:
        return found
    surplus = _sum(found) - width
    # Shrink the widest, one character at a time: they end up as equal as their words allow.
    while surplus > 0:
        at = max((at for at, column in enumerate(columns) if found[at] > column.least), key=found.__getitem__)
        found[at] -= 1
        surplus -= 1
    return found


def row_lines(cells: Sequence[str], columns: Sequence[Column], found: Sequence[int]) -> Iterator[str]:
    """One row beside each other, on as many lines as its longest cell needs."""
    parts = [
        wrap(cell, room) if column.wraps else [cell]
        for cell, column, room in zip(cells, columns, found, strict=True)
    ]
    for at in range(max(map(len, parts), default=0)):
        line = (
            _padded(part[at] if at < len(part) else "", room, right=column.numbers)
            for part, column, room in zip(parts, columns, found, strict=True)
        )
        yield (" " * GAP).join(line).rstrip()


def _sum(found: Iterable[int]) -> int:
    each = list(found)
    return sum(each) + GAP * (len(each) - 1)


def _padded(text: str, room: int, *, right: bool = False) -> str:
    blanks = " " * max(room - cell_len(text), 0)
    return blanks + text if right else text + blanks
