"""Reads delimited text: values separated by commas, semicolons, tabs or pipes.

It combines the other modules: encoding, records, layout, rows. It is the last reader to be asked: what no
other reader claims is read as text or refused here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple

from app.intake import foreign, layout, row_builder
from app.intake.csv import listed, repairs
from app.intake.layout import Layout
from app.intake.profiles import Profile
from app.intake.table import DELIMITERS, Block, Dialect, Head, Record, Row, Source
from app.intake.text import encodings
from app.intake.text.encodings import Encoding, Text
from app.intake.text.records import blocks, lines, records

SAMPLE: Final = 200
"""The most records of the sample."""


def claims(head: Head) -> bool:
    """Claims everything. `read` refuses what is not text, with a reason."""
    return True


def read(head: Head, stream: Source, profile: Profile | None = None) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile if the bytes are not text, or no column is an identity."""
    encoding = encodings.detect(head)
    foreign.refuse_text("".join(Text(head, None, encoding)))
    first_lines = [line for line in islice(lines(Text(head, None, encoding)), SAMPLE) if line.strip()]
    separator = listed.separator_of(first_lines, profile)
    if separator is not None:
        dialect, rows = listed.read(head, stream, encoding, separator, profile)
        return replace(dialect, notices=(*encodings.notices(encoding), *dialect.notices)), rows
    style = _sniff(head, encoding, profile, first_lines)
    found = style.layout
    dialect = Dialect(
        format="delimited",
        kind=found.kind,
        encoding=encoding.name,
        delimiter=style.delimiter,
        header_row=found.header_row,
        columns=found.columns.pairs,
        notices=(
            *encodings.notices(encoding),
            *([repairs.IN_QUOTES] if style.in_quotes else ()),
            *found.notices,
            *found.columns.notices,
        ),
    )
    source = style.unwrapped(blocks(Text(head, stream, encoding), style.delimiter, style.quote))
    return dialect, row_builder.rows(repairs.whole_hashes(source, found), found, profile)


class _Style(NamedTuple):
    """How cells are separated, and the layout that results."""

    delimiter: str
    quote: str
    in_quotes: bool
    layout: Layout

    def unwrapped(self, source: Iterator[Block | Record]) -> Iterator[Block | Record]:
        least = 2 if self.in_quotes else repairs.LEAST_CELLS
        return repairs.unwrapped(source, self.delimiter, self.quote, least)


def _sniff(head: Head, encoding: Encoding, profile: Profile | None, first_lines: Sequence[str]) -> _Style:
    best: _Style | None = None
    refused: list[Record] = []
    for delimiter in DELIMITERS:
        quote = _quote(first_lines, delimiter)
        sample = _sample(head, encoding, delimiter, quote)
        in_quotes = repairs.are_in_quotes(sample, delimiter)
        least = 2 if in_quotes else repairs.LEAST_CELLS
        sample = [
            record
            for record in repairs.unwrapped(sample, delimiter, quote, least)
            if isinstance(record, Record)
        ]
        refused = refused or sample
        found = layout.find(sample, profile)
        if found is not None and (best is None or found.score > best.layout.score):
            found = replace(found, separator=delimiter, quote=quote, guess=encodings.guess_in_words(encoding))
            best = _Style(delimiter, quote, in_quotes, found)
    if best is None:
        raise layout.refusal(refused)
    return best


def _quote(first_lines: Sequence[str], delimiter: str) -> str:
    """The quotation mark: single if most lines are enclosed in single ones, otherwise double."""
    between = re.compile(rf"'\s*{re.escape(delimiter)}\s*'")
    sample = [line.strip() for line in first_lines]
    quoted = sum(line[0] == line[-1] == "'" and between.search(line) is not None for line in sample)
    return "'" if 2 * quoted > len(sample) else '"'


def _sample(head: Head, encoding: Encoding, delimiter: str, quote: str) -> list[Record]:
    sample = list(islice(records(Text(head, None, encoding), delimiter, quote), SAMPLE + 1))
    if len(sample) > SAMPLE or (not head.whole and len(sample) > 1):
        # The head may end inside the last record.
        sample.pop()
    return sample
