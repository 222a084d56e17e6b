"""Reads one worksheet row by row."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from app.intake.table import MAX_CELLS, MAX_FIELD, TOO_MANY_CELLS, Notice, Source
from app.intake.xlsx.cells import Mark, RowSink, SheetRow, Texts, Values
from app.intake.xlsx.markup import Names, Walk
from app.intake.xlsx.parts import TRUE, Styles
from app.intake.xlsx.runs import RowRuns, walk_runs

_ZERO: Final = re.compile(r"0(?:\.0*)?")


def sheet_rows(
    part: Source, styles: Styles, texts: Texts, hidden_columns: set[int] | None = None
) -> Iterator[list[SheetRow]]:
    """The rows with cells, in batches, with the sheet's row numbers.

    `hidden_columns` gets the positions of columns that are not shown, before the first row.
    """
    values, sink = Values(styles, texts), RowSink()
    reader = _SheetReader(values, sink, set() if hidden_columns is None else hidden_columns)
    walk = Walk(reader.start, reader.end, reader.pieces)
    for _ in walk_runs(part, walk, RowRuns(values, sink)):
        if sink.rows:
            yield sink.rows
            sink.rows = []


class _SheetReader:
    """Handlers for rows. They are closures over plain values, because expat calls them four times for each
    cell."""

    def __init__(self, values: Values, sink: RowSink, hidden_columns: set[int]) -> None:
        self.pieces: list[str] = []
        names, places, pieces = Names(), values.places, self.pieces
        cells: list[str] = []
        marks: list[tuple[int, Mark]] = []
        flaws: list[Notice] = []
        at = -1
        type_ = style = value = ""
        phonetic = is_formula = has_value = is_hidden = False

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal at, type_, style, value, phonetic, is_formula, has_value, is_hidden
            kind = names.of(name, attributes) if attributes else names[name]
            if kind == "c":
                place = places[attributes["r"].rstrip("0123456789")] if "r" in attributes else -1
                # A cell is never to the left of the previous one.
                at = place if place > at else at + 1
                type_ = attributes.get("t", "")
                style = attributes.get("s", "")
                value = ""
                is_formula = has_value = False
            elif kind in ("v", "t"):
                has_value = True
                pieces.clear()
            elif kind == "f":
                is_formula = True
            elif kind == "row":
                sink.line = max(sink.line + 1, _line(attributes.get("r", "")))
                at = -1
                is_hidden = _is_hidden(attributes, "ht")
            elif kind == "col":
                if _is_hidden(attributes, "width"):
                    hidden_columns.update(_columns(attributes))
            elif kind == "rPh":
                phonetic = True

        def end(name: str) -> None:
            nonlocal phonetic, value, cells, marks, flaws
            kind = names[name]
            if kind in ("v", "t"):
                if not phonetic and len(value) <= MAX_FIELD:
                    value += "".join(pieces)
            elif kind == "c":
                is_unknown = is_formula and _is_uncalculated(type_, value, has_value)
                if not value and not is_unknown:
                    return
                if at >= MAX_CELLS:
                    if TOO_MANY_CELLS not in flaws:
                        flaws.append(TOO_MANY_CELLS)
                    return
                while len(cells) < at:
                    cells.append("")
                if is_unknown:
                    marks.append((at, Mark.UNCALCULATED))
                    cells.append("")
                else:
                    cells.append(values.of(at, type_, style, value, marks, flaws))
            elif kind == "row":
                if cells or flaws:
                    sink.rows.append(SheetRow(sink.line, cells or [""], marks, tuple(flaws), is_hidden))
                    cells, marks, flaws = [], [], []
            elif kind == "rPh":
                phonetic = False

        self.start, self.end = start, end


def _is_uncalculated(type_: str, value: str, has_value: bool) -> bool:
    """Whether a formula has no result. Libraries that do not calculate leave it out, or write 0."""
    if value:
        return value == "0" and type_ in ("", "n")
    # Excel writes an empty text result as type text with an empty value.
    return not (type_ == "str" and has_value)


def _line(number: str) -> int:
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else 0


def _is_hidden(attributes: Mapping[str, str], extent: str) -> bool:
    """Whether a row or column is hidden: it says so, or its size is zero."""
    return attributes.get("hidden") in TRUE or _ZERO.fullmatch(attributes.get(extent, "")) is not None


def _columns(attributes: Mapping[str, str]) -> range:
    """The positions that a column description covers."""
    first, last = attributes.get("min", ""), attributes.get("max", "")
    if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
        return range(0)
    return range(max(int(first[:6]), 1) - 1, min(int(last[:6]), MAX_CELLS))
