"""No query says `*`: a column that a later release adds would break what this one has prepared."""

import ast
import re

import pytest

from tests.architecture.source import sources

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
