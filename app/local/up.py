"""`registrar up` (`make up`): runs all of Registrar on this machine.

It starts a `Stack`, makes the first partner and API key, prints where everything is, and stops all of it at
Ctrl-C. A sandbox has a data directory of its own: made-up orders must never meet real credentials, nor real
orders the simulator.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from app.db.engine import OUTAGES
from app.db.walls import WallsDown
from app.domain.actor import OPERATOR, ActingFor
from app.kernel.environment import SettingsRefused
from app.kernel.secrets import SecretError
from app.kernel.settings import Settings, load
from app.local.embedded import EmbeddedUnavailable, Postgres
from app.local.processes import StackFailed
from app.local.sandbox import SCENE_FILE, Scene, first_order, renew_credentials
from app.local.stack import HOST, Stack, already_runs, free_port, is_free, stack_in
from app.runtime import NoInstallation, Runtime
from app.services.access import identities

SIMULATOR_PORT = 8090
PARTNER_NAME = "My organisation"
KEY_NAME = "first key"


@dataclass(frozen=True)
class Chosen:
    """Options of the command line. None: use the setting."""

    sandbox: bool
    data_dir: Path | None
    port: int | None
    workers: int


Result = TypeVar("Result")
IsRegistrar = Callable[[str, int], bool]
"""Whether a Registrar listens at this host and port."""


def run(chosen: Chosen, is_registrar: IsRegistrar) -> int:
    """Runs until a signal. Returns the exit code: 0 after Ctrl-C, 1 when it could not start."""
    hurry = threading.Event()
    _stop_on_signals(hurry)
    try:
        _run(chosen, is_registrar, hurry)
    except KeyboardInterrupt:
        _print("Stopped.")
    except (SettingsRefused, StackFailed, EmbeddedUnavailable, NoInstallation, SecretError, WallsDown) as no:
        print(no, file=sys.stderr, flush=True)
        return 1
    return 0


def _run(chosen: Chosen, is_registrar: IsRegistrar, hurry: threading.Event) -> None:
    settings = load()
    usual = settings.data_dir
    if chosen.sandbox and not (usual / SCENE_FILE).exists():  # it may be the sandbox itself
        usual = usual / "sandbox"
    data_dir = (chosen.data_dir or usual).absolute()
    _refuse_mixing(data_dir, sandbox=chosen.sandbox)
    port = chosen.port or settings.api_port
    if not is_free(port):
        raise StackFailed(_why_taken(data_dir, port, is_registrar, sandbox=chosen.sandbox))
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
        key = _in_the_database(_first_key(stack.settings))
        _print(_welcome(stack, key, scene))
        threading.Event().wait()  # until a signal


def _why_taken(data_dir: Path, port: int, is_registrar: IsRegistrar, *, sandbox: bool) -> str:
    if (holder := stack_in(data_dir)) is not None:
        return already_runs(data_dir, holder)
    whose = (
        "another Registrar, with another data directory" if is_registrar(HOST, port) else "another program"
    )
    return (
        f"Port {port} is taken by {whose}. Choose another port:\n"
        f"  REGISTRAR_API_PORT={port + 1} make up{' SANDBOX=1' if sandbox else ''}"
    )


def _refuse_mixing(data_dir: Path, *, sandbox: bool) -> None:
    has_scene, is_used = (data_dir / SCENE_FILE).exists(), Postgres.is_made(data_dir)
    if has_scene and not sandbox:
        raise StackFailed(
            f"{data_dir} is a sandbox: its orders must not reach Microsoft. Say SANDBOX=1 (--sandbox), or "
            "choose another directory with REGISTRAR_DATA_DIR (--data-dir)."
        )
    if sandbox and is_used and not has_scene:
        raise StackFailed(
            f"{data_dir} is not a sandbox: its credentials must not reach the simulator. Choose another "
            "directory with REGISTRAR_DATA_DIR (--data-dir)."
        )


def _set_the_scene(scene: Scene, stack: Stack) -> None:
    assert stack.simulator_url is not None
    scene.tell(stack.simulator_url)
    _in_the_database(renew_credentials(stack.settings, scene))


def _in_the_database(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        return asyncio.run(work)
    except OUTAGES as error:
        raise StackFailed(f"The database does not answer as it should: {error}") from error


async def _first_key(settings: Settings) -> str | None:
    """A new API key, for a new partner if there is none yet. None when there is a key already."""
    runtime = await Runtime.open(settings, process="local")
    try:
        partners = await identities.list_partners(runtime)
        for partner in partners:
            if await identities.list_keys(runtime, ActingFor(partner.id, OPERATOR)):
                return None
        if partners:
            partner_id = partners[0].id
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
    """Shell lines that `registrar` commands in another terminal need."""
    if key is None:
        words = "\nFor commands in another terminal (with the API key that you were shown at first):\n"
        return [words, f"export REGISTRAR_API_URL={stack.api_url}", "# export REGISTRAR_API_KEY=rgstr_..."]
    words = "\nFor commands in another terminal, ready to paste; the API key is shown this once:\n"
    return [words, f"export REGISTRAR_API_URL={stack.api_url}", f"export REGISTRAR_API_KEY={key}"]


def _aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<15}{value}" for name, value in rows]


def _shown(path: Path) -> str:
    """The path to show: relative if it is below the current directory."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _command(stack: Stack) -> str:
    """The command that calls `registrar` on this stack from another terminal."""
    program = Path(sys.executable).with_name("registrar")
    command = shlex.quote(_shown(program)) if program.exists() else "python -m app.cli"
    if stack.data_dir == Settings.model_fields["data_dir"].default.absolute():
        return command
    return f"REGISTRAR_DATA_DIR={shlex.quote(_shown(stack.data_dir))} {command}"


def _stop_on_signals(hurry: threading.Event) -> None:
    """Makes the first signal stop everything cleanly, even during the start. A second one ends the
    waiting for workers."""
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
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup: keep running
            signal.signal(number, stop)


def _print(text: str) -> None:
    print(text, flush=True)
