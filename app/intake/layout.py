"""Finds where a table's rows begin and what its columns mean, from the first records.

Four layouts occur: names above the values (perhaps under title lines), the Configuration Manager report that
repeats the names in front of every row's values, values without names, and values under unknown names. Each
is tried with each delimiter, and the reading that knows the most columns wins, before the first row is
yielded. A profile's names count like known ones, and its positions decide what a column is, whatever it
contains.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.intake import column_guess, columns, corrections, groups, profiles
from app.intake.columns import IDENTITY, Columns
from app.intake.profiles import Profile
from app.intake.table import Kind, Notice, Record, UnreadableFile

HEADER_WITHIN: Final = 40
"""The header must be among this many non-blank records. Reports have a handful of title lines."""
LEAST_RULE: Final = 3
"""The fewest characters of a rule: some write a single dash for an empty cell."""
_RULE_BEGINS: Final = frozenset("-=:+_|")
_RULE: Final = re.compile(r"[-=:+_|]*(?:--|==|__)[-=:+_|]*")
_ALIGNED: Final = re.compile(r":-+:?|-+:")
"""A column of a Markdown table with its alignment, however short."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`first_line` is the first physical line with data. `offset` is how many cells of each row
    repeat the columns' names (Configuration Manager), otherwise 0; `added` how many of ours precede
    every row (a file of corrections). `score` compares readings."""

    kind: Kind
    columns: Columns
    first_line: int
    header_row: int | None
    score: int
    offset: int = 0
    added: int = 0
    notices: tuple[Notice, ...] = ()
    separator: str = ""
    """The delimiter of a text. A workbook has none, so its values cannot be torn."""
    quote: str = '"'
    seen: frozenset[tuple[str, str]] = frozenset()
    """Manufacturers and models of rows that are as wide as the header."""
    guess: str = ""
    """The encoding in words, if it was guessed."""


def find(sample: Sequence[Record], profile: Profile | None = None) -> Layout | None:
    """The best reading of the first records; None if nothing reveals the columns."""
    filled = [record for record in sample if any(cell.strip() for cell in record.cells)]
    if filled and filled[0].cells[0].lower().startswith("sep="):
        # Excel's way of naming the separator, which the content also reveals.
        filled = filled[1:]
    if filled and (added := corrections.added(filled[0].cells)):
        own = [record._replace(cells=corrections.taken_off(record.cells, added)) for record in filled]
        found = _found([record for record in own if any(cell.strip() for cell in record.cells)], profile)
        return None if found is None else replace(found, added=added)
    return _found(filled, profile)


def _found(filled: Sequence[Record], profile: Profile | None) -> Layout | None:
    return _repeated_names(filled, profile) or _named(filled, profile) or _unnamed(filled, profile)


def refusal(sample: Sequence[Record]) -> UnreadableFile:
    """Why no reading was found. Quotes nothing, because the first line may be data."""
    if not any(cell.strip() for record in sample for cell in record.cells):
        return UnreadableFile("empty_file", "The file has no rows. Export it again, then upload it.")
    return UnreadableFile(
        "columns_unknown",
        "No column of this file could be recognised as an identity of a device. Make the first line a header "
        "such as 'Device Serial Number,Windows Product ID,Hardware Hash,Manufacturer name,Device model', "
        "with the values below it in that order.",
    )


def is_header(cells: Sequence[str], profile: Profile | None = None) -> bool:
    """Whether the cells are only known names with an identity among them, like the header of an appended
    file."""
    filled = [cell for cell in cells if cell.strip()]
    fields = set(map(profiles.names_of(profile), filled))
    return None not in fields and bool(fields & IDENTITY) and (len(filled) > 1 or len(cells) == 1)


def _repeated_names(filled: Sequence[Record], profile: Profile | None) -> Layout | None:
    for at, record in enumerate(filled[:HEADER_WITHIN]):
        cells = record.cells
        count = leading_names(cells)
        values = cells[count:]
        if count < 2 or not any(value.strip() for value in values[:count]):
            continue
        following = filled[at + 1].cells if at + 1 < len(filled) else []
        again = following[:count] == cells[:count] and following != cells and not is_header(following)
        if not (again or column_guess.is_proof(values)):
            continue
        resolved = profiles.resolve(cells[:count], profile)
        notices = _above(at)
        return Layout(
            Kind.CONFIGMGR, resolved, record.line, None, 10 * resolved.known + 1, count, notices=notices
        )
    return None


def leading_names(cells: Sequence[str]) -> int:
    """How many cells at the start of a row are names of different known fields."""
    seen: set[str] = set()
    for cell in cells:
        field = columns.field_of(cell)
        if field is None or field in seen:
            break
        seen.add(field)
    return len(seen) if seen & IDENTITY else 0


def _named(filled: Sequence[Record], profile: Profile | None) -> Layout | None:
    at = _header_at(filled, profile)
    if at is None:
        return None
    header, below = filled[at], filled[at + 1 :]
    ruled = bool(below) and is_rule(below[0].cells)
    rows = [record.cells for record in below[ruled:]]
    resolved = profiles.resolve(header.cells, profile, _proved(header.cells, rows))
    if not resolved.has_identity:
        return None
    return Layout(
        kind=columns.kind_of(resolved),
        columns=resolved,
        first_line=below[0].line + 1 if ruled else header.line + 1,
        header_row=header.line,
        score=10 * resolved.known + 2,
        notices=_above(at),
        seen=_seen(resolved, rows),
    )


def is_rule(cells: Sequence[str]) -> bool:
    """Whether it is the line of dashes that text tables and database clients draw below the names."""
    first = next((cell.strip() for cell in cells if cell and not cell.isspace()), "")
    if first[:1] not in _RULE_BEGINS:
        return False
    filled = [cell.strip() for cell in cells if cell and not cell.isspace()]
    return bool(filled) and all(
        (len(cell) >= LEAST_RULE and _RULE.fullmatch(cell)) or _ALIGNED.fullmatch(cell) for cell in filled
    )


def _seen(resolved: Columns, rows: Sequence[Sequence[str]]) -> frozenset[tuple[str, str]]:
    fields = resolved.fields
    if "manufacturer" not in fields or "model" not in fields:
        return frozenset()
    maker, model = fields.index("manufacturer"), fields.index("model")
    return frozenset((row[maker].strip(), row[model].strip()) for row in rows if len(row) == len(fields))


def _header_at(filled: Sequence[Record], profile: Profile | None) -> int | None:
    """The first row with an identity's name and another one, otherwise the one with the most names.

    Never one below a device. Rows above the header are skipped.
    """
    field_of = profiles.names_of(profile)
    best: tuple[int, int] | None = None
    for at, record in enumerate(filled[:HEADER_WITHIN]):
        if column_guess.is_proof(record.cells):
            break
        fields = {field_of(cell) or field_of(groups.without_number(cell) or "") for cell in record.cells} - {
            None
        }
        if len(fields) > 1 and fields & IDENTITY:
            return at
        names = [cell for cell in record.cells if cell.strip()]
        # A known word in a wide row may be a value, but an identity's name is a column's heading.
        if (fields & IDENTITY or 2 * len(fields) > len(names)) and (best is None or len(fields) > best[0]):
            best = (len(fields), at)
    return None if best is None else best[1]


def _proved(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[int, str]:
    """Columns with a doubtful or unknown name but unmistakable content, for fields that no name gives."""
    named = {columns.field_of(name) for name in header}
    proved: dict[int, str] = {}
    for at, name in enumerate(header):
        if columns.field_of(name) is not None:
            continue
        doubtful = columns.doubtful_field_of(name)
        field = None
        if column_guess.share(rows, at, column_guess.is_hash) > 0.5:
            field = "hardware_hash"
        elif doubtful == "product_key" and column_guess.share(rows, at, column_guess.is_pkid) > 0.5:
            field = doubtful
        if field is not None and field not in named and field not in proved.values():
            proved[at] = field
    return proved


def _unnamed(filled: Sequence[Record], profile: Profile | None) -> Layout | None:
    """Reads a table without known names by its content, with or without a line of unknown names."""
    filled = [record for record in filled if not (is_header(record.cells) or is_rule(record.cells))]
    if not filled:
        return None
    rows = [record.cells for record in filled]
    if profile is not None and (placed := _placed(filled, rows, profile)):
        return placed
    fields = column_guess.assign(rows)
    headed = column_guess.assign(rows[1:])
    first = rows[0]
    if headed and not column_guess.is_proof(first) and _is_above(first, headed, rows[1:]):
        sure = {at: field for at, field in headed.items() if at < len(first)}
        resolved = profiles.resolve(first, profile, sure)
        if resolved.has_identity:
            line = filled[0].line
            return Layout(columns.kind_of(resolved), resolved, line + 1, line, 10 * resolved.known)
    if not fields:
        return None
    return _headerless_layout(filled[0].line, max(max(fields) + 1, *map(len, rows)), fields)


def _headerless_layout(line: int, width: int, fields: Mapping[int, str | None]) -> Layout:
    names = tuple(f"column {at + 1}" for at in range(width))
    resolved = Columns(names, tuple(fields.get(at) for at in range(width)))
    notices = [_headerless(resolved)]
    if list(resolved.fields) == ["manufacturer", "model", "serial_number"]:
        notices.append(_IDENTIFIERS)
    return Layout(Kind.HEADERLESS, resolved, line, None, 10 * resolved.known, notices=tuple(notices))


def _placed(filled: Sequence[Record], rows: Sequence[Sequence[str]], profile: Profile) -> Layout | None:
    """Reads a table by the profile's positions, if they give an identity. The content decides the other
    columns.

    The first line is a heading if no identity in it has a digit: serial numbers, PKIDs and hashes do.
    """
    width = max(map(len, rows))
    settled, lacking = profile.places([""] * width)
    settled = {at: field for at, field in settled.items() if at < width}
    identities = [at for at, field in settled.items() if field in IDENTITY]
    if not identities:
        return None
    first = rows[0]
    heads = [first[at] for at in identities if at < len(first) and first[at].strip()]
    if heads and not any(character.isdigit() for cell in heads for character in cell):
        header = [*first, *[""] * (width - len(first))]
        resolved = profiles.resolve(header, profile)
        line = filled[0].line
        return Layout(columns.kind_of(resolved), resolved, line + 1, line, 10 * resolved.known + 1)
    taken = set(settled.values())
    by_content = {
        at: field
        for at, field in column_guess.assign(rows).items()
        if at not in settled and field not in taken
    }
    found = _headerless_layout(filled[0].line, width, {**by_content, **settled})
    named = tuple(profiles.missing(column) for column in lacking)
    return replace(found, score=found.score + 1, notices=(*found.notices, *named))


def _is_above(first: Sequence[str], fields: dict[int, str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first line is a heading: it has something else in a column of hashes, PKIDs or makers."""
    tests = {
        "hardware_hash": column_guess.is_hash,
        "product_key": column_guess.is_pkid,
        "manufacturer": column_guess.is_maker,
    }
    return any(
        at < len(first)
        and first[at].strip()
        and len(first[at]) <= columns.MAX_NAME
        # A mistyped PKID or maker is still a value. Only words are headings.
        and (field == "hardware_hash" or not any(character.isdigit() for character in first[at]))
        and not first[at].startswith("T0")
        and not tests[field](first[at])
        and column_guess.share(rows, at, tests[field]) > 0.5
        for at, field in fields.items()
        if field in tests
    )


def _headerless(resolved: Columns) -> Notice:
    found = [
        f"{name} is {field or 'not used'}"
        for name, field in zip(resolved.names, resolved.fields, strict=True)
    ]
    words = "The file has no header; its columns were told by their content: " + ", ".join(found[:12]) + "."
    return Notice("header_missing", words)


_IDENTIFIERS: Final = Notice(
    "corporate_identifier_layout",
    "Manufacturer, model, serial number without a header is how corporate device identifiers are written, "
    "not Autopilot devices: dots and commas may be missing from the names. Compare them with a device.",
)


def _above(count: int) -> tuple[Notice, ...]:
    if not count:
        return ()
    lines = "1 line" if count == 1 else f"{count} lines"
    return (Notice("lines_above_table", f"{lines} above the table were passed over."),)
