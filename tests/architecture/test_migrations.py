"""Migrations only add: the workers of the release before still run while, and after, a migration is made.

The release before is 0.1. It reads some tables with `*`, and what it has prepared fails once when they get a
column. Queries of this release name their columns (tests/architecture/test_columns.py), so for the one that
follows it a column costs nothing: READ_WHOLE is empty then.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.source import Source, calls, literal, sources

FIRST_RELEASE = {"0001", "0002"}
"""What nobody ran on before."""

READ_WHOLE = {
    "api_keys", "batches", "connections", "consents", "customers", "deliveries", "events", "idempotency_keys",
    "imports", "orders", "partners", "vendor_profiles", "webhook_endpoints",
}  # fmt: skip
"""The tables that the release before reads with `*`."""
ENDING = "table_locks.end_prepared_statements(op.get_bind())"
"""What a migration that adds a column to one of them does last."""

REMOVING = {"drop_column", "drop_table", "rename_table", "batch_alter_table"}
STATEMENTS = {
    r"\bDROP\s+(TABLE|COLUMN|SCHEMA|TYPE|ROLE)\b": "takes something away",
    r"\bALTER\s+TABLE\s+(ONLY\s+)?\S+\s+DROP\s+(?!CONSTRAINT\b)": "takes something away",
    r"\bRENAME\b": "renames",
    r"\bALTER\s+(COLUMN\s+)?\S+\s+(SET\s+DATA\s+)?TYPE\b": "changes a type",
    r"\bSET\s+NOT\s+NULL\b": "asks for a value that the release before does not write",
    r"\bDROP\s+DEFAULT\b": "asks for a value that the release before does not write",
    r"\bTRUNCATE\b": "takes something away",
}
WIDENED = re.compile(
    r"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?(\S+)\s+ADD\s+(?!CONSTRAINT\b|CHECK\b|FOREIGN\b|UNIQUE\b|PRIMARY\b)",
    re.IGNORECASE,
)
ADDED_COLUMN = re.compile(r"\bADD\s+(?:COLUMN\s+)(?:IF\s+NOT\s+EXISTS\s+)?([^,;]*)", re.IGNORECASE)
LOCKING = {"table_locks.take(op.get_bind(), LOCKS)", "table_locks.take_every_table(op.get_bind())"}


def revision_of(tree: ast.Module) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "revision":
                return literal(node.value)
    return None


def later_migrations() -> list[Source]:
    found = [source for source in sources("migrations") if "/versions/" in source.path]
    return [source for source in found if revision_of(source.tree) not in {None, *FIRST_RELEASE}]


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def reached_by_upgrade(tree: ast.Module) -> list[ast.FunctionDef]:
    """`upgrade` and the module's own functions that it calls."""
    known, reached, ahead = functions(tree), [], ["upgrade"]
    while ahead:
        function = known.pop(ahead.pop(), None)
        if function is not None:
            reached.append(function)
            ahead += [node.id for node in ast.walk(function) if isinstance(node, ast.Name)]
    return reached


def statements(tree: ast.Module, reached: list[ast.FunctionDef]) -> Iterator[tuple[int, str]]:
    """(line, SQL) of every text that the upgrade may run, constants of the module included."""
    used = {node.id for function in reached for node in ast.walk(function) if isinstance(node, ast.Name)}
    constants = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets)
        if isinstance(target, ast.Name) and target.id in used
    ]
    for part in [*reached, *constants]:
        for node in ast.walk(part):
            if isinstance(node, ast.JoinedStr):
                words = (piece.value if isinstance(piece, ast.Constant) else "x" for piece in node.values)
                yield node.lineno, "".join(map(str, words))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value


def complaints(tree: ast.Module) -> list[str]:
    """What the upgrade does that the release before could not live with, by line."""
    reached = reached_by_upgrade(tree)
    found = [
        f"{line}: {why}: {text.strip()[:60]}"
        for line, text in statements(tree, reached)
        for pattern, why in STATEMENTS.items()
        if re.search(pattern, text, re.IGNORECASE)
    ]
    found += [
        f"{line}: a column that must have a value and has no default"
        for line, text in statements(tree, reached)
        for column in ADDED_COLUMN.findall(text)
        if re.search(r"\bNOT\s+NULL\b", column, re.IGNORECASE)
        and not re.search(r"\bDEFAULT\b", column, re.IGNORECASE)
    ]
    for function in reached:
        for name, call in calls(function):
            found += [f"{call.lineno}: {why}" for why in _complaints_of_call(name, call)]
    if not ends_prepared_statements(tree):
        found += [
            f"{line}: the release before reads {table} with `*`, and fails where it has prepared that"
            for line, table in widened(tree, reached)
            if table in READ_WHOLE or not table.isidentifier()
        ]
    return sorted(found, key=lambda words: int(words.partition(":")[0]))


def widened(tree: ast.Module, reached: list[ast.FunctionDef]) -> Iterator[tuple[int, str]]:
    """(line, table) of every column that is added; what is no literal as the code has it."""
    for line, text in statements(tree, reached):
        for table in WIDENED.findall(text):
            yield line, "?" if table == "x" else table
    for function in reached:
        for name, call in calls(function):
            if name == "add_column":
                yield call.lineno, literal(call.args[0]) or f"({ast.unparse(call.args[0])})"


def ends_prepared_statements(tree: ast.Module) -> bool:
    return ast.unparse(functions(tree)["upgrade"].body[-1]) == ENDING


def _complaints_of_call(name: str, call: ast.Call) -> Iterator[str]:
    given = {word.arg: word.value for word in call.keywords}
    if name in REMOVING:
        yield f"{name} takes something away"
    if name == "drop_constraint" and literal(given.get("type_")) not in {"foreignkey", "unique", "check"}:
        yield "drop_constraint of an unnamed kind"
    if name == "alter_column":
        if isinstance(nullable := given.get("nullable"), ast.Constant) and nullable.value is False:
            yield "asks for a value that the release before does not write"
        if {"type_", "new_column_name"} & given.keys():
            yield "changes a column that the release before knows"
        if isinstance(default := given.get("server_default"), ast.Constant) and default.value is None:
            yield "takes a default away"
    if name == "add_column":
        for inner, column in calls(call):
            options = {word.arg: word.value for word in column.keywords}
            nullable = options.get("nullable")
            required = isinstance(nullable, ast.Constant) and nullable.value is False
            if inner == "Column" and required and "server_default" not in options:
                yield "a column that must have a value and has no default"


def locks_first(function: ast.FunctionDef) -> bool:
    """Whether its first statement takes all its locks, as the template has it."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return ast.unparse(body[0]) in LOCKING


def test_every_migration_after_the_first_release_only_adds() -> None:
    found = {source.path: complaints(source.tree) for source in later_migrations()}
    assert {path: said for path, said in found.items() if said} == {}


def test_every_migration_takes_its_locks_first_both_ways() -> None:
    migrations = [source for source in sources("migrations") if revision_of(source.tree)]
    assert {revision_of(source.tree) for source in migrations} >= FIRST_RELEASE
    others = [
        f"{source.path}: {name}"
        for source in migrations
        for name in ("upgrade", "downgrade")
        if not locks_first(functions(source.tree)[name])
    ]
    assert others == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("op.drop_column('orders', 'reference')", "takes something away"),
        ("op.drop_table('orders')", "takes something away"),
        ("op.rename_table('orders', 'jobs')", "takes something away"),
        ("op.alter_column('orders', 'group_tag', nullable=False)", "asks for a value"),
        ("op.alter_column('orders', 'group_tag', type_=sa.Integer())", "changes a column"),
        ("op.alter_column('orders', 'group_tag', new_column_name='tag')", "changes a column"),
        ("op.add_column('orders', sa.Column('x', sa.Text(), nullable=False))", "has no default"),
        ("op.execute('ALTER TABLE orders DROP COLUMN reference')", "takes something away"),
        ("op.execute('ALTER TABLE orders DROP reference')", "takes something away"),
        ("op.execute('alter table orders rename column a to b')", "renames"),
        ("op.execute('ALTER TABLE orders ALTER COLUMN a TYPE integer')", "changes a type"),
        ("op.execute('ALTER TABLE orders ALTER a SET NOT NULL')", "asks for a value"),
        ("op.execute('ALTER TABLE orders ADD COLUMN x integer NOT NULL')", "has no default"),
        ("op.add_column('orders', sa.Column('x', sa.Text(), nullable=True))", "reads orders with `*`"),
        ("op.execute('ALTER TABLE orders ADD COLUMN x integer DEFAULT 0 NOT NULL')", "reads orders with `*`"),
        ("op.execute('ALTER TABLE ONLY orders ADD x integer')", "reads orders with `*`"),
        ("for t in T: op.add_column(t, sa.Column('x', sa.Text()))", "reads (t) with `*`"),
        ("for t in T: op.execute(f'ALTER TABLE {t} ADD x integer')", "reads ? with `*`"),
        ("for t in ('orders',): op.execute(f'ALTER TABLE {t} DROP COLUMN x')", "takes something away"),
        ("helper()", "takes something away"),
        ("op.execute(DROPPING)", "takes something away"),
    ],
)
def test_what_the_release_before_could_not_live_with_is_found(body: str, why: str) -> None:
    text = (
        f"DROPPING = 'DROP TABLE orders'\ndef helper():\n    op.drop_table('x')\ndef upgrade():\n    {body}\n"
    )
    found = complaints(ast.parse(text))
    assert found
    assert why in found[0]


@pytest.mark.parametrize(
    "body",
    [
        "op.create_table('later', sa.Column('id', sa.Uuid(), nullable=False))",
        "op.add_column('import_rows', sa.Column('x', sa.Text(), nullable=True))",
        "op.add_column('import_rows', sa.Column('x', sa.Integer(), server_default='0', nullable=False))",
        "op.execute('ALTER TABLE import_rows ADD COLUMN x integer DEFAULT 0 NOT NULL')",
        f"op.add_column('orders', sa.Column('x', sa.Text()))\n    {ENDING}",
        "op.execute('ALTER TABLE orders ADD CONSTRAINT c CHECK (true)')",
        "op.drop_index('ix_orders')",
        "op.execute('DROP INDEX ix_orders')",
        "op.execute('ALTER TABLE orders DROP CONSTRAINT fk_orders_customer_id')",
        "op.drop_constraint('fk_orders_customer_id', 'orders', type_='foreignkey')",
        "op.alter_column('orders', 'group_tag', nullable=True)",
        "op.execute('CREATE TRIGGER kept AFTER INSERT ON orders EXECUTE FUNCTION keep()')",
    ],
)
def test_what_only_adds_or_relieves_is_let_through(body: str) -> None:
    text = f"def upgrade():\n    {body}\ndef downgrade():\n    op.drop_table('later')\n"
    assert complaints(ast.parse(text)) == []
