"""`make contract`: lints the OpenAPI document, generates clients, and places an order with one of them.

A running API serves the document. The tools have their own lock files, so that they hold back none of the
service's libraries, and stay in build/contract until those files change.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console

from app.local.stack import ROOT, Stack

HERE = Path(__file__).parent
BUILD = ROOT / "build" / "contract"
PYTHON, NODE = BUILD / "python", BUILD / "node"
CONSOLE = Console(highlight=False)
QUIET = {
    "REDOCLY_TELEMETRY": "off",
    "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
    "npm_config_update_notifier": "false",
}


class Failed(Exception):
    """A failed check, with the output of the program that found it."""


def main() -> int:
    begun = time.monotonic()
    try:
        _install()
        with tempfile.TemporaryDirectory(prefix="registrar-contract-") as directory:
            _check(Path(directory))
    except (Failed, httpx.HTTPError) as error:
        CONSOLE.print(f"[red]The contract does not hold.[/red] {error}", soft_wrap=True)
        return 1
    CONSOLE.print(f"[green]The contract holds.[/green] It took {time.monotonic() - begun:.0f} seconds.")
    return 0


def _run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **QUIET, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


# --- the tools ------------------------------------------------------------------------------------


def _install() -> None:
    """Both kinds of tools at the same time; nothing where they are the right ones already."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(_install_python), pool.submit(_install_node)]:
            done.result()


def _install_python() -> None:
    lock = HERE / "requirements.lock"
    if _is_there(PYTHON, lock):
        return
    _run(sys.executable, "-m", "venv", PYTHON)
    pip = (PYTHON / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    _run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", lock)
    _mark(PYTHON, lock)


def _install_node() -> None:
    package = HERE / "package.json"
    if _is_there(NODE, package):
        return
    if shutil.which("npm") is None:
        raise Failed("npm is missing; it comes with Node.js (Debian: nodejs and npm).")
    NODE.mkdir(parents=True)
    shutil.copy(package, NODE)
    quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    _run("npm", "install", *quiet, cwd=NODE)
    _mark(NODE, package)


def _is_there(place: Path, wanted: Path) -> bool:
    """Otherwise deletes what is there."""
    mark = place / "installed"
    if mark.exists() and mark.read_text() == _digest(wanted):
        return True
    shutil.rmtree(place, ignore_errors=True)
    return False


def _mark(place: Path, wanted: Path) -> None:
    (place / "installed").write_text(_digest(wanted))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- the contract -----------------------------------------------------------------------------------


def _check(directory: Path) -> None:
    with Stack.start(
        directory / "data", sandbox=True, environment={"REGISTRAR_LOG_LEVEL": "WARNING"}
    ) as stack:
        document = directory / "openapi.json"
        document.write_bytes(
            httpx.get(f"{stack.api_url}/openapi.json", trust_env=False).raise_for_status().content
        )
        with ThreadPoolExecutor() as pool:
            done = [pool.submit(step, document) for step in (_lint, _type_check)]
            client = _generate(document)
            _order(stack, client)
            for step in done:
                step.result()


def _lint(document: Path) -> None:
    binary = NODE / "node_modules/.bin/redocly"
    _run(binary, "lint", document, "--extends=recommended", "--format=stylish", cwd=document.parent)
    CONSOLE.print("  Redocly's recommended rules find no error.")


def _type_check(document: Path) -> None:
    """TypeScript types, and a program that uses them."""
    place = document.parent / "typescript"
    place.mkdir()
    binaries = NODE / "node_modules/.bin"
    _run(binaries / "openapi-typescript", document, "-o", place / "registrar.d.ts")
    shutil.copy(HERE / "order.ts", place)
    _run(binaries / "tsc", "--noEmit", "--strict", "--target", "es2022", place / "order.ts", cwd=place)
    CONSOLE.print("  TypeScript compiles an order with the types of openapi-typescript.")


def _generate(document: Path) -> Path:
    place = document.parent / "python" / "registrar_client"
    place.parent.mkdir()
    binaries = PYTHON / "bin"
    _run(
        *(binaries / "openapi-python-client", "generate", "--path", document, "--output-path", place),
        *("--meta", "none", "--fail-on-warning"),
        PATH=f"{binaries}{os.pathsep}{os.environ['PATH']}",
    )
    CONSOLE.print("  openapi-python-client makes a client without a warning.")
    return place.parent


def _order(stack: Stack, client: Path) -> None:
    """A reseller with its customer, at the simulator; all else is done through the client."""

    def control(path: str, body: dict[str, Any]) -> Any:
        url = f"{stack.simulator_url}/control/{path}"
        response = httpx.post(url, json=body, trust_env=False).raise_for_status()
        return response.json() if response.content else None

    reseller = control("seed", {"customers": 0})["partner"]
    tenant = str(uuid4())
    control("customers", {"tenant_id": tenant, "name": "Contoso", "relationship": "reseller"})
    stack.registrar("partner", "create", "Reseller", "--role", "direct_bill")
    made = stack.registrar(
        "api-key", "create", "--partner", "Reseller", "--name", "client", "--scope", "operator", "--json"
    )
    scene = {
        "api": stack.api_url,
        "key": json.loads(made.stdout)["key"],
        "tenant": tenant,
        "reseller": reseller,
    }
    said = _run(PYTHON / "bin/python", HERE / "order.py", PYTHONPATH=str(client), SCENE=json.dumps(scene))
    CONSOLE.print(f"  {said.strip()}")


if __name__ == "__main__":
    sys.exit(main())
