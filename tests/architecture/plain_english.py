"""The linter for plain English: words and first lines that make a native reader stumble.

`make lint` runs it as `python -m tests.architecture.plain_english`. It reads docstrings, comments and other
strings of Python, and Markdown, YAML and deploy/env.example as a whole. Every rule has found real faults
here; a rule that forces silly sentences should be removed rather than obeyed.
"""

import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".py", ".md", ".yaml", ".yml", ".example")
SKIPPED = {".venv", ".git", ".ci", "node_modules", "samples", "build"}
LONGEST_FIRST_LINE = 110


@dataclass(frozen=True)
class Rule:
    """Words to avoid, what to write instead, and a fault that the rule has found."""

    pattern: str
    advice: str
    fault: str

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The pattern with blanks that match line breaks, also those between two comment lines."""
        case = re.NOFLAG if self.pattern != self.pattern.lower() else re.IGNORECASE
        return re.compile(self.pattern.replace(" ", r"[\s#>]+"), re.MULTILINE | case)

    def may_be_in(self, text: str, lower: str) -> bool:
        """Whether to look closer: finds more than the rule, but ten times as fast."""
        if self.expression.flags & re.IGNORECASE:
            return bool(re.search(self.expression.pattern.removeprefix(r"\b"), lower, re.MULTILINE))
        return bool(self.expression.search(text))


RULES = (
    Rule(r"\bcan not\b", "cannot", "the balance can not be read"),
    Rule(r"\ba person (must|has to)\b", "say what to do", "a trouble that a person has to mend"),
    Rule(r"\bwhoever\b", "name who: the caller, the worker, anybody who", "by whoever is alive to do so"),
    Rule(r"\bnobody has thought of\b", "unexpected", "fails in a way nobody has thought of"),
    Rule(r"\bfor ever\b", "forever", "Redis would be gone for ever"),
    Rule(r"\bin vain\b", "without success, for nothing", "the wake-up must not come in vain"),
    Rule(r"\bnow and then\b", "occasionally, sometimes", "fails now and then as receivers do"),
    Rule(r"\bif need be\b", "if needed", "waits a moment if need be"),
    Rule(r"\banew\b", "again, or a verb with re-", "seals every stored secret anew"),
    Rule(r"\bof before\b", "previous, earlier", "the secrets of before sign as well"),
    Rule(r"\b(?:the|this|that) very\b", "the same", "with the very same id"),
    Rule(r"; how many\.", "returns how many", "deletes finished imports; how many."),
    Rule(r"(^|[.:;\"]\s*)Else\b|[:;] else (?!:)", "otherwise", "only for some: else it is refused"),
    Rule(
        r"\b(Redis|Valkey|PostgreSQL|database)( server)? (is|was|were|would be|being) away\b",
        "down, unavailable",
        "while the database is away",
    ),
    Rule(r"\b(but|save) for\b", "except, without", "all rows, but for one"),
    Rule(r"\bby chance\b", "at random", "rows come and go by chance"),
    Rule(r"\btake home\b", "download", "files to take home"),
    Rule(r"\bin good order\b", "cleanly, or name the order", "stopped in good order"),
    Rule(r"\bbelongs? into\b", "belongs in", "it belongs into no log"),
    Rule(r"\bmend(s|ed|ing)?\b", "fix, correct, repair", "a trouble that somebody mends"),
    Rule(
        r"\bstands? (in(?! for\b)|once|twice|there|beside|behind|where|on)\b",
        "is, appears, is written",
        "a name that stands twice in an object",
    ),
    Rule(r"\bsigns? of life\b", "heartbeat", "a worker's sign of life"),
    Rule(r"\bbe it\b", "either ... or", "be it now or later"),
    Rule(r"\bby (its|their) nature\b", "say what it does", "one that goes on for minutes by its nature"),
    Rule(r"\bin one go\b", "at once, in one call", "bytes that are scanned in one go"),
    Rule(r"\bover and over\b", "repeatedly", "so that no call waits for it over and over"),
    Rule(r"\bsees? to (it|paths)\b", "handles, or name it", "whose routes see to it themselves"),
    Rule(r"\bthe error stream\b", "stderr", "words for a person on the error stream"),
    Rule(r"\bor nobody would\b", "or nothing would", "expired tokens, or nobody would ask for new ones"),
    Rule(r"\bit is us who\b", "we", "unless it is us who do not read"),
)

QUESTION_WORDS = re.compile(r"(What|Who|Whom|Whose|Whether|How|Why|Where|Which|When|Can|Of|From)\b")
DOCSTRING = re.compile(r'"""(.*?)(?:"""|$)', re.MULTILINE)
NAME_IT = "Name the thing or say what it does"

Fault = tuple[str, int, str]
"""Path, line, and what is wrong."""


def _prose(text: str) -> Iterator[tuple[int, str]]:
    """Comments and strings of a module, each with its line. Comments on lines in a row are one text."""
    comment: list[str] = []
    begin = last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if comment and token.start[0] != last + 1:
                yield begin, "\n".join(comment)
                comment = []
            if not comment:
                begin = token.start[0]
            comment.append(token.string)
            last = token.start[0]
        elif token.type == tokenize.STRING:
            yield token.start[0], token.string
    if comment:
        yield begin, "\n".join(comment)


def words(path: str, text: str, rules: tuple[Rule, ...] = RULES) -> list[Fault]:
    """Faults of one file's words. A module is taken apart only if some rule finds anything in it at all."""
    found = []
    lower = text.lower()
    likely = [rule for rule in rules if rule.may_be_in(text, lower)]
    for begin, prose in _prose(text) if likely and path.endswith(".py") else [(1, text)]:
        for rule in likely:
            for match in rule.expression.finditer(prose):
                line = begin + prose.count("\n", 0, match.start())
                said = " ".join(match[0].split())
                found.append((path, line, f"{said!r}: {rule.advice}"))
    return found


def first_line(path: str, text: str) -> list[Fault]:
    """Faults of a module's first line: it is one sentence, short, and no riddle."""
    docstring = DOCSTRING.match(text)
    if not docstring:
        return []
    line = docstring[1]
    faults = []
    if len(line) > LONGEST_FIRST_LINE:
        faults.append(f"the first line has more than {LONGEST_FIRST_LINE} characters")
    if not line.endswith("."):
        faults.append("the first line does not end with a period")
    if "?" in line:
        faults.append("the first line asks a question")
    if QUESTION_WORDS.match(line):
        faults.append(f"the first line begins with {line.split()[0]!r}. {NAME_IT}")
    return [(path, 1, fault) for fault in faults]


def _files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - SKIPPED)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(SUFFIXES))


def faults() -> list[Fault]:
    """All faults of the repository."""
    found = []
    for file in _files():
        path = file.relative_to(ROOT).as_posix()
        if "plain_english" in path:
            continue
        text = file.read_text()
        found += words(path, text)
        if path.endswith(".py"):
            found += first_line(path, text)
    return found


def main() -> int:
    found = faults()
    sys.stdout.writelines(f"{path}:{line}: {fault}\n" for path, line, fault in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
