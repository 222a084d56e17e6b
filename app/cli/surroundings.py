"""What a command takes from outside: the wire, the clock, the process, and its common options.

Commands get it from the context, so that tests run the very same commands on another wire. The
options that several commands share are spelled here, once.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from app.cli.api_client import Api, Transport


def replace_process(arguments: Sequence[str]) -> None:
    """Signals, exit code and memory are then the server's own: nothing stands in between."""
    os.execvp(arguments[0], list(arguments))  # noqa: S606 - a fixed program with our own arguments


def ask_person(question: str) -> bool:
    return typer.confirm(question, err=True)


@dataclass(frozen=True, slots=True)
class Surroundings:
    transport: Transport | None = None
    sleep: Callable[[float], None] = time.sleep
    execute: Callable[[Sequence[str]], None] = replace_process
    ask: Callable[[str], bool] | None = None
    """Asks a person for yes or no. None: whoever sits at the terminal, if there is one."""

    def api(self, url: str, key: str | None) -> Api:
        return Api(url, key, transport=self.transport, sleep=self.sleep)

    def someone_to_ask(self) -> Callable[[str], bool] | None:
        """None when input or output is a pipe: then nobody sees a question, or can answer it."""
        at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        return self.ask or (ask_person if at_terminal else None)


def surroundings(ctx: typer.Context) -> Surroundings:
    found = ctx.find_object(Surroundings)
    return found if found is not None else Surroundings()


ORDERS_PANEL = "Orders and devices"
CUSTOMERS_PANEL = "Customers"
OPERATE_PANEL = "Running Registrar (needs its database settings)"

ApiUrl = Annotated[str, typer.Option("--api-url", envvar="REGISTRAR_API_URL", help="Where the API listens.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="REGISTRAR_API_KEY",
        show_default=False,
        help="Better set as REGISTRAR_API_KEY: other users of the machine can see arguments.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Ids = Annotated[bool, typer.Option("--ids", help="Show ids also where they make the table too wide.")]
SheetName = Annotated[
    str | None,
    typer.Option("--sheet", help="The sheet of a workbook to read. Default: the first with devices."),
]
IncludeHidden = Annotated[
    bool | None,
    typer.Option(
        "--include-hidden/--skip-hidden",
        show_default=False,
        help="Read hidden rows and columns of a workbook, too, or leave them out without a word.",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8000"
