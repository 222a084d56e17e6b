"""No query without its partner: every function that speaks to the database says whose rows it means."""

import ast
from collections.abc import Iterator

from app.db.searching import Search
from tests.architecture.source import Source, sources

WHOLE_MODULES = {
    "app/db/schema.py": "the schema belongs to nobody",
    "app/db/engine.py": "the door itself: it sets the partner",
    "app/db/driver.py": "it sends what the queries say",
    "app/db/walls.py": "it looks at the walls, and at no row",
    "app/db/sql.py": "the verbs the queries are written with",
    "app/db/partners.py": "partners and keys are looked up before anybody is known",
    "app/db/heartbeats.py": "workers serve all partners",
    "app/db/figures.py": "the operator's metrics count over all partners, and name none",
    "app/db/removal.py": "a subject carries its partner, and its statements run as that partner alone",
    "app/db/sealing.py": "run as the system over all rows; each value is opened with its own partner",
}
CARRIED_BY_ROWS = {
    "app/db/import_rows.py: add_many": "each row has its partner, and row-level security checks it",
    "app/db/import_rows.py: add_hashes": "each row has its partner, and row-level security checks it",
}
CLAIMS = {"Claim", "DeliveryClaim", "ImportClaim"}


def queries() -> Iterator[tuple[Source, ast.AsyncFunctionDef]]:
    for source in sources("app/db"):
        if source.path in WHOLE_MODULES:
            continue
        for node in source.tree.body:
            if not isinstance(node, ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if node.args.args and node.args.args[0].arg == "session":
                yield source, node


def second(function: ast.AsyncFunctionDef) -> tuple[str, str]:
    if len(function.args.args) < 2:
        return "", ""
    argument = function.args.args[1]
    return argument.arg, "" if argument.annotation is None else ast.unparse(argument.annotation)


def is_of_the_system(function: ast.AsyncFunctionDef) -> bool:
    return "As the system" in (ast.get_docstring(function) or "")


def test_every_query_takes_the_partner_or_a_claim_right_after_the_session() -> None:
    without = []
    for source, function in queries():
        name, kind = second(function)
        if (name, kind) == ("partner_id", "PartnerId") or kind in CLAIMS or is_of_the_system(function):
            continue
        without.append(f"{source.path}: {function.name}")
    assert sorted(without) == sorted(CARRIED_BY_ROWS)
    assert len(list(queries())) > 60


def test_every_query_uses_the_partner_it_takes() -> None:
    idle = []
    for source, function in queries():
        name, kind = second(function)
        wanted = "partner_id" if kind == "PartnerId" else f"{name}.partner_id" if kind in CLAIMS else None
        if wanted is None or is_of_the_system(function):
            continue
        used = {
            ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Name | ast.Attribute)
        }
        passed_on = kind in CLAIMS and name in {
            ast.unparse(argument)
            for node in ast.walk(function)
            if isinstance(node, ast.Call)
            for argument in node.args
        }
        if wanted not in used and not passed_on:
            idle.append(f"{source.path}: {function.name}")
    assert idle == []


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
        ast.unparse(call).startswith("page_of(session, partner_id, ")
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
    silent = []
    for source, function in queries():
        if second(function)[1] != "PartnerId" and second(function)[1] not in CLAIMS:
            continue
        texts = written(function, fragments(source))
        # Statements for the driver itself count their parameters: the partner is the first.
        named = ":partner" in texts or ("partner_id" in texts and "$1" in texts) or is_page(function)
        if any(word in texts for word in ("SELECT ", "UPDATE ", "DELETE ", "WHERE ")) and not named:
            silent.append(f"{source.path}: {function.name}")
    assert silent == []


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
