"""The commands for one machine: `registrar up` and `registrar demo`. The image does not have them."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.listening import is_registrar
from app.cli.surroundings import LOCAL_PANEL

app = typer.Typer()


@app.command("up", rich_help_panel=LOCAL_PANEL)
def run_all(
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="Run a simulator in place of Microsoft; nothing leaves this machine."),
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Databases, logs and secret key. Default: REGISTRAR_DATA_DIR or data; of a sandbox, "
            "`sandbox` in it.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="The API's port. Default: REGISTRAR_API_PORT or 8000."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Worker processes.")] = 1,
) -> int:
    """Run all of Registrar on this machine: databases, API, workers. Ctrl-C stops it."""
    from app.local import up

    return up.run(up.Chosen(sandbox, data_dir, port, workers), is_registrar)


@app.command("demo", rich_help_panel=LOCAL_PANEL)
def run_demonstration() -> int:
    """Register 2,500 made-up devices with a simulator of Microsoft. Nothing is kept."""
    from app.local import demo

    return demo.run()
