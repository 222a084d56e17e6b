"""Splits rows that are in one cell each, as when a spreadsheet opens text without splitting it.

A spreadsheet that expects semicolons opens a file with commas this way, and saves it so. The rows are
complete and are split as the text would have been.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.intake import layout
from app.intake.layout import Layout
from app.intake.profiles import Profile
from app.intake.table import DELIMITERS, MAX_CELLS, Notice, Record


@dataclass(frozen=True, slots=True)
class Split:
    """How to split the cells of one column."""

    at: int
    """The column's position."""
    delimiter: str

    @property
    def notice(self) -> Notice:
        words = (
            f"All values of a row are in one cell, separated by {DELIMITERS[self.delimiter]}; they were "
            "taken apart there."
        )
        return Notice("cells_split", words)

    def taken_apart(self, cells: list[str]) -> list[str]:
        """The row's values, or the row itself if it has more than one cell."""
        if self.at >= len(cells):
            return [""]
        if any(cell and not cell.isspace() for cell in cells[self.at + 1 :]):
            return cells
        text = cells[self.at]
        if '"' not in text:
            found = text.split(self.delimiter, MAX_CELLS)
        else:
            # A cell has at most one row. Line breaks in it belong to a value.
            [found] = csv.reader([text.replace("\r", " ").replace("\n", " ")], delimiter=self.delimiter)
        return found


def find(sample: Sequence[Record], profile: Profile | None) -> tuple[Layout, Split] | None:
    """The best reading of rows in one column, or None if they are not."""
    at = _only_column(sample)
    if at is None:
        return None
    best: tuple[tuple[int, int], Layout, Split] | None = None
    for delimiter in DELIMITERS:
        split = Split(at, delimiter)
        apart = [record._replace(cells=split.taken_apart(record.cells)) for record in sample]
        found = layout.find(apart, profile)
        if found is None or found.columns.known < 2:
            continue
        # If the header already has columns, only the rows reveal the separator.
        rank = found.score, sum(map(len, (record.cells for record in apart)))
        if best is None or rank > best[0]:
            best = rank, replace(found, separator=delimiter), split
    return None if best is None else best[1:]


def _only_column(sample: Sequence[Record]) -> int | None:
    """The column in which all rows begin, if hardly any row after the first ones has a second cell."""
    filled = [[at for at, cell in enumerate(record.cells) if cell.strip()] for record in sample]
    filled = [places for places in filled if places]
    firsts = {places[0] for places in filled}
    several = sum(len(places) > 1 for places in filled)
    # A header may have been split although its rows were not.
    if len(firsts) != 1 or (several > 1 and several * 10 > len(filled)) or several == len(filled):
        return None
    return firsts.pop()
