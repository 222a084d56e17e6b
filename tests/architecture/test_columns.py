"""No query says `*`: a column that a later release adds would break what this one has prepared."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest

from tests.architecture.source import calls, sources

EVERYTHING = re.compile(r"\b(SELECT|RETURNING|DISTINCT)\s+\*|,\s*\*\s*(,|FROM)|\.\*")


def texts(tree: ast.AST) -> list[str]:
    """The texts in the code, without documentation; of an f-string the pieces between its values."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


def test_no_query_asks_for_all_columns() -> None:
    found = [
        f"{source.path}: {text.strip()[:80]}"
        for source in sources("app/db")
        for text in texts(source.tree)
        if EVERYTHING.search(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "q = 'SELECT * FROM orders'",
        "q = f'SELECT o.*, {x} FROM orders o'",
        "q = f'UPDATE {t} SET a = 1 RETURNING *'",
        "q = f'SELECT {alias}.* FROM t'",
        "q = 'SELECT id, * FROM t'",
    ],
)
def test_a_query_that_asks_for_all_columns_is_found(code: str) -> None:
    assert any(EVERYTHING.search(text) for text in texts(ast.parse(code)))


def test_counting_rows_and_a_docstring_are_let_through() -> None:
    code = 'def f():\n    "Never SELECT *."\n    return "SELECT count(*), a * b FROM t"'
    assert not any(EVERYTHING.search(text) for text in texts(ast.parse(code)))


def test_no_row_leaves_the_database_layer_untyped() -> None:
    """A query returns dataclasses or plain values, never a mapping by column name."""
    untyped = [
        f"{source.path}: {node.name}"
        for source in sources("app/db")
        if source.path != "app/db/sql.py"
        for node in source.tree.body
        if isinstance(node, ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.returns is not None
        if re.search(r"Mapping\[str, Any\]|list\[dict\[", ast.unparse(node.returns))
    ]
    assert untyped == []


def named_columns(tree: ast.Module, node: ast.AST, seen: frozenset[str] = frozenset()) -> Iterator[ast.Call]:
    """The calls of `columns` in a statement, also in the module's constants that it is made of."""
    constants = {
        target.id: stated.value
        for stated in tree.body
        if isinstance(stated, ast.Assign | ast.AnnAssign) and stated.value is not None
        for target in ([stated.target] if isinstance(stated, ast.AnnAssign) else stated.targets)
        if isinstance(target, ast.Name)
    }
    yield from (call for name, call in calls(node) if name == "columns")
    for name in {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - seen:
        if name in constants:
            yield from named_columns(tree, constants[name], seen | {name})


def value(module: ModuleType, node: ast.expr) -> Any:
    """A name, or a name in a module, as the module has it."""
    if isinstance(node, ast.Attribute):
        return getattr(value(module, node.value), node.attr)
    assert isinstance(node, ast.Name)
    return getattr(module, node.id)


def unfit(module: ModuleType, kind: type, call: ast.Call) -> set[str]:
    """Columns that are asked for and that the dataclass has no field for."""
    narrowed = [word.value for word in call.keywords if word.arg == "of"] + call.args[2:]
    asked = (
        {field.name for field in fields(value(module, narrowed[0]))}
        if narrowed
        else set(value(module, call.args[0]).columns.keys())
    )
    return asked - {field.name for field in fields(kind)}


def test_a_query_asks_for_no_column_that_its_dataclass_does_not_have() -> None:
    found, read = [], 0
    for source in sources("app/db"):
        module = importlib.import_module(source.path.removesuffix(".py").replace("/", "."))
        for name, call in calls(source.tree):
            if name not in ("fetch_one_as", "fetch_all_as") or len(call.args) < 3:
                continue
            kind = call.args[1]
            if not isinstance(kind, ast.Name) or not hasattr(module, kind.id):
                continue  # a parameter of the function
            for columns in named_columns(source.tree, call.args[2]):
                read += 1
                if more := unfit(module, value(module, kind), columns):
                    found.append(f"{source.path}: {kind.id} has no {sorted(more)}")
    assert read > 15
    assert found == []


def test_only_the_kernel_of_leases_writes_a_lease() -> None:
    """`Leased` has the columns of a claim and their values; who sets one elsewhere forgets the others."""
    written = re.compile(r"lease_until(\s*=|$)")
    places = ("app/db/leases.py", "app/db/tables/")
    found = [
        f"{source.path}: {text.strip()[:80]}"
        for source in sources("app", "workers")
        if not source.path.startswith(places)
        for text in texts(source.tree)
        if written.search(text)
    ]
    assert found == []
