"""The commands that run Registrar: the schema, the API, a worker.

A server replaces this process, so that it gets the supervisor's signals and gives the exit code. Only if it
needs embedded databases does it run as a child, while this process runs the databases.
"""

import shlex
import signal
import sys
import threading
import time
from typing import Annotated

import typer

from app.cli.installation import (
    keep_databases,
    load_settings,
    migrate_installation,
    needs_local,
    require_installation,
    serve_here,
)
from app.cli.listening import require_address
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen
from app.cli.surroundings import OPERATE_PANEL, surroundings
from app.kernel.settings import Settings

app = typer.Typer()


@app.command("migrate", rich_help_panel=OPERATE_PANEL)
def migrate() -> int:
    """Bring the database to the schema this version needs. Safe to repeat."""
    revision = migrate_installation()
    Screen().say(f"The database is up to date: schema {revision}.")
    return ExitCode.DONE


@app.command("databases", rich_help_panel=OPERATE_PANEL)
def run_databases(
    create: Annotated[
        bool, typer.Option("--create", help="Create empty databases if there are none: for a restore.")
    ] = False,
) -> int:
    """Run the embedded PostgreSQL and Valkey alone, for a backup or a restore; Ctrl-C ends it."""
    screen = Screen()
    with keep_databases(create=create) as (programs, database_url):
        screen.verbatim(f"export PATH={shlex.quote(str(programs))}:$PATH")
        screen.verbatim(f"export DATABASE_URL={shlex.quote(database_url)}")
        screen.say("Running. Paste these two lines into another terminal; Ctrl-C here when you are done.")
        _until_told_to_stop()
    return ExitCode.DONE


def _until_told_to_stop() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


@app.command("api", rich_help_panel=OPERATE_PANEL)
def run_api(ctx: typer.Context) -> int:
    """Run the API. REGISTRAR_API_HOST and REGISTRAR_API_PORT say where it listens."""
    settings = load_settings()
    require_installation(settings)  # the server's own exit code means something else here
    require_address(settings.api_host, settings.api_port)
    return _serve(ctx, settings, "app.serve")


@app.command("worker", rich_help_panel=OPERATE_PANEL)
def run_worker(
    ctx: typer.Context,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Run none: check whether this machine's worker is alive, for container health checks. "
            "Exit code 0 or 1.",
        ),
    ] = False,
) -> int:
    """Run a worker, which makes the calls to Microsoft. Any number may run."""
    settings = load_settings()
    if probe:
        return _probe_worker(settings)
    return _serve(ctx, settings, "workers.main")


def _serve(ctx: typer.Context, settings: Settings, module: str) -> int:
    command = [sys.executable, "-m", module]
    if needs_local(settings):
        return serve_here(settings, command)
    surroundings(ctx).execute(command)
    return ExitCode.DONE


def _probe_worker(settings: Settings) -> int:
    """Reads the age of the file that a worker touches. Asks neither the database nor Redis."""
    try:
        age = time.time() - settings.alive_file.stat().st_mtime
    except OSError:
        raise Stop(
            "No worker is alive here.", f"It would touch {settings.alive_file}; its log says why it does not."
        ) from None
    if age > settings.silence.total_seconds():
        raise Stop(
            f"The worker has had no heartbeat for {age:.0f} s.",
            "It hangs, or was killed: end it and start it again.",
        )
    Screen().say("The worker is alive.")
    return ExitCode.DONE
