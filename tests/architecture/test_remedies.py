"""Remedies name things that exist: routes with their method, commands with options, settings, files.

Read are the catalogue's remedies, every text in the program, the help of every command, the guides, and
the examples for people who deploy.
"""

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from app.cli import app as program
from app.domain.catalogue import CATALOGUE
from app.domain.scope import Scope
from app.kernel.environment import COMMAND_LINE_NAMES, FILE_ENDING, RETIRED_NAMES
from app.kernel.settings import SECRET_SETTINGS, Settings
from tests.architecture.source import ROOT, sources
from tests.support.document import openapi

GUIDES = [
    *sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("C*.md")]),
    ROOT / "deploy/env.example",
    ROOT / "deploy/compose.yaml",
    ROOT / "Dockerfile",
]
SETTINGS = {f"REGISTRAR_{name.upper()}" for name in Settings.model_fields} | COMMAND_LINE_NAMES
SETTINGS |= {f"REGISTRAR_{name.upper()}{FILE_ENDING}" for name in SECRET_SETTINGS}


# --- texts ------------------------------------------------------------------------------------------


def spoken(tree: ast.AST) -> Iterator[str]:
    """Every string of a module; what a template fills in is `X`."""
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in parts:
            yield "".join(
                str(value.value) if isinstance(value, ast.Constant) else "X" for value in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


@cache
def commands() -> dict[tuple[str, ...], Any]:
    """Every command and group by its words."""
    found: dict[tuple[str, ...], Any] = {}

    def walk(words: tuple[str, ...], command: Any) -> None:
        found[words] = command
        for name, below in getattr(command, "commands", {}).items():
            walk((*words, name), below)

    walk((), get_command(program))
    return found


@cache
def helps() -> dict[tuple[str, ...], str]:
    runner = CliRunner()
    shown = {}
    for words in commands():
        result = runner.invoke(program, [*words, "--help"], env={"COLUMNS": "400"})
        assert result.exit_code == 0, (words, result.output)
        shown[words] = result.output
    return shown


@cache
def texts() -> dict[str, str]:
    """By where they stand."""
    found = {f"remedy of {c.code}": f"{c.title}. {c.remedy}" for c in CATALOGUE.values()}
    found |= {f"registrar {' '.join(words)} --help": text for words, text in helps().items()}
    found |= {path.relative_to(ROOT).as_posix(): path.read_text() for path in GUIDES}
    for source in sources("app", "workers"):
        found[source.path] = "\n\n".join(spoken(source.tree))
    return found


def test_there_is_something_to_check() -> None:
    everything = "\n".join(texts().values())
    assert len(list(routes_in(everything))) > 40
    assert len(list(calls_in(everything))) > 40
    assert len(helps()) > 20


# --- routes -----------------------------------------------------------------------------------------


@cache
def routes() -> frozenset[tuple[str, str]]:
    """(method, path with `{}` for what varies) of the OpenAPI document."""
    paths = openapi()["paths"]
    return frozenset(
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, operations in paths.items()
        for method in operations
    )


def _plain(path: str) -> str:
    path = path.partition("?")[0].rstrip("/.,")
    path = re.sub(r"\{[^}]*\}|<[^>]*>|\$\{?\w+\}?|(?<=/)X(?=[/:]|$)|(?<=/)[A-Z]{2,}(?=[/:]|$)", "{}", path)
    return re.sub(r"\{\}+", "{}", path)


def routes_in(text: str) -> Iterator[tuple[str, str]]:
    """(method, path) as a text names them: `GET /v1/...`, or a call of curl."""
    for method, path in re.findall(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/{}<>$:.?=&-]+)", text):
        yield method, _plain(path)
    for line in re.findall(r"^.*\bcurl\b.*?(?:\\\n.*?)*$", text, re.MULTILINE):
        path = re.search(r"\$API(/[\w/{}$:.-]*)|https?://127\.0\.0\.1:8000(/[\w/{}$:.-]*)", line)
        if path is None:
            continue
        method = re.search(r"(?:-X|--request)[ =]?(\w+)", line)
        sends = re.search(r"\s(?:-d|--data\S*|-F|--form)\s", line)
        found = f"/v1{path[1]}" if path[1] else path[2]
        yield (method[1] if method else "POST" if sends else "GET"), _plain(found)


def test_every_route_that_is_named_exists_with_its_method() -> None:
    known = routes() | {("GET", path) for path in ("/metrics", "/docs", "/openapi.json", "/")}
    wrong = {
        (where, f"{method} {path}")
        for where, text in texts().items()
        for method, path in routes_in(text)
        if path.startswith(("/v1", "/healthz", "/readyz", "/metrics", "/docs", "/openapi"))
        and path != "/v1/{}"  # a template for any of them
        and (method, path) not in known
    }
    assert wrong == set()


def test_every_action_that_is_named_is_an_action_of_the_api() -> None:
    """`:retry-failed`, `consent:request`: how remedies name them."""
    paths = {path for method, path in routes() if method == "POST"} | set(Scope)
    wrong = {
        (where, name)
        for where, text in texts().items()
        for name in re.findall(r"`((?:consent|orders|batches|imports)?:[a-z][a-z-]+)`", text)
        if not any(path.endswith(name) for path in paths)
    }
    assert wrong == set()


# --- commands ---------------------------------------------------------------------------------------


def calls_in(text: str) -> Iterator[list[str]]:
    """The words after `registrar` of every call in backticks or on a line of its own."""
    found = re.findall(r"`registrar ([^`\n]+)`", text)
    found += re.findall(r"^\s*(?:\$ |# {2,})?(?:\S*/)?registrar (?!is\b)([a-z-].*)$", text, re.MULTILINE)
    for call in found:
        try:
            words = shlex.split(call.partition(" | ")[0].partition(" && ")[0], comments=True)
        except ValueError:
            continue  # a quotation that goes on: no call
        if words and words[0] not in {"ARGUMENTS", "..."}:
            yield words


def fault(words: Sequence[str]) -> str | None:
    """What is wrong with a call, as far as it can be seen without making it."""
    rest = list(words)
    if rest[:1] == ["--profile"]:
        rest = rest[2:]  # the one option that stands before the command
    path: tuple[str, ...] = ()
    while rest and hasattr(commands()[path], "commands") and not rest[0].startswith("-"):
        path = (*path, rest.pop(0))
        if path not in commands():
            return f"there is no command {' '.join(path)}"
    command = commands()[path]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name[:1] == "-"}
    places = [p for p in command.params if p.param_type_name == "argument"]
    given = 0
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if not word.startswith("-") or word == "-":
            given += word != "..."
        elif name in {"--help", "-h"}:
            continue
        elif name not in options:
            return f"{' '.join(path)} has no option {name}"
        elif not equals and not getattr(options[name], "is_flag", False) and rest:
            rest.pop(0)
    if all(place.nargs > 0 for place in places) and given > sum(place.nargs for place in places):
        return f"{' '.join(path)} takes fewer arguments"
    return None


def test_every_command_that_is_named_exists_with_its_options() -> None:
    wrong = {
        (where, " ".join(words), said)
        for where, text in texts().items()
        for words in calls_in(text)
        if (said := fault(words)) is not None
    }
    assert wrong == set()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("sumbit FILE", "there is no command sumbit"),
        ("portal upload BATCH", "there is no command portal upload"),
        ("consent CUSTOMER --url", "consent has no option --url"),
        ("order ONE TWO", "order takes fewer arguments"),
        ("submit FILE --customer contoso.com --watch", None),
        ("portal", None),
        ("--help", None),
    ],
)
def test_a_call_that_cannot_be_made_is_seen(call: str, words: str | None) -> None:
    assert fault(shlex.split(call)) == words


def test_every_command_shows_its_help() -> None:
    for words, text in helps().items():
        assert f"Usage: {' '.join(('registrar', *words))}" in text.replace("root", "registrar"), words


# --- settings and files -----------------------------------------------------------------------------


def test_every_setting_that_is_named_exists() -> None:
    wrong = {
        (where, name)
        for where, text in texts().items()
        for name in re.findall(r"REGISTRAR_[A-Z0-9_]*[A-Z0-9](?![\w.*])", text)
        if name not in {*SETTINGS, *RETIRED_NAMES, "REGISTRAR_X"} and not where.startswith("docs/adr/")
    }
    assert wrong == set()


def test_every_file_of_the_repository_that_is_named_exists() -> None:
    folders = "app|deploy|docs|migrations|simulator|tests|workers"
    wrong = {
        (where, name)
        for where, text in texts().items()
        for name in re.findall(rf"(?<![\w/.]) ?\b((?:{folders})/[\w./-]+\.(?:py|md|yaml|example|sh))\b", text)
        if not (ROOT / name).exists() and not where.startswith("docs/adr/") and "/X." not in name
    }
    assert wrong == set()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong = {
        (where, target)
        for where, text in texts().items()
        for target in re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z-]+)", text)
        if target not in targets
    }
    assert wrong == set()


# --- remedies do what they say ----------------------------------------------------------------------

LEADS_TO = {
    "consent_missing": ("POST", "/v1/customers/{}/consent:request"),
    "consent_is_looked_up": ("POST", "/v1/customers/{}/consent:recheck"),
    "unknown_customer": ("POST", "/v1/customers"),
    "unknown_connection": ("POST", "/v1/connections"),
    "unknown_platform": ("GET", "/v1/platforms"),
    "unknown_profile": ("POST", "/v1/vendor-profiles"),
    "credential_refused": ("POST", "/v1/connections/{}:check"),
    "result_not_readable": ("POST", "/v1/batches/{}:record-outcome"),
}
"""What fixes the trouble of a code: read by a person once, so that a remedy cannot name another route."""


@pytest.mark.parametrize("code", LEADS_TO)
def test_a_remedy_names_the_route_that_mends_it(code: str) -> None:
    assert LEADS_TO[code] in routes()
    method, path = LEADS_TO[code]
    remedy = CATALOGUE[code].remedy
    action = re.search(r"[a-z]*:[a-z-]+$", path)
    named = set(routes_in(remedy)) | {
        (method, path) for name in re.findall(r"`([a-z]*:[a-z-]+)`", remedy) if path.endswith(name)
    }
    assert named == {LEADS_TO[code]}, action


def test_the_link_for_a_customer_is_in_the_answer_of_the_route_that_the_remedy_names() -> None:
    document = openapi()
    _, path = LEADS_TO["consent_missing"]
    (operation,) = [
        operations["post"]
        for name, operations in document["paths"].items()
        if re.sub(r"\{\w+\}", "{}", name) == path
    ]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert "url" in document["components"]["schemas"][answer.rpartition("/")[2]]["properties"]
