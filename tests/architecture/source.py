"""The product's source as syntax trees, for the tests that hold its conventions."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "workers", "simulator", "migrations")


@dataclass(frozen=True)
class Source:
    path: str
    """Relative to the repository, with slashes."""
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")


@cache
def _source(path: Path) -> Source:
    text = path.read_text()
    return Source(path.relative_to(ROOT).as_posix(), text, ast.parse(text))


@cache
def sources(*packages: str) -> tuple[Source, ...]:
    """Every module of the packages (all of ours without an argument)."""
    found = tuple(
        _source(path) for package in packages or PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
    )
    assert found
    return found


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """(name of what is called, the call); for `a.b.c()` the name is `c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id, node
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr, node


def literal(node: ast.expr | None) -> str | None:
    """The text of a string literal; None for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
