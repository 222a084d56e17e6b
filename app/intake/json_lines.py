"""Reads JSON Lines: one object per device, as order systems write them.

Keys are matched like a header's names, so both suppliers' names and those of our API are known. Every object
has its own keys, and a key that appears late is used like one of the first line. Values are texts; a number
keeps the digits it is written with.
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from app.intake import columns, profiles
from app.intake.profiles import Profile
from app.intake.row_builder import MAX_ROWS, too_many_rows, with_guess
from app.intake.row_plan import NOTHING, Plan
from app.intake.table import (
    LOST,
    MAX_CELLS,
    MAX_FIELD,
    TOO_MANY_CELLS,
    Dialect,
    Head,
    Kind,
    Notice,
    Row,
    Source,
    UnreadableFile,
    storable,
)
from app.intake.text import encodings
from app.intake.text.encodings import Encoding, Text
from app.intake.text.records import LINE_TOO_LONG, MAX_LINE, lines

SAMPLE: Final = 200
"""Lines that are examined for columns."""
MAX_PLANS: Final = 256
"""The most different sets of keys that are remembered."""

_ORDER: Final = frozenset(
    {"customer_id", "reference", "devices", "group_tag", "purchase_order", "on_invalid"}
)
"""The keys of an order of our API."""
NEVER_BOOLEAN: Final = frozenset({"serial_number", "product_key", "manufacturer", "model"})
"""Fields that are texts, even if a program or a spreadsheet writes them as something else."""
_NOT_JSON = Notice("line_not_json", "The line is not a JSON object.")
_REPEATED = Notice("key_repeated", "A key occurs twice in the object; nobody can tell which value is meant.")


class _Number(str):
    """A number with its original characters."""


class _Boolean(str):
    """`true` or `false` without quotation marks."""


_decode = json.JSONDecoder(
    object_pairs_hook=list, parse_int=_Number, parse_float=_Number, parse_constant=_Number
).decode


def claims(head: Head) -> bool:
    """Claims a file whose first line is a whole JSON object."""
    try:
        encoding = encodings.detect(head)
    except UnreadableFile:
        return False
    text = next(iter(Text(head, None, encoding)), "").lstrip()
    if not text.startswith("{"):
        return False
    line, end, _ = text.partition("\n")
    return bool(end or head.whole) and isinstance(_pairs(line), list)


def read(head: Head, stream: Source, profile: Profile | None = None) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile if no object of the sample identifies a device."""
    encoding = encodings.detect(head)
    plans = Plans(profile)
    known: dict[str, str | None] = {}
    notices: dict[tuple[str, str | None], Notice] = {}
    for plan in _sampled(head, encoding, plans):
        for name, field in plan.pairs:
            if known.get(name) is None:
                known[name] = field
        notices |= {(notice.code, notice.column): notice for notice in plan.columns.notices}
    if not columns.IDENTITY & set(known.values()):
        if known and set(known) <= _ORDER:
            raise UnreadableFile("file_is_json", "This is an order in JSON. Send it to the API as it is.")
        raise UnreadableFile(
            "columns_unknown",
            "No key of these JSON objects could be recognised as an identity of a device. "
            'Use keys such as "serial_number", "manufacturer", "model", "product_key" and "hardware_hash".',
        )
    plans.told.update(notices)
    dialect = Dialect(
        format="jsonl",
        kind=Kind.GENERIC,
        encoding=encoding.name,
        delimiter="",
        header_row=None,
        columns=tuple(known.items()),
        notices=(*encodings.notices(encoding), *notices.values()),
    )
    rows = _rows(Text(head, stream, encoding), plans)
    guess = encodings.guess_in_words(encoding)
    return dialect, (with_guess(row, guess) for row in rows) if guess else rows


class Plans:
    """How objects with the same keys are read. `told` has the notices already given."""

    def __init__(self, profile: Profile | None) -> None:
        self.told: set[tuple[str, str | None]] = set()
        self._profile = profile
        self._plans: dict[tuple[str, ...], Plan] = {}

    def of(self, keys: tuple[str, ...]) -> Plan:
        plan = self._plans.get(keys)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            resolved = profiles.resolve(keys, self._profile)
            plan = self._plans[keys] = Plan.of(resolved, self._profile)
        return plan

    def news(self, plan: Plan) -> tuple[Notice, ...]:
        """The notices about these columns that are new."""
        fresh = [n for n in plan.columns.notices if (n.code, n.column) not in self.told]
        if len(self.told) > MAX_PLANS * MAX_CELLS:
            return ()
        self.told.update((notice.code, notice.column) for notice in fresh)
        return tuple(fresh)


def _sampled(head: Head, encoding: Encoding, plans: Plans) -> Iterator[Plan]:
    sample = list(islice(lines(Text(head, None, encoding)), SAMPLE + 1))
    if len(sample) > SAMPLE or (not head.whole and len(sample) > 1):
        sample.pop()
    for line in sample:
        pairs = _pairs(line)
        if pairs is not None:
            yield plans.of(tuple(_clean(key)[0] for key, _ in pairs[:MAX_CELLS]))


def _rows(text: Text, plans: Plans) -> Iterator[Row]:
    number = 0
    plan: Plan | None = None
    for at, line in enumerate(lines(text), start=1):
        if not line or line.isspace():
            continue
        number += 1
        if number > MAX_ROWS:
            raise too_many_rows()
        flaws: list[Notice] = []
        if text.damaged:
            line, mixed, lost = text.mend(line)
            flaws += [text.mixed] * mixed + [LOST] * lost
        pairs = _pairs(line) if len(line) <= MAX_LINE else None
        if pairs is None:
            flaws.append(LINE_TOO_LONG if len(line) > MAX_LINE else _NOT_JSON)
            yield Row(number, at, (), tuple(flaws), NOTHING)
            continue
        keys, cells = _cells(pairs, flaws)
        before, plan = plan, plans.of(keys)
        if plan is not before and plan.columns.notices:
            flaws += plans.news(plan)
        for place, field in plan.known:
            if field == "serial_number" and isinstance(cells[place], _Number):
                flaws.append(serial_from_number(plan.names[place]))
            elif field in NEVER_BOOLEAN and isinstance(cells[place], _Boolean):
                flaws.append(value_is_boolean(plan.names[place]))
        yield plan.row(number, at, cells, tuple(flaws))


def _pairs(line: str) -> list[tuple[str, Any]] | None:
    """The object's members in order; None for anything else, including broken or deeply nested JSON."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        found: list[tuple[str, Any]] = _decode(line)
    except (ValueError, RecursionError):
        return None
    return found


def _cells(pairs: list[tuple[str, Any]], flaws: list[Notice]) -> tuple[tuple[str, ...], list[str]]:
    if len(pairs) > MAX_CELLS:
        pairs = pairs[:MAX_CELLS]
        flaws.append(TOO_MANY_CELLS)
    keys, cells = [], []
    lost = False
    for key, value in pairs:
        key, damaged = _clean(key)
        cell, nested = _text(value)
        if nested:
            words = f"The value of '{key[: columns.MAX_NAME]}' is a list or an object; it is not used."
            flaws.append(Notice("value_nested", words))
        if len(cell) > MAX_FIELD:
            words = f"The value of '{key[: columns.MAX_NAME]}' has more than {MAX_FIELD:,} characters."
            flaws.append(Notice("cell_too_long", words))
            cell = ""
        cell, broken = _clean(cell)
        lost = lost or damaged or broken
        keys.append(key)
        cells.append(cell)
    if lost and LOST not in flaws:
        flaws.append(LOST)
    if len(set(keys)) != len(keys):
        flaws.append(_REPEATED)
    return tuple(keys), cells


def _text(value: Any) -> tuple[str, bool]:
    """A value as a cell, and whether a cell cannot hold it."""
    if isinstance(value, str):
        return value, False
    if value is None:
        return "", False
    if isinstance(value, bool):
        return _Boolean("true" if value else "false"), False
    return "", True


def _clean(text: str) -> tuple[str, bool]:
    """Replaces characters that no database stores. Also returns whether there were any."""
    if text.isascii() and "\x00" not in text:
        return text, False
    clean = storable(text)
    return clean, clean != text


def serial_from_number(column: str | None) -> Notice:
    words = "The serial number is stored as a number: zeros in front of it are lost, if it had any."
    return Notice("serial_from_number", words, column)


def value_is_boolean(column: str | None) -> Notice:
    words = "The value is a logical one, TRUE or FALSE, and no text."
    return Notice("value_is_boolean", words, column)
