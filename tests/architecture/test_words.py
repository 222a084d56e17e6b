"""House rules: words, sizes, logs."""

import ast
import re

import pytest

from tests.architecture.source import ROOT, Source, calls, literal, sources

FORBIDDEN = re.compile(r"(Manager|Helper|Handler|Utils?|Common|Misc|Base)$|^(utils?|helpers?|common|misc)$")
ALLOWED = {"app/platforms/base.py": "the protocol that platforms implement"}

MOST_LINES = 450
LONGER = {
    "app/api/contract/models.py": (600, "a list of shapes, read by looking up, not from the top"),
    "app/domain/catalogue.py": (700, "a table of codes, read by looking up, not from the top"),
    "app/kernel/settings.py": (600, "a list of settings with the checks between them, read by looking up"),
}
"""Files over the limit: how far they may go, and why they are not split."""

LOG_VERBS = {"debug", "info", "warning", "error", "exception", "critical"}
TO_A_TERMINAL = ("app/cli/", "app/local/")


def is_named_by_its_base(node: ast.ClassDef) -> bool:
    """The standard library's servers ask for a subclass of their request handler."""
    return any(ast.unparse(base).endswith("RequestHandler") for base in node.bases)


def test_no_class_or_module_has_a_name_that_says_nothing() -> None:
    named = []
    for source in sources():
        stem = source.path.rsplit("/", 1)[-1].removesuffix(".py")
        if FORBIDDEN.search(stem) and source.path not in ALLOWED:
            named.append(source.path)
        named += [
            f"{source.path}: {node.name}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ClassDef)
            and FORBIDDEN.search(node.name)
            and not is_named_by_its_base(node)
        ]
    assert named == []


def test_no_file_is_too_long_for_one_reading() -> None:
    too_long = {
        source.path: source.lines
        for source in sources("app", "workers")
        if source.lines > LONGER.get(source.path, (MOST_LINES, ""))[0]
    }
    assert too_long == {}


def test_every_module_says_what_it_decides() -> None:
    silent = [
        source.path
        for source in sources()
        if source.text.strip()
        and not ast.get_docstring(source.tree)
        and not source.path.endswith("__init__.py")
    ]
    assert silent == []


def test_nothing_is_printed_but_to_a_terminal() -> None:
    printing = [
        f"{source.path}:{call.lineno}"
        for source in sources("app", "workers")
        if not source.path.startswith(TO_A_TERMINAL)
        for name, call in calls(source.tree)
        if name == "print" and isinstance(call.func, ast.Name)
    ]
    assert printing == []


def log_calls(source: Source) -> list[ast.Call]:
    return [
        call
        for name, call in calls(source.tree)
        if name in LOG_VERBS
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "log"
    ]


def test_the_names_of_log_events_are_constants_and_values_are_fields() -> None:
    found = [(source, call) for source in sources("app", "workers") for call in log_calls(source)]
    assert len(found) > 25
    wrong = [
        f"{source.path}:{call.lineno}"
        for source, call in found
        if len(call.args) != 1 or not re.fullmatch(r"[a-z][a-z0-9_]+", literal(call.args[0]) or "")
    ]
    assert wrong == []


def test_no_log_event_carries_what_must_not_be_logged() -> None:
    from app.kernel.telemetry import FORBIDDEN_FIELDS

    carried = {
        f"{source.path}:{call.lineno} {keyword.arg}"
        for source in sources("app", "workers")
        for call in log_calls(source)
        for keyword in call.keywords
        if keyword.arg in FORBIDDEN_FIELDS
    }
    assert carried == set()


def _tells(handler: ast.ExceptHandler) -> bool:
    """Whether it raises again, or at least logs the exception with its place."""
    return any(
        isinstance(inner, ast.Raise) or (isinstance(inner, ast.Call) and ast.unparse(inner.func) == "origin")
        for inner in ast.walk(handler)
    )


def test_no_error_is_swallowed_whole() -> None:
    broad = [
        f"{source.path}:{node.lineno}"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        and not _tells(node)
    ]
    assert broad == []


def test_the_product_has_no_switch_for_its_own_tests() -> None:
    """Tests run what is deployed: no code asks whether it is being tested."""
    asking = [
        f"{source.path}: {word}"
        for source in sources("app", "workers")
        for word in ("pytest", "PYTEST_", "is_test", "testing_mode", "if simulator", "simulated")
        if word in source.text
    ]
    assert asking == []


@pytest.mark.parametrize("folder", ["app", "workers", "migrations", "simulator", "deploy", "docs", "tests"])
def test_no_file_names_the_machine_it_was_written_on(folder: str) -> None:
    # Put together here, so that this file does not name it either.
    home = re.compile("/" + r"(work|root|home)/[a-z]|/" + r"tmp/[a-z]")
    naming = [
        path.relative_to(ROOT).as_posix()
        for suffix in ("py", "md", "yaml", "toml", "ini", "csv")
        for path in (ROOT / folder).rglob(f"*.{suffix}")
        if home.search(path.read_text(errors="replace"))
    ]
    assert naming == []
