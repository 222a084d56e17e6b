"""Output for people: aligned tables and plain words on a terminal, the same without colour elsewhere.

On a terminal, lines break between words: see `app.cli.layout`. A pipe gets each row of a table on one line,
with every column.

Everything that is shown passes through here, because values come from files and from other systems: control
characters are made visible, and nothing is interpreted as markup. With `--json`, words go to stderr and the
single document to stdout.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from rich.console import Console
from rich.text import Text

from app.cli import layout
from app.cli.outcome import Stop
from app.domain.catalogue import CATALOGUE
from app.domain.characters import escaped
from app.domain.registration import RegistrationState

ENDLESS: Final = 1_000_000
"""Characters in a line if the output is not a terminal: each row stays on one line for `grep`."""
NO_SIZE: Final = 80
"""Characters in a line of a terminal of unknown size."""
SHOWN_ROWS: Final = 25
"""The most rows of a list of failures. The others are counted."""

_S = RegistrationState
STATE_WORDS: Final[dict[RegistrationState, str]] = {
    _S.REGISTERED: "registered",
    _S.ALREADY_REGISTERED: "registered before",
    _S.PROCESSING: "being registered",
    _S.SUBMITTING: "being sent",
    _S.QUEUED: "waiting to be sent",
    _S.HELD: "waiting for consent",
    _S.CONFLICT: "owned by another organisation",
    _S.FAILED: "failed",
    _S.UNKNOWN: "outcome unknown",
    _S.INVALID: "invalid",
    _S.CANCELLED: "cancelled",
}
"""In the order in which they are shown."""

ORDER_WORDS: Final[dict[str, str]] = {
    "held": "waiting for consent",
    "in_progress": "in progress",
    "completed": "completed, every device is registered",
    "completed_with_errors": "completed, but not every device is registered",
    "failed": "failed, no device is registered",
    "cancelled": "cancelled",
}


FIELD_WORDS: Final[Mapping[str, str]] = {
    "serial_number": "serial number",
    "product_key": "PKID",
    "hardware_hash": "hardware hash",
    "manufacturer": "manufacturer",
    "model": "model",
    "group_tag": "group tag",
    "assigned_user": "assigned user",
    "line_ref": "line reference",
    "customer": "customer",
    "purchase_order": "purchase order",
}


_OUR_WORDS: Final = {
    "`:retry-failed`": "`registrar retry`",
    "`:cancel`": "`registrar cancel`",
    "`POST /v1/customers/{id}/consent:request` answers with": "`registrar consent CUSTOMER --link` prints",
}
"""Phrases of remedies, which are written for callers of the API, and what to say at a terminal."""


class Screen:
    """`json`: print one document for programs. `ids`: show ids even if they make a table too wide."""

    def __init__(self, *, json: bool = False, ids: bool = False) -> None:
        self.json = json
        self.ids = ids
        self.console = _console(stderr=json)

    @property
    def width(self) -> int | None:
        """Characters in a line; None for a pipe, which gets every row on one line."""
        return None if self.console.width >= ENDLESS else self.console.width

    def verbatim(self, line: str) -> None:
        """Prints a line to paste, which is never broken."""
        self.console.print(Text(plain(line)), soft_wrap=True)

    def say(self, words: str = "", *, style: str = "") -> None:
        for line in layout.wrap(plain(words), self.width):
            self._line(Text(line, style=style))

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Prints names and values, one pair a line."""
        shown = [(plain(name), plain(value)) for name, value in pairs]
        for name, value in layout.facts(shown, self.width):
            self._line(Text.assemble((name, "bold"), value))

    def table(
        self,
        headers: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        whole: Sequence[str] = (),
        ids: Sequence[str] = (),
    ) -> None:
        """Numbers are aligned right. A long text wraps between words, but never in the columns of `whole`.

        A narrow terminal drops the columns of `ids`, unless `--ids` was given. If that is still too wide,
        rows are stacked, one value a line.
        """
        cells = [list(row) for row in rows]
        texts = [[plain(_shown(cell)) for cell in row] for row in cells]
        columns = [
            layout.Column(
                header,
                [row[at] for row in texts],
                numbers=bool(cells) and all(isinstance(row[at], int) for row in cells),
                whole=header in whole,
                id=header in ids,
            )
            for at, header in enumerate(headers)
        ]
        drop_ids = self.console.is_terminal and not self.ids
        shown, fits = layout.fitting(columns, self.width, drop_ids=drop_ids)
        if fits:
            self._beside(shown, len(texts))
        else:
            self._stacked(shown, len(texts))
        if any(column.id and column not in shown for column in columns):
            self.say("(--ids shows the ids, too.)", style="dim")

    def _beside(self, columns: Sequence[layout.Column], rows: int) -> None:
        rooms = layout.widths(columns, self.width)
        for line in layout.row_lines([column.header for column in columns], columns, rooms):
            self._line(Text(line, style="bold"))
        for at in range(rows):
            for line in layout.row_lines([column.cells[at] for column in columns], columns, rooms):
                self._line(Text(line))

    def _stacked(self, columns: Sequence[layout.Column], rows: int) -> None:
        """Prints names and values; an empty value has no line."""
        for at in range(rows):
            if at:
                self.say()
            self.facts((column.header, column.cells[at]) for column in columns if column.cells[at])

    def _line(self, line: Text) -> None:
        line.rstrip()
        self.console.print(line, soft_wrap=True)

    def remedies(self, pairs: Iterable[tuple[str | None, str | None]]) -> None:
        """Prints what to do about each code, once however many devices have it."""
        found = {code: remedy for code, remedy in pairs if code and remedy}
        if not found:
            return
        self.say()
        self.say("What to do", style="bold")
        for code, remedy in found.items():
            known = CATALOGUE.get(code)
            self.say(f"  {known.title if known else code}:")
            self.say(f"    {for_a_terminal(remedy)}")

    def document(self, value: Any) -> None:
        """Prints one JSON document to stdout, only with `--json`."""
        # The database driver has its own UUID class, which orjson does not know.
        text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
        # A terminal obeys some characters. Escaped, they mean the same to a program.
        Console(soft_wrap=True, no_color=True).print(Text(escaped(text, keep="\n")), soft_wrap=True)

    def stop(self, stop: Stop) -> None:
        """Prints to stderr why the command ends early."""
        told = Screen()
        told.console = _console(stderr=True)
        told.say(stop.words, style="bold red")
        for line in stop.advice:
            told.say(line)
        if stop.errors:
            told.say()
            _errors(told, stop.errors)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns):
        console.width = int(columns)
    elif not console.is_terminal:
        console.width = ENDLESS
    else:
        console.width = _terminal_width(console) or NO_SIZE
    return console


def _terminal_width(console: Console) -> int:
    """The width of the terminal behind this stream; the others may go elsewhere."""
    try:
        return os.get_terminal_size(console.file.fileno()).columns
    except (OSError, ValueError):
        return 0


def _errors(screen: Screen, errors: Sequence[Mapping[str, Any]]) -> None:
    lines = any(error.get("line") for error in errors)
    rows = [
        (
            *((error.get("line") or "",) if lines else ()),
            error.get("row") or "",
            # A pointer to a whole device says no more than its row.
            field_words(error.get("field") or ("" if error.get("row") else error.get("pointer") or "")),
            error.get("detail"),
        )
        for error in errors[:SHOWN_ROWS]
    ]
    headers = ("Row", "Field", "What is wrong")
    screen.table(("Line", *headers) if lines else headers, rows)
    if len(errors) > SHOWN_ROWS:
        screen.say(f"... and {number(len(errors) - SHOWN_ROWS)} more.")
    screen.remedies((error.get("code"), error.get("remedy")) for error in errors[:SHOWN_ROWS])


def for_a_terminal(remedy: str) -> str:
    for theirs, ours in _OUR_WORDS.items():
        remedy = remedy.replace(theirs, ours)
    return remedy


JOINERS: Final = "\u200c\u200d"
"""Joiners, which Persian, Indic scripts and emoji need. Terminals ignore them."""


def plain(text: str) -> str:
    """One line without characters that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if character in "\t\r\n" else "\ufffd"


def field_words(field: str) -> str:
    """A field's name in words. Unknown names stay as they are."""
    return FIELD_WORDS.get(field, field)


def _shown(cell: object) -> str:
    return number(cell) if isinstance(cell, int) else "" if cell is None else str(cell)


def number(value: int) -> str:
    return f"{value:,}"


def amount(count: int, one: str, many: str | None = None) -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def moment(text: str | None) -> str:
    """A time of the API, to the minute."""
    if not text:
        return "never"
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")


def count_words(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The states that have devices, in words."""
    return [(words, counts[state]) for state, words in STATE_WORDS.items() if counts.get(state)]
