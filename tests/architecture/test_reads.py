"""Reads keep to the time limit of reads: no GET opens an unbounded transaction."""

import ast
from collections.abc import Iterator

from tests.architecture.source import Source, calls, sources

Function = ast.AsyncFunctionDef | ast.FunctionDef
UNBOUNDED = {"transaction", "system_transaction"}
CHEAP = {"app/services/operations/health.py: _look": "asks for the schema's version and for one heartbeat"}


def functions(source: Source) -> dict[str, Function]:
    return {node.name: node for node in source.tree.body if isinstance(node, Function)}


def services() -> dict[str, Source]:
    return {source.path[:-3].replace("/", "."): source for source in sources("app/services")}


def imported(source: Source) -> dict[str, tuple[str, str | None]]:
    """The module or function of the services behind each imported name."""
    known = services()
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        for each in node.names:
            name, module = each.asname or each.name, f"{node.module}.{each.name}"
            if module in known:
                found[name] = (module, None)
            elif node.module in known:
                found[name] = (node.module, each.name)
    return found


def called(source: Source, function: Function) -> Iterator[tuple[Source, str]]:
    """The functions of the services, and of the module itself, that a function calls."""
    known, names = services(), imported(source)
    for _, call in calls(function):
        match call.func:
            case ast.Name(id=name) if name in names and names[name][1] is not None:
                yield known[names[name][0]], str(names[name][1])
            case ast.Name(id=name):
                yield source, name
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in names:
                yield known[names[module][0]], name


def is_read(function: Function) -> bool:
    return any(".get(" in ast.unparse(each) for each in function.decorator_list)


def reached() -> dict[str, Function]:
    """Every function that a GET comes to."""
    found: dict[str, Function] = {}
    waiting = [
        (source, name) for source in sources("app/api") for name, f in functions(source).items() if is_read(f)
    ]
    while waiting:
        source, name = waiting.pop()
        where, function = f"{source.path}: {name}", functions(source).get(name)
        if function is not None and where not in found:
            found[where] = function
            waiting += called(source, function)
    return found


def test_no_call_that_only_reads_opens_a_transaction_without_a_time_limit() -> None:
    functions_reached = reached()
    opens = {
        where for where, function in functions_reached.items() if UNBOUNDED & {n for n, _ in calls(function)}
    }
    assert opens == set(CHEAP)
    assert sum("services/" in where for where in functions_reached) > 30
