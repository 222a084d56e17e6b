"""The written guides: what they name exists, and what they link to is there."""

import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.domain.catalogue import CATALOGUE, Advice, Category
from app.domain.event import EVENTS, EventType
from app.kernel.environment import COMMAND_LINE_NAMES, FILE_ENDING, PLATFORM_PREFIX, RETIRED_NAMES
from app.kernel.settings import SECRET_SETTINGS, Settings
from tests.architecture.source import ROOT, calls, literal, sources
from tests.support.document import openapi

FRONT = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
DOCUMENTS = sorted([*FRONT, *(ROOT / "docs").rglob("*.md")])
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]


def heading_anchors(path: Path) -> set[str]:
    """As the usual viewers make them of headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(path: Path) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not target.startswith(("http://", "https://")):
            yield target


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_leads_somewhere(path: Path) -> None:
    lost = []
    for target in links(path):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in heading_anchors(file)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_file_that_is_named_exists(path: Path) -> None:
    named = set(
        re.findall(r"`((?:app|workers|tests|migrations|simulator|deploy)/[\w./-]*)`", path.read_text())
    )
    lost = {name for name in named if not (ROOT / name).exists()} - {"deploy/.env"}
    assert lost == set()


def test_every_name_in_the_recipes_exists() -> None:
    recipes = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`([A-Z][A-Z_]{4,})`", recipes))
    written = "\n".join(path.read_text() for path in [*ROOT.glob("app/**/*.py"), *ROOT.glob("tests/**/*.py")])
    assert len(named) > 6
    assert {name for name in named if name not in written} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    known = {f"REGISTRAR_{name.upper()}" for name in Settings.model_fields}
    known |= COMMAND_LINE_NAMES | {PLATFORM_PREFIX.rstrip("_")}
    known |= RETIRED_NAMES if path.name == "CHANGELOG.md" else frozenset()
    known |= {f"REGISTRAR_{name.upper()}{FILE_ENDING}" for name in SECRET_SETTINGS}
    named = set(re.findall(r"REGISTRAR_[A-Z0-9_]*[A-Z0-9]", path.read_text()))
    assert named - known == set()


@cache
def routes() -> frozenset[str]:
    """Paths of the API with `{}` for what varies."""
    return frozenset(re.sub(r"\{\w+\}", "{}", path) for path in openapi()["paths"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_path_of_the_api_that_is_named_exists(path: Path) -> None:
    text = re.sub(r"<[\w ]+>", "{}", path.read_text())
    named = re.findall(r"(?:GET|POST|PATCH|DELETE) (/v1/[\w/{}:-]+)", text)
    named += ["/v1" + rest for rest in re.findall(r"\$API(/[\w/${}:-]+?)[\"? ]", text)]
    plain = {re.sub(r"\{\w+\}|\$\w+", "{}", name).rstrip("/") for name in named}
    assert plain - routes() == set()


def test_the_guides_name_enough_of_the_api_for_the_check_above_to_mean_something() -> None:
    named = {name for path in GUIDES for name in re.findall(r"/v1/[a-z-]+", path.read_text())}
    assert len(named) >= 6


def test_log_events_that_the_operator_is_told_of_are_written_somewhere() -> None:
    text = (ROOT / "docs/operate.md").read_text()
    table = text[text.index("These events need action") : text.index("### An order does not move")]
    cells = " ".join(re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE))
    # The last paragraph names those that need nothing.
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", cells + table[table.rindex("\n`") :]))
    written = {
        literal(call.args[0])
        for source in sources("app", "workers")
        for name, call in calls(source.tree)
        if name in {"info", "warning", "error"} and call.args
    }
    assert len(named) > 8
    assert named - written == set()


def test_every_log_event_that_is_an_error_is_explained_to_the_operator() -> None:
    text = (ROOT / "docs/operate.md").read_text()
    errors = {
        literal(call.args[0])
        for source in sources("app", "workers")
        for name, call in calls(source.tree)
        if name == "error" and call.args and literal(call.args[0])
    }
    assert {event for event in errors if f"`{event}`" not in text} == set()


def test_codes_of_connection_trouble_are_all_explained_to_the_operator() -> None:
    text = (ROOT / "docs/operate.md").read_text()
    trouble = text[text.index("### Connection trouble") : text.index("### `unknown`")]
    named = set(re.findall(r"^\| `(\w+)` \|", trouble, re.MULTILINE))
    of_consent = {"consent_missing", "consent_revoked"}
    assert (
        named
        == {
            entry.code
            for entry in CATALOGUE.values()
            if entry.category is Category.CONNECTION and entry.advice is Advice.PERSON
        }
        - of_consent
    )


def names_in(schema: Any) -> set[str]:
    """The fields of a JSON schema at every depth."""
    if isinstance(schema, list):
        return set().union(*map(names_in, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", ())).union(*map(names_in, schema.values()))


def test_the_guide_for_developers_has_the_table_of_events() -> None:
    text = (ROOT / "docs/integrate.md").read_text()
    rows = re.findall(r"^\| (`[a-z]+\.[a-z_]+`.*) \|$", text, re.MULTILINE)
    shown = [(types, cells) for types, *cells in (row.split(" | ") for row in rows)]
    assert sorted(type for types, _ in shown for type in types.split(", ")) == sorted(
        f"`{type.value}`" for type in EventType
    )
    known = set().union(*(names_in(TypeAdapter(entry.payload).json_schema()) for entry in EVENTS.values()))
    for types, (scope, since, data) in shown:
        for type in types.split(", "):
            entry = EVENTS[EventType(type.strip("`"))]
            assert (scope, since) == (f"`{entry.scope.value}`", entry.since), type
            told = {field.name for field in fields(entry.payload)}
            if "order_id" in told:
                told.add("sequence")
            named = set(re.findall(r"`(\w+)`", data))
            assert told <= named, type
            assert named & known <= told | names_in(TypeAdapter(entry.payload).json_schema()), type


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    pages = sorted(path.name for path in (ROOT / "docs/adr").glob("0*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    assert set(links(ROOT / "docs/adr/README.md")) >= set(pages)


@pytest.mark.parametrize("path", sorted((ROOT / "docs/adr").glob("0*.md")), ids=lambda path: path.stem)
def test_a_decision_has_its_four_parts_and_fits_a_page(path: Path) -> None:
    text = path.read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [h for h in headings if h != "Measured"] == [
        "Context",
        "Decision",
        "Consequences",
        "Options that lost",
    ]
    assert text.startswith(f"# {path.stem[:4]} ")
    assert text.count("\n") <= 75
