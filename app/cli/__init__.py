"""The `registrar` command: what people do at a terminal, and how the service is started.

Commands for orders and customers call the API like any other caller. Only those that set up the installation
(schema, partners, keys) use the database. Each module holds the commands of one area; this one puts them
together and gives each way to end an exit code.
"""

import sys
from collections.abc import Iterator, Sequence
from copy import copy
from os.path import exists
from shutil import get_terminal_size
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from app import __version__
from app.cli import (
    api_keys,
    connections,
    customers,
    discard,
    export,
    hashes,
    imports,
    listing,
    local,
    networks,
    operate,
    orders,
    partners,
    portal,
    profiles,
    quotas,
    removal,
    secrets,
    status,
    submit,
    validate,
    webhooks,
)
from app.cli.installation import check_names, has_local
from app.cli.outcome import EXIT_CODES, ExitCode, Stop
from app.cli.screen import Screen
from app.cli.surroundings import (
    CUSTOMERS_PANEL,
    ORDERS_PANEL,
    PROFILES_PANEL,
    WEBHOOKS_PANEL,
    ProfileOption,
    Surroundings,
)
from app.domain.characters import unstorable
from app.domain.masking import visible

__all__ = ["app", "main"]


FRAMED: Final = 80
"""The narrowest terminal for help in frames: a narrower one would cut the names of options."""


class _Program(TyperGroup):
    """Uses our exit codes: typer ends with 2 after wrong usage, which here would mean "partly done".

    Every command that calls the API also takes `--profile` after its own name, unless it has another
    option of that name.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        (option,) = (found for found in self.params if found.name == "profile")
        for command in _below(self):
            names = {parameter.name for parameter in command.params}
            if "api_url" in names and "profile" not in names:
                after = copy(option)
                after.expose_value = False
                command.params.append(after)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        sys.exit(self._outcome(*args, **{**extra, "standalone_mode": False}))

    def _outcome(self, *args: Any, **extra: Any) -> int:
        if get_terminal_size().columns < FRAMED:
            for command in (self, *_below(self)):
                command.rich_markup_mode = None
        try:
            _require_text(extra.get("args"))
            result = super().main(*args, **extra)
        except Stop as stop:
            return _told(stop, extra.get("args"))
        except typer.TyperException as error:
            return _told(_wrong_call(error), extra.get("args"))
        except typer.Abort:
            return _told(Stop("Interrupted.", code=ExitCode.INTERRUPTED), extra.get("args"))
        return result if isinstance(result, int) else ExitCode.DONE


def _below(group: TyperGroup) -> Iterator[TyperGroup | TyperCommand]:
    """Yields the group's commands and those of its subgroups."""
    for command in group.commands.values():
        assert isinstance(command, TyperGroup | TyperCommand)
        yield command
        if isinstance(command, TyperGroup):
            yield from _below(command)


def _told(stop: Stop, arguments: Sequence[str] | None) -> int:
    """Prints why the command ended to stderr; with `--json`, also a document to stdout."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    Screen().stop(stop)
    if "--json" in options:
        Screen(json=True).document(stop.document())
    return stop.code


def _require_text(arguments: Sequence[str] | None) -> None:
    """Raises Stop for an argument that cannot be sent as text. A file's name may be any bytes."""
    for argument in sys.argv[1:] if arguments is None else arguments:
        if (said := unstorable(argument)) is not None and not exists(argument):
            words = f"The argument {visible(argument)!r} is not UTF-8. {said}"
            raise Stop(
                words, "Type it again in a terminal that is set to UTF-8.", error_code="command_misused"
            )


def _wrong_call(error: typer.TyperException) -> Stop:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "registrar"
    words = error.format_message()
    return Stop(words, f"`{command} --help` shows how to use it.", error_code="command_misused")


app = typer.Typer(
    name="registrar",
    cls=_Program,
    help="Registers Windows Autopilot devices on customers' behalf through Microsoft Partner Center.",
    # Each line is its own paragraph, or typer would join them.
    epilog="\n\n".join(["Exit codes:", *(f"{code:>4}  {words}" for code, words in EXIT_CODES.items())]),
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    no_args_is_help=False,
    invoke_without_command=True,
)
for module in (submit, imports, discard, validate, hashes, listing, orders, export, status, customers):
    app.add_typer(module.app)
partners.partner_app.add_typer(quotas.app)
partners.partner_app.add_typer(networks.app)
app.add_typer(portal.app, name="portal", rich_help_panel=ORDERS_PANEL)
app.add_typer(connections.app, name="connection", rich_help_panel=CUSTOMERS_PANEL)
app.add_typer(webhooks.app, name="webhook", rich_help_panel=WEBHOOKS_PANEL)
app.add_typer(profiles.app, name="profile", rich_help_panel=PROFILES_PANEL)
for module in (operate, partners, api_keys, secrets):
    app.add_typer(module.app)
if has_local():
    app.add_typer(local.app)


partners.partner_app.command("remove")(removal.remove_partner)
connections.app.command("remove", rich_help_panel=CUSTOMERS_PANEL)(removal.remove_connection)
customers.customer_app.command("remove", rich_help_panel=CUSTOMERS_PANEL)(removal.remove_customer)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"registrar {__version__}")
        raise typer.Exit


@app.callback()
def _without_command(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
    profile: ProfileOption = None,
) -> None:
    if ctx.invoked_subcommand is not None:
        check_names()
    elif text := ctx.get_help():
        typer.echo(text)


def main(arguments: Sequence[str] | None = None, surroundings: Surroundings | None = None) -> NoReturn:
    """The console entry point. Ends the process with the command's exit code."""
    app(args=arguments, prog_name="registrar", obj=surroundings or Surroundings())
    raise AssertionError("the program ends itself")
