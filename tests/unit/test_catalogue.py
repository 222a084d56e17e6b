"""The catalogue of codes: every entry readable, every code that the program says in it, none idle."""

import ast
import re

import pytest

from app.domain import autopilot_errors, registration
from app.domain.catalogue import CATALOGUE, Advice, Category, Code, Finding, Severity, lookup
from app.domain.errors import Refusal
from app.domain.registration import RegistrationState, UpstreamRow, interpret
from app.domain.upstream import (
    ConnectionTrouble,
    NoRelationship,
    Said,
    Throttled,
    Unreachable,
    UpstreamFailure,
)
from tests.architecture.source import calls, literal, sources

ENTRIES = list(CATALOGUE.values())

FIRST_ARGUMENT = {"Finding", "lookup", "HashError", "ConnectionTrouble", "Refused"} | (
    {"Notice", "UnreadableFile"} | {kind.__name__ for kind in Refusal.__subclasses__()}
)
SECOND_ARGUMENT = {"Meaning", "FieldError", "problem"}
KEYWORDS = {"error_code", "failure_code", "code"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.code)
def test_an_entry_is_written_as_all_others_are(entry: Code) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", entry.code)
    assert entry.title == entry.title.strip()
    assert not entry.title.endswith((".", "!", ":"))
    assert entry.title[0].isupper()
    assert len(entry.title) <= 80
    assert entry.remedy == entry.remedy.strip()
    assert entry.remedy.endswith(".")
    assert entry.remedy[0].isupper() or entry.remedy[0] == "`"
    assert "  " not in entry.title + entry.remedy


def test_the_catalogue_is_keyed_by_its_codes_and_its_titles_differ() -> None:
    assert [entry.code for entry in ENTRIES] == list(CATALOGUE)
    assert len({entry.title for entry in ENTRIES}) == len(ENTRIES)


def test_a_warning_asks_for_nothing_and_an_error_of_a_call_is_never_a_warning() -> None:
    assert {e.advice for e in ENTRIES if e.severity is Severity.WARNING} == {Advice.NONE}
    warnings = {e.category for e in ENTRIES if e.severity is Severity.WARNING}
    assert warnings == set(Category) - {Category.REQUEST, Category.COMMAND}


def test_what_passes_by_itself_says_retry_and_what_does_not_says_who() -> None:
    assert {e.code for e in ENTRIES if e.advice is Advice.RETRY} == {
        "idempotency_in_progress",
        "large_bodies_waiting",
        "intake_interrupted",
        "upload_broken_off",
        "upstream_busy",
        "upstream_throttled",
        "upstream_unavailable",
        "head_too_slow",
        "body_too_slow",
        "too_many_connections",
        "rate_limited",
        "too_many_calls_at_once",
        "turn_did_not_come",
        "read_took_too_long",
        "not_ready",
        "internal",
    }
    assert {
        e.category for e in ENTRIES if e.category is Category.CONNECTION and e.advice is Advice.NEVER
    } == set()


def test_an_unknown_code_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        lookup("no_such_code")
    with pytest.raises(KeyError):
        _ = Finding("no_such_code", "serial_number", "").severity


def said_codes() -> dict[str, list[str]]:
    """Codes written in the source where a code is expected, with the places."""
    said: dict[str, list[str]] = {}
    for source in sources("app", "workers"):
        for name, call in calls(source.tree):
            arguments: list[ast.expr | None] = [k.value for k in call.keywords if k.arg in KEYWORDS]
            if name in FIRST_ARGUMENT and call.args:
                arguments.append(call.args[0])
            if name in SECOND_ARGUMENT and len(call.args) > 1:
                arguments.append(call.args[1])
            for code in map(literal, arguments):
                if code is not None:
                    said.setdefault(code, []).append(f"{source.path}:{call.lineno}")
    return said


def test_every_code_that_the_program_says_is_in_the_catalogue() -> None:
    said = said_codes()
    assert len(said) > 40
    assert {code: places for code, places in said.items() if code not in CATALOGUE} == {}


def test_no_code_is_idle() -> None:
    written = {
        text
        for source in sources("app", "workers")
        if source.path not in {"app/domain/catalogue.py", "app/domain/former_codes.py"}
        for text in (literal(node) for node in ast.walk(source.tree) if isinstance(node, ast.Constant))
    }
    assert {code for code in CATALOGUE if code not in written} == set()


def test_every_meaning_of_an_upstream_word_has_its_entry() -> None:
    for name, meaning in autopilot_errors.NAMES.items():
        assert meaning.code in CATALOGUE, name
        assert lookup(meaning.code).category is Category.UPSTREAM, name
    assert set(autopilot_errors.NUMBERS.values()) <= set(autopilot_errors.NAMES)
    assert set(CATALOGUE) >= registration.TRANSIENT_CODES


def test_a_word_nobody_knows_has_its_entry_too() -> None:
    meaning = interpret(
        UpstreamRow(done=True, code="999", name="ZtdSomethingNew"),
        autopilot_errors.meaning,
        was_uncertain=False,
    )
    assert meaning is not None
    assert meaning.state is RegistrationState.FAILED
    assert meaning.code in CATALOGUE


def test_what_counts_as_success_is_no_error_in_the_catalogue() -> None:
    for meaning in autopilot_errors.NAMES.values():
        assert meaning.code is not None
        is_success = meaning.state in registration.SUCCESS
        assert (lookup(meaning.code).severity is Severity.WARNING) == is_success, meaning


@pytest.mark.parametrize(
    "failure", [Throttled(None), Unreachable(), NoRelationship(), ConnectionTrouble("mfa_required")]
)
def test_every_failure_of_a_call_names_an_entry(failure: UpstreamFailure) -> None:
    assert lookup(failure.code).category is Category.CONNECTION


def test_every_kind_of_refusal_can_be_made_from_any_entry_and_carries_its_words() -> None:
    for kind in Refusal.__subclasses__():
        refusal = kind("not_found")
        assert (refusal.title, refusal.remedy) == (lookup("not_found").title, lookup("not_found").remedy)
        assert refusal.detail
        with pytest.raises(KeyError):
            kind("no_such_code")


def test_microsofts_words_are_kept_short_and_readable() -> None:
    assert str(Said()) == ""
    assert str(Said(403, "20002", "Access denied")) == "HTTP 403 20002 Access denied"
    assert len(str(Said(500, "x", "y" * 2_000))) == 500


FIXED = {"10,000", "4,000", "90 days"}
"""The most devices of an order, the length of a hash, and Microsoft's own time: nobody can set them."""


def test_no_remedy_names_the_figure_of_a_limit_that_can_be_set() -> None:
    """The detail names the limit that held. The remedy would name the default of a setting or of a quota."""
    figure = re.compile(r"\d{1,3}(?:,\d{3})+|\d+ (?:[kMG]B|bytes|rows|files|(?:second|minute|hour|day)s?)\b")
    found = {code: {*figure.findall(entry.remedy)} - FIXED for code, entry in CATALOGUE.items()}
    assert {code for code, figures in found.items() if figures} == set()
