"""Warnings about a file before its devices are sent: the same words for every command.

Unused columns, guessed values and columns, and rows that are left out.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from app.cli.screen import Screen, amount
from app.intake.table import GUESSES, OMISSIONS

NAMED: Final = 12
"""The most columns that are named. The others are counted."""

Noted = tuple[str, str]
"""The code of a notice and its words."""


def doubts(
    *,
    unused: Sequence[str] = (),
    notices: Iterable[Noted] = (),
    remarks: Iterable[tuple[str, str, int]] = (),
    unreadable: int = 0,
    invalid: int = 0,
) -> list[str]:
    """`remarks` are notices about rows: code, words and number of rows."""
    return [
        *_columns(unused),
        *(words for code, words in notices if code in GUESSES | OMISSIONS),
        *(f"{amount(count, 'row')}: {words}" for code, words, count in remarks if code in GUESSES),
        *_left_out(unreadable, "row", "not readable"),
        *_left_out(invalid, "device", "invalid"),
    ]


def is_doubt(code: str) -> bool:
    """Whether `doubts` includes notices of this code."""
    return code in GUESSES | OMISSIONS


def show_doubts(screen: Screen, found: Sequence[str], heading: str) -> None:
    if not found:
        return
    screen.say()
    screen.say(heading, style="bold")
    for words in found:
        screen.say(f"  {words}")


def _columns(unused: Sequence[str]) -> Iterator[str]:
    if unused:
        named = ", ".join(f"'{name}'" for name in unused[:NAMED])
        more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
        yield f"{amount(len(unused), 'column')} not used: {named}{more}."


def _left_out(count: int, what: str, why: str) -> Iterator[str]:
    if count:
        yield f"{amount(count, what)} left out: {why}."
