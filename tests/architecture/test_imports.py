"""Import contracts of pyproject.toml, checked here so that a test run reports a breach."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.architecture.source import ROOT, sources

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command(standalone_mode=True)"


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_contract_about_imports_is_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_a_forbidden_import_would_be_noticed(tmp_path: Path) -> None:
    """The same contracts over the same packages, with one line too many in the domain."""
    for source in sources():
        copy = tmp_path / source.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        extra = "\nimport app.db.engine\n" if source.path == "app/domain/order.py" else ""
        copy.write_text(source.text + extra)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    done = lint(tmp_path)
    assert done.returncode != 0, done.stdout
    assert "app.domain.order -> app.db.engine" in done.stdout


BEHIND_WALLS = {"app.local", "arq", "fastapi", "httpx", "msal", "opentelemetry", "sqlalchemy", "workers"}
MAY_IMPORT = {
    "app.api": {"fastapi"},
    "app.cli": {"app.local", "httpx"},
    "app.db": {"sqlalchemy"},
    "app.kernel": {"httpx", "sqlalchemy"},
    "app.local": {"app.local", "httpx"},
    "app.microsoft": {"httpx"},
    "app.services": {"sqlalchemy"},
}


def test_a_new_module_is_inside_the_walls_from_its_first_line(tmp_path: Path) -> None:
    """One in each folder, with every import that some wall forbids."""
    folders = {Path(source.path).parent for source in sources("app")}
    assert len(folders) > 10
    for source in sources():
        copy = tmp_path / source.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.text)
    for folder in folders:
        (tmp_path / folder / "newcomer.py").write_text(f"import {', '.join(sorted(BEHIND_WALLS))}\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    said = lint(tmp_path).stdout
    for folder in folders:
        package = ".".join(folder.parts)
        allowed = MAY_IMPORT.get(".".join(folder.parts[:2]), set())
        for name in BEHIND_WALLS:
            told = f"{package}.newcomer -> {name}" in said
            assert told is (name not in allowed), f"{package}.newcomer imports {name}"


def test_every_part_of_the_product_has_its_layer() -> None:
    of_all, of_services = [contract for contract in CONTRACTS if contract["type"] == "layers"]
    assert of_services["exhaustive"] is True
    layers = of_all["layers"]
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    parts = {
        "app." + source.path.split("/")[1].removesuffix(".py")
        for source in sources("app")
        if "/" in source.path
    } - {"app.__init__"}
    assert parts | {"workers"} == placed
