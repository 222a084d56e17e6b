"""The text of the page around the examples."""

from collections.abc import Iterator

from app.domain.catalogue import CATALOGUE, Category, Code
from tests.architecture.source import ROOT
from tests.messages import File, Said
from tests.messages.examples import EXAMPLES

PAGE = ROOT / "docs/messages.md"


def page() -> str:
    parts = [_HEAD]
    for category, (title, words) in _CATEGORIES.items():
        parts.append(f"## {title}\n\n{words}\n")
        parts += [
            _entry(code, EXAMPLES[code.code]) for code in CATALOGUE.values() if code.category is category
        ]
    return "\n".join(parts)


def _entry(code: Code, example: File | Said) -> str:
    return "\n".join(_entry_lines(code, example))


def _entry_lines(code: Code, example: File | Said) -> Iterator[str]:
    yield f"### `{code.code}`\n"
    yield f"{code.title}. ({code.severity.value}, {_ADVICE[code.advice.value]})\n"
    match example:
        case File(shown=shown):
            yield f"```\n{shown}\n```\n"
        case Said(words=words):
            yield f"> {words}\n"
    yield f"**What to do:** {code.remedy}\n"


_ADVICE = {
    "retry": "the same again later",
    "person": "somebody has to act first",
    "never": "send something else",
    "none": "nothing to do",
}
_HEAD = """# Messages

Every code that Registrar can report, with an example. `GET /v1/error-codes` serves the same list without the
examples. If the example is a file, `registrar validate` reports the code for it. Otherwise it is the detail
that comes with the code, or the call in question. Devices are made up. `T0H...` stands for the 4,000
characters of a hardware hash.

This page is made from the catalogue by `python -m tests.messages`; a test holds the two together.
"""
_CATEGORIES = {
    Category.REQUEST: (
        "Calls that are refused",
        "The call did nothing. They come as problem details of the API.",
    ),
    Category.FILE: ("Files", "About a file as a whole, or one of its columns."),
    Category.ROW: (
        "Rows",
        "About one device, before anything is sent. An error means that the device is not sent.",
    ),
    Category.UPSTREAM: ("Outcomes", "About one device or batch, as Microsoft or a portal decided it."),
    Category.CONNECTION: ("Connections and consent", "Reasons why work waits for Microsoft or a customer."),
    Category.SERVICE: ("The service", "About Registrar itself."),
    Category.COMMAND: (
        "The command line",
        "What `registrar` says with `--json` when a command cannot go on.",
    ),
}
