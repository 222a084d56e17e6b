"""What a person sees: aligned tables and plain words on a terminal, the same without colour elsewhere.

Everything that is shown passes through here, because values come from files and from other systems:
control characters are made visible, and nothing is taken as markup. With `--json`, words go to the
error stream and the one document to the output.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.outcome import Stop
from app.domain.catalogue import CATALOGUE
from app.domain.registration import RegistrationState

PIPE_WIDTH: Final = 200
"""Characters in a line when the output is no terminal: a table's row stays one line for `grep`."""
SHOWN_ROWS: Final = 25
"""Rows of a list of failures that are shown at once; the rest is counted."""

_S = RegistrationState
STATE_WORDS: Final[dict[RegistrationState, str]] = {
    _S.REGISTERED: "registered",
    _S.ALREADY_REGISTERED: "registered before",
    _S.PROCESSING: "being registered",
    _S.SUBMITTING: "being sent",
    _S.QUEUED: "waiting for their turn",
    _S.HELD: "waiting for consent",
    _S.CONFLICT: "owned by somebody else",
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
    "line_ref": "your line",
    "customer": "customer",
    "purchase_order": "purchase order",
}


_API_RETRY, _OUR_RETRY = "`:retry-failed`", "`registrar retry`"


class Screen:
    """`json`: the output is for a program."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.console = _console(stderr=json)

    def say(self, words: str = "", *, style: str = "") -> None:
        self.console.print(Text(plain(words), style=style), soft_wrap=True)

    def facts(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line."""
        grid = Table.grid(padding=(0, 3, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(Text(plain(name), style="bold"), Text(plain(value)))
        self._print(grid)

    def table(
        self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Sequence[str] = ()
    ) -> None:
        """Numbers are set to the right; columns named in `whole` are never broken over lines."""
        cells = [list(row) for row in rows]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for at, header in enumerate(headers):
            numbers = bool(cells) and all(isinstance(row[at], int) for row in cells)
            table.add_column(
                Text(header),
                justify="right" if numbers else "left",
                no_wrap=numbers or header in whole,
                overflow="fold",
            )
        for row in cells:
            table.add_row(*(Text(plain(_shown(cell))) for cell in row))
        self._print(table)

    def remedies(self, pairs: Iterable[tuple[str | None, str | None]]) -> None:
        """What to do about each code of a list, once, however many devices have it."""
        found = {code: remedy for code, remedy in pairs if code and remedy}
        if not found:
            return
        self.say()
        self.say("What to do", style="bold")
        for code, remedy in found.items():
            known = CATALOGUE.get(code)
            self.say(f"  {known.title if known else code}:")
            self.say(f"    {remedy.replace(_API_RETRY, _OUR_RETRY)}")

    def _print(self, table: Table) -> None:
        if self.console.is_terminal:
            self.console.print(table)
            return
        # rich fills every line with blanks up to the table's edge.
        with self.console.capture() as lines:
            self.console.print(table)
        for line in lines.get().splitlines():
            self.console.print(Text(line.rstrip()), soft_wrap=True)

    def document(self, value: Any) -> None:
        """One JSON document on the output; only with `--json`."""
        # The database driver has a UUID class of its own, which orjson does not know.
        text = orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
        Console(soft_wrap=True, no_color=True).print(Text(text), soft_wrap=True)

    def stop(self, stop: Stop) -> None:
        """Why the command ends early, on the error stream."""
        console = _console(stderr=True)
        console.print(Text(plain(stop.words), style="bold red"), soft_wrap=True)
        for line in stop.advice:
            console.print(Text(plain(line)), soft_wrap=True)
        if stop.errors:
            console.print()
            _errors(self, console, stop.errors)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PIPE_WIDTH
    return console


def _errors(screen: Screen, console: Console, errors: Sequence[Mapping[str, Any]]) -> None:
    screen.console, before = console, screen.console
    lines = any(error.get("line") for error in errors)
    rows = [
        (
            *((error.get("line") or "",) if lines else ()),
            error.get("row") or "",
            # The pointer to a whole device says no more than its row.
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
    screen.console = before


def plain(text: str) -> str:
    """One line of characters that a terminal shows and does not obey."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else " " if character in "\t\r\n" else "\ufffd"
        for character in text
    )


def field_words(field: str) -> str:
    """A field's name for a person; another program's names stay as they are."""
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
