"""Questions before something is done: only to a person at a terminal, never to a pipe."""

import sys
from typing import Annotated

import typer

from app.cli.outcome import Stop

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def is_terminal() -> bool:
    """Whether somebody can see and answer a question."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_person(question: str) -> bool:
    return typer.confirm(question, err=True)


def asks(*, yes: bool) -> bool:
    return not yes and is_terminal()


def require_yes(question: str, *, yes: bool) -> None:
    """As `confirm`, but needs `--yes` if nobody can be asked."""
    if yes or is_terminal():
        return confirm(question, yes=yes)
    raise Stop(f"Nothing was changed. {question}", "Confirm with --yes.", error_code="not_confirmed")


def confirm(question: str, *, yes: bool) -> None:
    """Returns after `y`, with `--yes`, or if nobody can be asked. Raises Stop after any other answer."""
    if asks(yes=yes) and not ask_person(question):
        raise Stop("Nothing was changed.", error_code="not_confirmed")
