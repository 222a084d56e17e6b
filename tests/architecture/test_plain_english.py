"""Plain English: the linter's rules hold everywhere, and each rule finds what it is for."""

import pytest

from tests.architecture import plain_english
from tests.architecture.plain_english import RULES, Rule, first_line, words


def test_every_text_keeps_the_rules() -> None:
    assert plain_english.faults() == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.advice)
@pytest.mark.parametrize("form", ['"""{}"""\n', "x = 1  # {}\n", 'x = "{}"\n'])
def test_a_rule_finds_its_fault(rule: Rule, form: str) -> None:
    assert [fault[1] for fault in words("module.py", form.format(rule.fault), (rule,))] == [1]
    assert len(words("page.md", rule.fault, (rule,))) == 1


def test_a_fault_is_found_across_lines_and_named_with_its_line() -> None:
    module = "x = 1\n# all of them wait, but\n# for one that is due\n"
    assert words("module.py", module) == [("module.py", 2, "'but # for': except, without")]


def test_names_in_code_are_no_words() -> None:
    assert words("module.py", "anew = mend(line)\n") == []


@pytest.mark.parametrize(
    ("line", "faults"),
    [
        ("Worker liveness: which worker owns a claim.", 0),
        ("Seals every stored secret again.", 0),
        ("What Redis raises while it is down.", 1),
        ("Can firmware say this?", 3),
        ("The worker process " + "x" * 100 + ".", 1),
        ("The worker process", 1),
    ],
)
def test_a_first_line_names_its_module(line: str, faults: int) -> None:
    assert len(first_line("module.py", f'"""{line}\n\nMore."""\n')) == faults
