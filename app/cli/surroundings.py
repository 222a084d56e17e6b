"""The context of a command: HTTP transport, clock, process, and the options that commands share.

Commands get it from typer's context, so that tests can run the same commands on another transport.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from app.cli import profile_store
from app.cli.api_client import Api, Transport, base_of
from app.cli.asking import ask_person, is_terminal
from app.cli.profile_store import Profile


def replace_process(arguments: Sequence[str]) -> None:
    """Becomes the server, which then gets the signals and gives the exit code."""
    os.execvp(arguments[0], list(arguments))  # noqa: S606 - a fixed program with our own arguments


@dataclass(frozen=True, slots=True)
class Given:
    """The installation that a command calls, and what names it."""

    url: str = "DEFAULT"
    """The source of --api-url: COMMANDLINE, ENVIRONMENT or DEFAULT."""
    key: str = "DEFAULT"
    """The source of --api-key."""
    profile: str | None = None
    """--profile."""

    def choose(self, url: str, key: str | None) -> tuple[str, str | None]:
        """The address and the key: of options first, then of the environment, then of the profile.

        `--profile` counts as an option. Without it, the profile is REGISTRAR_PROFILE or the default. A
        profile's key goes to its own address only.
        """
        if self.url == self.key == "COMMANDLINE":
            return url, key
        outranked = {"COMMANDLINE"} if self.profile else {"COMMANDLINE", "ENVIRONMENT"}
        if {self.url, self.key} <= outranked:
            return url, key
        profile = _profile(self.profile)
        if profile is None:
            return url, key
        chosen = url if self.url in outranked else profile.url
        if self.key in outranked or base_of(chosen) != base_of(profile.url):
            return chosen, key
        return chosen, profile.key


def _profile(named: str | None) -> Profile | None:
    known = profile_store.load()
    name = named or os.environ.get("REGISTRAR_PROFILE") or known.used
    return None if name is None else known.named(name)


@dataclass(frozen=True, slots=True)
class Surroundings:
    transport: Transport | None = None
    sleep: Callable[[float], None] = time.sleep
    execute: Callable[[Sequence[str]], None] = replace_process
    ask: Callable[[str], bool] | None = None
    """Asks for yes or no. None: ask at the terminal, if there is one."""
    given: Given = Given()

    def api(self, url: str, key: str | None) -> Api:
        chosen_url, chosen_key = self.given.choose(url, key)
        return Api(chosen_url, chosen_key, transport=self.transport, sleep=self.sleep)

    def someone_to_ask(self) -> Callable[[str], bool] | None:
        """None if input or output is a pipe, where nobody could answer."""
        return self.ask or (ask_person if is_terminal() else None)


def surroundings(ctx: typer.Context) -> Surroundings:
    found = ctx.find_object(Surroundings) or Surroundings()
    given = Given(_source(ctx, "api_url"), _source(ctx, "api_key"), ctx.meta.get(PROFILE))
    return replace(found, given=given)


def _source(ctx: typer.Context, option: str) -> str:
    source = ctx.get_parameter_source(option)
    return "DEFAULT" if source is None else source.name


PROFILE: Final = "registrar.profile"
"""Where the context keeps what `--profile` named."""


def keep_profile(ctx: typer.Context, name: str | None) -> str | None:
    if name is not None:
        ctx.meta[PROFILE] = name
    return name


ORDERS_PANEL = "Orders and devices"
CUSTOMERS_PANEL = "Customers and connections"
WEBHOOKS_PANEL = "Webhooks"
PROFILES_PANEL = "Installations"
OPERATE_PANEL = "Running Registrar (needs its database settings)"
LOCAL_PANEL = "Registrar on this machine"

ApiUrl = Annotated[
    str,
    typer.Option(
        "--api-url", envvar="REGISTRAR_API_URL", help="The address of the API, with or without /v1."
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="REGISTRAR_API_KEY",
        show_default=False,
        help="Better set as REGISTRAR_API_KEY: other users of the machine can see arguments.",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        callback=keep_profile,
        help="The installation to call, a name of `registrar profile list`; also REGISTRAR_PROFILE.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Ids = Annotated[bool, typer.Option("--ids", help="Show ids even if they make the table too wide.")]
SheetName = Annotated[
    str | None,
    typer.Option("--sheet", help="The sheet of a workbook to read. Default: the first with devices."),
]
IncludeHidden = Annotated[
    bool | None,
    typer.Option(
        "--include-hidden/--skip-hidden",
        show_default=False,
        help="Also read hidden rows and columns of a workbook, or leave them out without a note.",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8000"
