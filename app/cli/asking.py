"""Questions before an action: asked only at a terminal, never of a pipe."""

import sys
from typing import Annotated

import typer

from app.cli.outcome import Stop

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def is_terminal() -> bool:
    """Whether input and output are a terminal, so that somebody can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_person(question: str) -> bool:
    return typer.confirm(question, err=True)


def asks(*, yes: bool) -> bool:
    return not yes and is_terminal()


def require_yes(question: str, *, yes: bool) -> None:
    """Like `confirm`, but requires `--yes` without a terminal."""
    if yes or is_terminal():
        return confirm(question, yes=yes)
    raise Stop(f"Nothing was changed. {question}", "Confirm with --yes.", error_code="not_confirmed")


def confirm(question: str, *, yes: bool) -> None:
    """Returns after `y`, with `--yes`, or without a terminal. Raises Stop after any other answer."""
    if asks(yes=yes) and not ask_person(question):
        raise Stop("Nothing was changed.", error_code="not_confirmed")
