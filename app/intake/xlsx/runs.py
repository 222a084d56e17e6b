"""Fast path of the workbook reader: splits runs of similar elements by one pattern.

expat calls Python four times for each cell. With expat alone, a workbook of 100,000 tuples would take more
than 1.3 times as long from upload to order as the same rows as CSV (docs/adr/0027). A program writes the rows
of a sheet alike, so a pattern learned from a few rows splits a whole chunk of them in one call, and a
column's cells are looked up all at once. expat reads every element that does not fit, and everything that is
not a row: either can go on after an element of the other. Property tests prove that both give the same rows.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, repeat
from operator import lt
from typing import ClassVar, Final, NamedTuple, Protocol

from app.intake.bounds import CHUNK
from app.intake.table import LOST_CHARACTER, MAX_CELLS, MAX_FIELD, Notice, Source
from app.intake.xlsx.cells import Mark, RowSink, SheetRow, Values
from app.intake.xlsx.markup import MAX_TOKEN, Walk, has_escapes

PROLOGUE: Final = 256 * 1024
"""The first row or text must begin within this many bytes. Otherwise expat reads everything."""
MAX_MISSES: Final = 32
"""After this many elements that do not fit, expat reads the rest of the chunk."""
MAX_LESSONS: Final = 16
"""Rows of a sheet from which the pattern is learned."""
MAX_SLOTS: Final = 64

_FORBIDDEN: Final = bytes(byte < 0x20 and byte not in b"\t\n" for byte in range(256))
"""Marks the bytes that XML forbids or changes: carriage returns become line feeds."""
_DECLARATION: Final = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml\s[^<>]*\?>")
_ENCODING: Final = re.compile(rb"""<\?xml[^>]*\sencoding\s*=\s*["'](?!utf-8["'])""", re.IGNORECASE)


class Runs(Protocol):
    """A kind of element that a document repeats."""

    opening: ClassVar[re.Pattern[bytes]]
    """The tag that encloses all of them."""
    closing: ClassVar[str]

    def take(self, text: str, at: int) -> int:
        """Takes the elements from this position that fit. Returns the position of the first that does not."""
        ...

    def learn(self, element: str) -> None:
        """Gets an element that did not fit."""
        ...


def walk_runs(part: Source, walk: Walk, runs: Runs) -> Iterator[None]:
    """Reads a part to its end in both ways and yields after every piece, like `Walk.through`."""
    data = b""
    while (hit := runs.opening.search(data)) is None and len(data) <= PROLOGUE:
        piece = part.read(CHUNK)
        data += piece
        if not piece:
            break
    if hit is not None and _is_simple(data[: hit.end()]):
        walk.step(data[: hit.end()])
        data = data[hit.end() :]
        closing = runs.closing.encode()
        while len(data) <= MAX_TOKEN:
            end = data.rfind(closing) + len(closing)
            if end >= len(closing):
                if (text := _plain(data[:end])) is None:
                    break
                _read(text, walk, runs)
                data = data[end:]
                yield
            piece = part.read(CHUNK)
            data += piece
            if not piece:
                break
    walk.step(data)
    yield
    yield from walk.through(part)


def _read(text: str, walk: Walk, runs: Runs) -> None:
    """Reads whole elements, each by the pattern or by expat."""
    at = runs.take(text, 0)
    misses = 0
    while at < len(text):
        misses += 1
        end = len(text) if misses > MAX_MISSES else text.index(runs.closing, at) + len(runs.closing)
        element = text[at:end]
        walk.step(element.encode())
        if end < len(text):
            runs.learn(element)
        at = runs.take(text, end)


def _is_simple(prologue: bytes) -> bool:
    """Whether it is in UTF-8, without a comment that could contain the opening tag."""
    content = _DECLARATION.sub(b"", prologue, count=1)
    return b"<!" not in content and b"<?" not in content and _ENCODING.search(prologue) is None


def _plain(data: bytes) -> str | None:
    """The characters; None if expat must read them: forbidden characters, comments, CDATA."""
    # Translating every byte is six times as fast as a pattern that searches for some of them.
    if b"\1" in data.translate(_FORBIDDEN) or any(
        mark[1:] in data and mark in data for mark in (b"<!", b"<?")
    ):
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isascii() or not ("\ufffe" in text or "\uffff" in text) else None


# --- shared texts ---------------------------------------------------------------------------------


_TEXT: Final = "<si><t>"
_KEPT: Final = '<si><t xml:space="preserve">'
_TEXT_END: Final = "</t></si>"


class TextRuns:
    """Shared texts of a single piece without references."""

    opening: ClassVar = re.compile(rb"<sst(?: [^<>]*)?(?<!/)>")
    closing: ClassVar = "</si>"

    def __init__(self, add: Callable[[list[str]], None]) -> None:
        self._add = add

    def take(self, text: str, at: int) -> int:
        # Twice as fast as a pattern: a hash has four thousand characters.
        run = text[at:].replace(_KEPT, _TEXT)
        if not run.startswith(_TEXT):
            return at
        texts = run[len(_TEXT) :].removesuffix(_TEXT_END).split(_TEXT_END + _TEXT)
        taken = next((n for n, one in enumerate(texts) if "<" in one or "&" in one), len(texts))
        self._add([one[: MAX_FIELD + 1] for one in texts[:taken]])
        if taken == len(texts):
            return len(text)
        for _ in range(taken):
            at = text.index(self.closing, at) + len(self.closing)
        return at

    def learn(self, element: str) -> None:
        """Texts have only one shape."""


# --- rows -----------------------------------------------------------------------------------------

_HIDDEN: Final = r"""\s(?:hidden=["'](?:1|true|on)["']|ht=["']0(?:\.0*)?["'])"""
_ROW: Final = rf'\s*<row r="([0-9]{{1,9}})"(?![^<>]*{_HIDDEN})(?: [^<>]*)?(?<!/)>'
_CELL: Final = re.compile(
    '<c r="([A-Z]{1,3})[0-9]{1,7}"(?: s="([0-9]{1,5})")?(?: t="(s|n|str|inlineStr)")?'
    '(/>|><v>[^<&]+</v></c>|><is><t(?: xml:space="preserve")?>[^<&]+</t></is></c>)'
)
_ROW_OF_CELLS: Final = re.compile(f"{_ROW}((?:{_CELL.pattern})+)</row>")

_ANY_STYLE: Final = '(?: s="[0-9]{1,5}")?'
_VALUE: Final = "><v>([^<&]+)</v></c>"
_INLINE: Final = '><is><t(?: xml:space="preserve")?>([^<&]+)</t></is></c>'


class _Slot(NamedTuple):
    """Cells of one column that are read the same way. `pattern` matches what follows the reference."""

    at: int
    letters: str
    type_: str
    style: str
    pattern: str


class RowRuns:
    """The rows of one sheet, by a pattern of the learned cells, each optional."""

    opening: ClassVar = re.compile(b"<sheetData>")
    closing: ClassVar = "</row>"

    def __init__(self, values: Values, sink: RowSink) -> None:
        self._values = values
        self._sink = sink
        self._lessons = 0
        self._slots: set[_Slot] = set()
        self._groups: list[_Slot] = []
        """The slots with a group in the pattern, between the row's number and the rest."""
        self._pattern: re.Pattern[str] | None = None

    def learn(self, element: str) -> None:
        row = _ROW_OF_CELLS.fullmatch(element)
        if row is None or self._lessons == MAX_LESSONS:
            return
        self._lessons += 1
        slots = [self._slot(*cell) for cell in _CELL.findall(row.group(2))]
        places = [slot.at for slot in slots]
        known = self._slots.union(slots)
        if places != sorted(set(places)) or places[-1] >= MAX_CELLS or len(known) > MAX_SLOTS:
            return
        ordered = sorted(known)
        if not (groups := [slot for slot in ordered if "(" in slot.pattern.replace("(?", "")]):
            return
        cells: dict[str, list[str]] = {}
        for slot in ordered:
            cells.setdefault(slot.letters, []).append(slot.pattern)
        # Atomic, so that a row that does not fit is not retried with fewer cells.
        row_of_cells = "".join(
            f'(?><c r="{letters}[0-9]{{1,7}}"(?:{"|".join(ways)})|)' for letters, ways in cells.items()
        )
        self._slots, self._groups = known, groups
        self._pattern = re.compile(f"{_ROW}{row_of_cells}</row>|(.+)", re.DOTALL)

    def _slot(self, letters: str, style: str, type_: str, content: str) -> _Slot:
        at = self._values.places[letters]
        if content == "/>":
            return _Slot(at, letters, "", "", f'{_ANY_STYLE}(?: t="(?:s|n|str|inlineStr)")?/>')
        form = _INLINE if content.startswith("><is>") else _VALUE
        if type_ in ("", "n"):
            # The style matters only for numbers.
            own = f' s="{style}"' if style else ""
            return _Slot(at, letters, "n", style, f'{own}(?: t="n")?{form}')
        return _Slot(at, letters, type_, "", f'{_ANY_STYLE} t="{type_}"{form}')

    def take(self, text: str, at: int) -> int:
        if self._pattern is None:
            return at
        found: list[tuple[str, ...]] = self._pattern.findall(text, at)
        rest = found[-1][-1] if found else ""
        if rest:
            found.pop()
        if found:
            lines, *groups, _ = zip(*found, strict=True)
            self._add(list(map(int, lines)), groups)
        return len(text) - len(rest)

    def _add(self, lines: list[int], groups: Sequence[Sequence[str]]) -> None:
        """Adds the rows of these line numbers. `groups` has the contents of each slot's cells."""
        width = self._groups[-1].at + 1
        columns: list[Sequence[str]] = [()] * width
        written: list[Sequence[str]] = [()] * width
        marks: list[list[tuple[int, Mark]]] = []
        flaws: list[list[Notice]] = []
        for slot, group in zip(self._groups, groups, strict=True):
            if (cells := self._plain(slot, group)) is None:
                marks, flaws = marks or [[] for _ in lines], flaws or [[] for _ in lines]
                cells = [
                    self._values.of(slot.at, slot.type_, slot.style, text, own, odd) if text else ""
                    for text, own, odd in zip(group, marks, flaws, strict=True)
                ]
            columns[slot.at] = _merged(columns[slot.at], cells)
            written[slot.at] = _merged(written[slot.at], group)
        rows = list(map(list, zip(*(column or repeat("") for column in columns), strict=False)))
        sink = self._sink
        if "" in written[-1]:
            for place, row in enumerate(rows):
                # A row ends with its last non-empty cell.
                while row and not (written[len(row) - 1] and written[len(row) - 1][place]):
                    row.pop()
        if lines[0] <= sink.line or not all(map(lt, lines, lines[1:])):
            lines = list(accumulate(lines, lambda before, line: max(before + 1, line), initial=sink.line))[1:]
        sink.line = lines[-1]
        found = map(SheetRow, lines, rows, marks or repeat(()), map(tuple, flaws) if flaws else repeat(()))
        sink.rows += found if [] not in rows else [row for row in found if row.cells]

    def _plain(self, slot: _Slot, group: Sequence[str]) -> Sequence[str] | None:
        """The texts of a column at once; None if one of its cells must be read individually."""
        if slot.type_ == "s":
            try:
                group = self._values.texts.all_of(group)
            except (IndexError, ValueError):
                return None
        elif slot.type_ == "n" or has_escapes("".join(group)):
            return None
        is_odd = max(map(len, group)) > MAX_FIELD or LOST_CHARACTER in "".join(group)
        return None if is_odd else group


def _merged(one: Sequence[str], other: Sequence[str]) -> Sequence[str]:
    return [a or b for a, b in zip(one, other, strict=True)] if one else other
