"""docs/command-line.md: every command that it names exists, and every command is in it."""

import re
import shlex
from functools import cache
from typing import Any

import pytest
from typer.main import get_command

from app.cli import app
from app.cli.outcome import EXIT_CODES
from tests.architecture.source import ROOT

TEXT = (ROOT / "docs/command-line.md").read_text()
EXAMPLES = [
    *re.findall(r"`(registrar [^`]+)`", TEXT),
    *re.findall(r"^(registrar [^#\n]+)", TEXT, re.MULTILINE),
]


@cache
def commands() -> dict[tuple[str, ...], Any]:
    """The commands that are shown, by their names; groups are no commands."""
    found: dict[tuple[str, ...], Any] = {}
    groups: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while groups:
        names, group = groups.pop()
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                groups.append(((*names, name), command))
            elif not command.hidden:
                found[(*names, name)] = command
    return found


def options_of(command: Any) -> set[str]:
    return {"--help", *(name for parameter in command.params for name in parameter.opts)}


def named_in(example: str) -> tuple[tuple[str, ...], list[str]]:
    """The command's names, and the options given to it."""
    words = shlex.split(example)[1:]
    if words[0] == "--profile":
        words = words[2:]
    for length in (2, 1):
        if tuple(words[:length]) in commands():
            return tuple(words[:length]), [word for word in words[length:] if word.startswith("-")]
    return (), [word for word in words if word.startswith("-")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_command_and_option_that_is_named_exists(example: str) -> None:
    names, options = named_in(example)
    if not names:
        top = get_command(app)
        known = options_of(top)
        assert options == ["--help"] or (options and set(options) <= known), "no such command"
        return
    assert set(options) <= options_of(commands()[names])


def test_every_command_has_its_example() -> None:
    assert len(EXAMPLES) > 40
    assert {names for names in commands() if names not in {named_in(each)[0] for each in EXAMPLES}} == set()


def test_the_exit_codes_are_those_of_the_program() -> None:
    table = TEXT[TEXT.index("## Exit codes") : TEXT.index("## For programs")]
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE)
    assert {int(code): words for code, words in rows} == EXIT_CODES
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "docs/command-line.md#exit-codes" in readme
