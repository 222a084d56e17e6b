"""`make up`: the whole service on this machine, for a person.

Runs a `Stack`, tells where everything is, makes the first partner and API key, and stops all of it at
Ctrl-C. The sandbox has a data directory of its own: made-up orders must never meet real credentials, nor
real orders the simulator.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from sqlalchemy.exc import SQLAlchemyError

from app.cli.listening import is_registrar
from app.db.walls import WallsDown
from app.domain.actor import OPERATOR, ActingFor
from app.domain.ids import PartnerId
from app.embedded import EmbeddedUnavailable
from app.environment import SettingsRefused
from app.runtime import Runtime
from app.secrets import SecretError
from app.services import identities
from app.settings import Settings, load
from deploy.processes import StackFailed
from deploy.sandbox import SCENE_FILE, Scene, first_order, renew_credentials
from deploy.stack import HOST, Stack, already_runs, free_port, is_free, stack_in

__all__ = ["Stack", "StackFailed", "main"]

SIMULATOR_PORT = 8090
PARTNER_NAME = "My organisation"
KEY_NAME = "first key"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 after Ctrl-C, 1 when it could not start, 2 for a wrong command line."""
    chosen = _parse(arguments)
    hurry = threading.Event()
    _stop_on_signals(hurry)
    try:
        _run(chosen, hurry)
    except KeyboardInterrupt:
        _print("Stopped.")
    except SettingsRefused as refused:
        return _fail(str(refused))
    except (StackFailed, EmbeddedUnavailable, SecretError, WallsDown) as error:
        return _fail(str(error))
    except SQLAlchemyError as error:
        return _fail(f"The database does not answer as it should: {error}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local", description="Run Registrar on this machine. Ctrl-C stops it."
    )
    parser.add_argument(
        "--sandbox", action="store_true", help="with a simulator in place of Microsoft; nothing leaves here"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="databases, logs and secret key (default: data, data/sandbox)"
    )
    parser.add_argument("--port", type=int, help="port of the API (default: REGISTRAR_API_PORT or 8000)")
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
    chosen = parser.parse_args(arguments)
    if chosen.workers < 1:
        parser.error("--workers: at least one is needed")
    if chosen.port is not None and not 1 <= chosen.port <= 65535:
        parser.error("--port: a number from 1 to 65535")
    return chosen


def _run(chosen: argparse.Namespace, hurry: threading.Event) -> None:
    settings = load()
    usual = settings.data_dir
    if chosen.sandbox and not (usual / SCENE_FILE).exists():  # it may name the sandbox itself
        usual = usual / "sandbox"
    data_dir: Path = (chosen.data_dir or usual).absolute()
    _refuse_mixing(data_dir, sandbox=chosen.sandbox)
    port: int = chosen.port or settings.api_port
    if not is_free(port):
        _refuse_port(data_dir, port, sandbox=chosen.sandbox)
    scene = Scene.of(data_dir) if chosen.sandbox else None
    _print("Starting Registrar ...")
    stack = Stack.start(
        data_dir,
        sandbox=chosen.sandbox,
        workers=chosen.workers,
        port=port,
        simulator_port=SIMULATOR_PORT if is_free(SIMULATOR_PORT) else free_port(),
        environment={"REGISTRAR_LOG_FORMAT": os.environ.get("REGISTRAR_LOG_FORMAT", "text")},
        say=_print,
        on_simulator=partial(_set_the_scene, scene) if scene else None,
        hurry=hurry,
    )
    with stack:
        key = asyncio.run(_first_key(stack.settings))
        _print(_welcome(stack, key, scene))
        threading.Event().wait()  # until a signal


def _refuse_port(data_dir: Path, port: int, *, sandbox: bool) -> NoReturn:
    if (holder := stack_in(data_dir)) is not None:
        raise StackFailed(already_runs(data_dir, holder))
    whose = (
        "another Registrar, with another data directory" if is_registrar(HOST, port) else "another program"
    )
    raise StackFailed(
        f"Port {port} is taken by {whose}. Choose another port:\n"
        f"  REGISTRAR_API_PORT={port + 1} make up{' SANDBOX=1' if sandbox else ''}"
    )


def _refuse_mixing(data_dir: Path, *, sandbox: bool) -> None:
    has_scene, is_used = (data_dir / SCENE_FILE).exists(), (data_dir / "postgres").exists()
    if has_scene and not sandbox:
        raise StackFailed(
            f"{data_dir} is a sandbox: its orders must not reach Microsoft. Say SANDBOX=1 (--sandbox), or "
            "choose another directory with REGISTRAR_DATA_DIR (--data-dir)."
        )
    if sandbox and is_used and not has_scene:
        raise StackFailed(
            f"{data_dir} is no sandbox: its credentials must not reach the simulator. Choose another "
            "directory with REGISTRAR_DATA_DIR (--data-dir)."
        )


def _set_the_scene(scene: Scene, stack: Stack) -> None:
    assert stack.simulator_url is not None
    scene.tell(stack.simulator_url)
    asyncio.run(renew_credentials(stack.settings, scene))


async def _first_key(settings: Settings) -> str | None:
    """A new API key, of a new partner if need be; None when there is a key already."""
    runtime = await Runtime.open(settings, process="local")
    try:
        partners = await identities.list_partners(runtime)
        for partner in partners:
            if await identities.list_keys(runtime, ActingFor(PartnerId(partner.id), OPERATOR)):
                return None
        if partners:
            partner_id = PartnerId(partners[0].id)
        else:
            role = identities.PartnerRole.DIRECT_BILL
            partner_id = await identities.create_partner(runtime, PARTNER_NAME, role)
        return (await identities.create_key(runtime, ActingFor(partner_id, OPERATOR), name=KEY_NAME)).secret
    finally:
        await runtime.close()


def _welcome(stack: Stack, key: str | None, scene: Scene | None) -> str:
    rows = [
        ("API", f"{stack.api_url}/v1"),
        ("Documentation", f"{stack.api_url}/docs"),
        ("Readiness", f"{stack.api_url}/readyz?all"),
    ]
    if stack.simulator_url is not None:
        rows.append(("Simulator", f"{stack.simulator_url}  (in place of Microsoft; see simulator/README.md)"))
    rows += [("Data", _shown(stack.data_dir)), ("Logs", _shown(stack.logs))]
    rows.append(
        ("More keys", f"{_command(stack)} api-key create --partner NAME --name NAME --scope operator")
    )
    parts = ["\nRegistrar is running. Ctrl-C stops it.\n", *_aligned(rows), *_exports(stack, key)]
    if scene is not None:
        rows = [
            ("Partner", f"{scene.partner_tenant}  (credentials: {_shown(stack.data_dir / SCENE_FILE)})"),
            ("Customer", f"{scene.consented_tenant}  has consented"),
            ("Customer", f"{scene.unconsented_tenant}  has not: its orders are held"),
        ]
        parts += ["\nAt the simulator:\n", *_aligned(rows)]
        if key is not None:
            parts += ["\nYour first order, ready to paste into another terminal:\n"]
            parts += [first_order(stack.api_url, key, scene)]
    return "\n".join(parts) + "\n"


def _exports(stack: Stack, key: str | None) -> list[str]:
    """What `registrar` commands in another terminal need, ready to paste."""
    if key is None:
        words = "\nFor commands in another terminal (with the API key that you were shown at first):\n"
        return [words, f"export REGISTRAR_API_URL={stack.api_url}", "# export REGISTRAR_API_KEY=rgstr_..."]
    words = "\nFor commands in another terminal, ready to paste; the API key is shown this once:\n"
    return [words, f"export REGISTRAR_API_URL={stack.api_url}", f"export REGISTRAR_API_KEY={key}"]


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<15}{value}" for name, value in rows]


def _shown(path: Path) -> str:
    """Short where that is possible."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _command(stack: Stack) -> str:
    """How `registrar` is called against this stack from another terminal here."""
    program = Path(sys.executable).with_name("registrar")
    command = shlex.quote(_shown(program)) if program.exists() else "python -m app.cli"
    if stack.data_dir == Settings.model_fields["data_dir"].default.absolute():
        return command
    return f"REGISTRAR_DATA_DIR={shlex.quote(_shown(stack.data_dir))} {command}"


def _stop_on_signals(hurry: threading.Event) -> None:
    """The first signal stops in good order, wherever the program is; a second one stops waiting."""
    told = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            hurry.set()
            return
        told = True
        _print("\nStopping; workers finish their step. Ctrl-C again does not wait for them.")
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup asks to go on
            signal.signal(number, stop)


def _print(text: str) -> None:
    print(text, flush=True)


def _fail(text: str) -> int:
    print(text, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
