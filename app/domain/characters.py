"""Characters that a name or a reference must not have, because they mislead its reader.

They clear a terminal, end a line of a log, or reverse the order of letters, so that a name looks like
another one: control characters (C0, DEL and C1), line and paragraph separators, marks of the writing
direction, and halves of surrogate pairs. Letters of all scripts, their joiners and emoji are allowed.
"""

import re
from typing import Final

UNSAFE_CLASS: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
"""For a regular expression of any dialect; without surrogates, which JSON's texts cannot have."""
_UNSAFE: Final = re.compile(f"[{UNSAFE_CLASS}\ud800-\udfff]")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""What PostgreSQL cannot keep."""


def unsafe(text: str) -> str | None:
    """What is wrong with a text that has such a character; None for one that has none."""
    return _said(text, _UNSAFE.search(text))


def unsafe_in_cell(text: str) -> str | None:
    """`unsafe` for what is compared with the cells of a file, which may have line breaks and tabs."""
    found = (match for match in _UNSAFE.finditer(text) if match.group() not in "\t\r\n")
    return _said(text, next(found, None))


def unstorable(text: str) -> str | None:
    """What is wrong with a text to search for that no stored text can equal."""
    return _said(text, _UNSTORABLE.search(text))


def unseen(text: str) -> str | None:
    """What is wrong with a text that has any invisible character: the strictest check."""
    if text.isprintable():
        return None
    return name(text, next(n for n, character in enumerate(text) if not character.isprintable()))


def _said(text: str, found: re.Match[str] | None) -> str | None:
    return None if found is None else name(text, found.start())


def name(text: str, place: int) -> str:
    """Names an invisible character by its place and code point."""
    return f"Character {place + 1} is U+{ord(text[place]):04X}, which cannot be seen."


def escaped(text: str, keep: str = "") -> str:
    r"""The text with such characters written as JSON writes them (`\u202e`): in JSON it means the same.

    Those of `keep` stay.
    """
    return _UNSAFE.sub(lambda found: found.group() if found.group() in keep else _escape(found), text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"
