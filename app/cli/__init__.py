"""The `registrar` command: what people do at a terminal, and how the service is started.

Commands that work with orders and customers go through the API like every other caller; only those
that make the installation itself (schema, partners, keys) touch the database. Each module holds the
commands of one concern; here they become one program, and every way it can end gets its exit code.
"""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from app.cli import customers, hashes, imports, operate, orders, partners, portal, status, submit, validate
from app.cli.installation import check_names
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen
from app.cli.surroundings import ORDERS_PANEL, Surroundings

__all__ = ["app", "main"]


class _Program(TyperGroup):
    """Ends with our exit codes: typer's own 2 for a wrong call would mean "partly done" here."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        sys.exit(self._outcome(*args, **{**extra, "standalone_mode": False}))

    def _outcome(self, *args: Any, **extra: Any) -> int:
        try:
            result = super().main(*args, **extra)
        except Stop as stop:
            Screen().stop(stop)
            return stop.code
        except typer.TyperException as error:
            Screen().stop(_wrong_call(error))
            return ExitCode.ERROR
        except typer.Abort:
            return ExitCode.INTERRUPTED
        return result if isinstance(result, int) else ExitCode.DONE


def _wrong_call(error: typer.TyperException) -> Stop:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "registrar"
    return Stop(error.format_message(), f"`{command} --help` shows how it is called.")


app = typer.Typer(
    name="registrar",
    cls=_Program,
    help="Registers Windows Autopilot devices on customers' behalf through Microsoft Partner Center.",
    epilog="Exit codes: 0 all registered, 1 error, 2 partly, 3 waiting for consent or for a person at a "
    "portal, 4 nothing valid, 5 not over: somebody has to act first, or --timeout has passed.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=False,
    invoke_without_command=True,
)
for module in (submit, imports, validate, hashes, orders, status, customers, operate, partners):
    app.add_typer(module.app)
app.add_typer(portal.app, name="portal", rich_help_panel=ORDERS_PANEL)


@app.callback()
def _without_command(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is not None:
        check_names()
    elif text := ctx.get_help():
        typer.echo(text)


def main(arguments: Sequence[str] | None = None, surroundings: Surroundings | None = None) -> NoReturn:
    """The console entry. Ends the process with the command's exit code."""
    app(args=arguments, prog_name="registrar", obj=surroundings or Surroundings())
    raise AssertionError("the program ends itself")
