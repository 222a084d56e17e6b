"""No query without its partner: every query takes a transaction first, and that says whose it is.

mypy refuses a `SystemTx` where a `PartnerTx` is wanted, and the other way round. These tests hold that every
query asks for one of the two, and that the SQL of a partner's query names the partner.
"""

import ast
from collections.abc import Iterator

from app.db.searching import Search
from app.kernel.transactions import PartnerTx, SystemTx
from tests.architecture.source import Source, sources

BELOW_TRANSACTIONS = {
    "app/db/clock.py": "it asks what time it is",
    "app/db/driver.py": "it sends what the queries say",
    "app/db/engine.py": "the door itself: it sets the partner",
    "app/db/schema.py": "the schema belongs to nobody",
    "app/db/serial_search.py": "it looks at the schema, and at no row",
    "app/db/sql.py": "the verbs the queries are written with",
    "app/db/walls.py": "it looks at the walls, and at no row",
}
WITHOUT_TRANSACTION = {"app/db/partners.py: find_key": "each call needs it before anybody is known"}
EITHER = {
    "app/db/devices_backfill.py: is_complete": "one row for all partners says so",
    "app/db/heartbeats.py: last": "workers serve all partners",
    "app/db/heartbeats.py: workers": "workers serve all partners",
    "app/db/quotas.py: amount": "the operator asks for a partner's, and the partner for its own",
    "app/db/sealing.py: binds_to_rows": "asked once of the whole installation",
}
"""Queries that may run in either transaction. They name no partner, or take it as an argument."""
WHERE_OF_THE_SUBJECT = {
    "app/db/removal.py: counts": "each WHERE of `_contents` names the partner",
    "app/db/removal.py: next_orders": "`Subject.orders` names the partner",
}
"""Their WHERE is written elsewhere."""
CARRIED_BY_ROWS = {
    "app/db/import_rows.py: add_many": "each row has its partner, and row-level security checks it",
    "app/db/import_rows.py: add_hashes": "each row has its partner, and row-level security checks it",
}

VERBS = {"fetch_one", "fetch_all", "fetch_rows", "execute", "insert", "load"}
"""They send a statement as it is: what names the partner is its caller."""


def queries() -> Iterator[tuple[Source, ast.AsyncFunctionDef]]:
    """Every public function of the database layer that waits for the database."""
    for source in sources("app/db"):
        if source.path in BELOW_TRANSACTIONS:
            continue
        for node in source.tree.body:
            if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield source, node


def name(source: Source, function: ast.AsyncFunctionDef) -> str:
    return f"{source.path}: {function.name}"


def first(function: ast.AsyncFunctionDef) -> str:
    """The type of the first argument."""
    arguments = function.args.args
    return "" if not arguments or arguments[0].annotation is None else ast.unparse(arguments[0].annotation)


def of_partners() -> Iterator[tuple[Source, ast.AsyncFunctionDef]]:
    return ((source, function) for source, function in queries() if first(function) == "PartnerTx")


def test_every_query_takes_a_transaction_first() -> None:
    without = {
        name(source, function)
        for source, function in queries()
        if first(function) not in ("PartnerTx", "SystemTx", "Tx")
    }
    assert without == set(WITHOUT_TRANSACTION)
    assert len(list(of_partners())) > 150


def test_few_queries_run_in_either_transaction() -> None:
    assert {name(*query) for query in queries() if first(query[1]) == "Tx"} == set(EITHER)


def test_neither_transaction_passes_for_the_other() -> None:
    assert not issubclass(PartnerTx, SystemTx)
    assert not issubclass(SystemTx, PartnerTx)


def test_every_query_of_a_partner_uses_the_partner_of_its_transaction() -> None:
    """Or passes the transaction on to one that does."""
    idle = set()
    for source, function in of_partners():
        used = {ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
        passed_on = any(
            ast.unparse(argument) == "tx"
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and ast.unparse(node.func) not in VERBS
            for argument in node.args
        )
        if not passed_on and "tx.partner_id" not in used:
            idle.add(name(source, function))
    assert idle == set(CARRIED_BY_ROWS)


def fragments(source: Source) -> dict[str, ast.expr]:
    """What the module's constants are put together from, by name."""
    return {
        target.id: node.value
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def written(node: ast.AST, known: dict[str, ast.expr]) -> str:
    """The text of a function or expression, with that of the constants it names; no docstring."""
    body = node.body if isinstance(node, ast.AsyncFunctionDef) else [node]
    if isinstance(node, ast.AsyncFunctionDef) and ast.get_docstring(node):
        body = body[1:]
    texts = []
    for part in (inner for outer in body for inner in ast.walk(outer)):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            texts.append(part.value)
        elif isinstance(part, ast.Name) and part.id in known:
            texts.append(written(known[part.id], {k: v for k, v in known.items() if k != part.id}))
    return " ".join(texts)


def is_page(function: ast.AsyncFunctionDef) -> bool:
    """Whether its statement is completed by `searching.page_of`, which names the partner that it is given."""
    return any(
        ast.unparse(call).startswith("page_of(tx, ")
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
    )


def test_the_statement_of_a_page_names_its_partner_in_both_places() -> None:
    search = Search("SELECT o.* FROM orders o", "orders", "o")
    assert "FROM orders WHERE partner_id = :partner " in search.among("")
    [page_of] = [function for _, function in queries() if function.name == "page_of"]
    assert ".partner_id = :partner" in written(page_of, {})


def test_every_statement_with_a_partner_names_it() -> None:
    """In the SQL itself, not only in the parameters: the policies are the second wall, not the first."""
    silent = set()
    for source, function in of_partners():
        texts = written(function, fragments(source))
        # Statements for the driver itself count their parameters: the partner is the first.
        named = ":partner" in texts or ("partner_id" in texts and "$1" in texts) or is_page(function)
        if any(word in texts for word in ("SELECT ", "UPDATE ", "DELETE ", "WHERE ")) and not named:
            silent.add(name(source, function))
    assert silent == set(WHERE_OF_THE_SUBJECT)


def test_nothing_outside_the_database_layer_writes_sql() -> None:
    elsewhere = []
    for source in sources("app", "workers"):
        if source.path.startswith("app/db/"):
            continue
        for node in ast.walk(source.tree):
            value = node.value if isinstance(node, ast.Constant) else None
            if isinstance(value, str) and value.lstrip().startswith(
                ("SELECT ", "UPDATE ", "DELETE FROM ", "INSERT INTO ", "WITH ")
            ):
                elsewhere.append(f"{source.path}:{getattr(node, 'lineno', 0)}")
    assert elsewhere == []
