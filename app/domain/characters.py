"""Characters that names and references must not contain, because they mislead readers.

They clear a terminal, break a log line, or reverse the order of letters so that one name looks like another:
control characters (C0, DEL and C1), line and paragraph separators, bidirectional marks, and unpaired
surrogates. Letters of all scripts, their joiners and emoji are allowed.
"""

import re
from typing import Final

UNSAFE_CLASS: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"
"""A character class for any regular expression dialect; no surrogates, which JSON text cannot contain."""
_UNSAFE: Final = re.compile(f"[{UNSAFE_CLASS}\ud800-\udfff]")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""Characters that PostgreSQL cannot store."""


def unsafe(text: str) -> str | None:
    """Names the first such character in a text; None if it has none."""
    return _said(text, _UNSAFE.search(text))


def unsafe_in_cell(text: str) -> str | None:
    """`unsafe` for text that is compared with cells of a file, which may contain line breaks and tabs."""
    found = (match for match in _UNSAFE.finditer(text) if match.group() not in "\t\r\n")
    return _said(text, next(found, None))


def unstorable(text: str) -> str | None:
    """The reason why no stored text can equal this search text; None if one can."""
    return _said(text, _UNSTORABLE.search(text))


def unseen(text: str) -> str | None:
    """Names the first invisible character of any kind: the strictest check. None if there is none."""
    if text.isprintable():
        return None
    return name(text, next(n for n, character in enumerate(text) if not character.isprintable()))


def _said(text: str, found: re.Match[str] | None) -> str | None:
    return None if found is None else name(text, found.start())


def name(text: str, place: int) -> str:
    """Describes an invisible character by its position and code point."""
    return f"Character {place + 1} is U+{ord(text[place]):04X}, which cannot be seen."


def escaped(text: str, keep: str = "") -> str:
    r"""The text with such characters as JSON escapes (`\u202e`): in JSON the meaning is the same.

    Characters in `keep` are not escaped.
    """
    return _UNSAFE.sub(lambda found: found.group() if found.group() in keep else _escape(found), text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"
