"""The reader of delimited text: CSV in its many dialects, tab-separated, semicolons, pipes.

It ties together what the other modules decide (encoding, records, layout) and makes the rows. It
is the last reader to be asked: what nobody else claims is read as text or refused here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Final

from app.domain.catalogue import Severity
from app.intake import columns, encodings, layout
from app.intake.columns import ALIASES, MAX_NAME, Columns
from app.intake.encodings import Encoding, Text
from app.intake.layout import Layout
from app.intake.records import Record, records
from app.intake.table import Dialect, Head, Notice, Row

DELIMITERS: Final = (",", ";", "\t", "|")
"""In the order of preference when the content does not tell them apart (a single column)."""
SAMPLE: Final = 200
"""Records looked at."""

_FIRST_NAMES: Final = frozenset(name.casefold() for names in ALIASES.values() for name in names)


def claims(head: Head) -> bool:
    """Everything: what is no text is refused by `read`, in words."""
    return True


def read(head: Head, stream: BinaryIO) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile when the bytes are no text, or no column of it is an identity."""
    encoding = encodings.detect(head)
    delimiter, found = _sniff(head, encoding)
    dialect = Dialect(
        format="delimited",
        kind=found.kind,
        encoding=encoding.name,
        delimiter=delimiter,
        header_row=found.header_row,
        columns=tuple(zip(found.columns.names, found.columns.fields, strict=True)),
        notices=(*found.notices, *found.columns.notices),
    )
    source = records(Text(head, stream, encoding), delimiter)
    return dialect, _rows(source, found)


def _sniff(head: Head, encoding: Encoding) -> tuple[str, Layout]:
    encodings.refuse_other_text(next(iter(Text(head, None, encoding)), ""))
    best: tuple[str, Layout] | None = None
    samples = {delimiter: _sample(head, encoding, delimiter) for delimiter in DELIMITERS}
    for delimiter, sample in samples.items():
        found = layout.find(sample)
        if found is not None and (best is None or found.score > best[1].score):
            best = delimiter, found
    if best is None:
        raise layout.refusal(samples[","])
    return best


def _sample(head: Head, encoding: Encoding, delimiter: str) -> list[Record]:
    sample = list(islice(records(Text(head, None, encoding), delimiter), SAMPLE + 1))
    if len(sample) > SAMPLE or (not head.whole and len(sample) > 1):
        # The last record may be cut where the head ends.
        sample.pop()
    return sample


@dataclass(frozen=True, slots=True)
class _Plan:
    """`Columns` prepared for the loop over rows."""

    names: list[str]
    known: tuple[tuple[int, str], ...]
    others: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, resolved: Columns) -> "_Plan":
        pairs = list(enumerate(zip(resolved.names, resolved.fields, strict=True)))
        return cls(
            list(resolved.names),
            tuple((at, field) for at, (_, field) in pairs if field is not None),
            tuple((at, name) for at, (name, field) in pairs if field is None),
        )


def _rows(source: Iterator[Record], found: Layout) -> Iterator[Row]:
    plan, fields = _Plan.of(found.columns), found.columns.fields
    carried: tuple[Notice, ...] = ()
    number = 0
    for line, cells, notices in source:
        if line < found.first_line:
            continue
        # A row emptied because its cell was too long is still a row.
        if not notices and not any(cell and not cell.isspace() for cell in cells):
            continue
        first = cells[0]
        if first.startswith("\ufeff"):
            # A file with a byte order mark was appended to another one.
            first = first.lstrip("\ufeff")
            cells = [first, *cells[1:]]
        if not found.offset and len(first) <= MAX_NAME:
            if cells == plan.names:
                # Collectors' files put one behind the other: the same header in front of each.
                continue
            if first.casefold() in _FIRST_NAMES and layout.is_header(cells):
                resolved = columns.resolve(cells)
                if resolved.fields != fields:
                    carried = (_header_again(line), *resolved.notices)
                plan, fields = _Plan.of(resolved), resolved.fields
                continue
        number += 1
        if carried:
            notices, carried = (*carried, *notices), ()
        if found.offset:
            yield _repeating_row(number, line, cells, notices, plan, found)
        else:
            yield _row(number, line, cells, cells, notices, plan)


def _row(
    number: int,
    line: int,
    original: Sequence[str],
    values: Sequence[str],
    notices: tuple[Notice, ...],
    plan: _Plan,
) -> Row:
    count, width = len(values), len(plan.names)
    if count == width:
        fields = {field: cell for at, field in plan.known if (cell := values[at]) and not cell.isspace()}
        extra = {name: cell for at, name in plan.others if (cell := values[at]) and not cell.isspace()}
        return Row(number, line, fields, extra, tuple(original), notices)
    padded = [*values, *[""] * (width - count)]
    fields = {field: cell for at, field in plan.known if (cell := padded[at]) and not cell.isspace()}
    extra = {name: cell for at, name in plan.others if (cell := padded[at]) and not cell.isspace()}
    surplus = {f"column {at + 1}": cell for at, cell in enumerate(padded) if at >= width and cell.strip()}
    if count < width:
        notices = (*notices, _short(count, width))
    elif surplus:
        notices = (*notices, _long(count, width))
        for name, cell in surplus.items():
            # A column may itself be called "column 7".
            extra[name if name not in extra else f"{name} (no header)"] = cell
    return Row(number, line, fields, extra, tuple(original), notices)


def _repeating_row(
    number: int, line: int, cells: Sequence[str], notices: tuple[Notice, ...], plan: _Plan, found: Layout
) -> Row:
    """A Configuration Manager row: names in front, values behind. Its own names count."""
    offset = found.offset
    if cells[:offset] != plan.names[:offset]:
        if layout.leading_names(cells) != offset:
            return Row(number, line, {}, {}, tuple(cells), (*notices, _NAMES_MISSING))
        plan = _Plan.of(columns.resolve(cells[:offset]))
    return _row(number, line, cells, cells[offset:], notices, plan)


def _short(count: int, width: int) -> Notice:
    words = f"The row has {count} of {width} cells; the missing ones are taken as empty."
    return Notice("row_short", Severity.WARNING, words)


def _long(count: int, width: int) -> Notice:
    words = (
        f"The row has {count} cells for {width} columns. A separator inside a value without quotation marks "
        "moves everything after it: compare the row with its source."
    )
    return Notice("row_long", Severity.WARNING, words)


def _header_again(line: int) -> Notice:
    words = f"Line {line} is a header again; from there on the columns are read by it."
    return Notice("header_repeated", Severity.WARNING, words)


_NAMES_MISSING: Final = Notice(
    "names_missing",
    Severity.ERROR,
    "The row lacks the column names that the other rows of this report repeat.",
)
