"""Shows and stores callers' values: shortened, printable, and never a product key or part of a hash.

A 25-character product key is a secret, and with a hash anyone can claim a device. Either may be in any column
of a file. So every caller's value that is shown, stored or logged goes through this module.
"""

import re
from typing import Final

LONGEST: Final = 64
"""The most characters of a value that are shown."""
NOT_SHOWN: Final = "(not shown)"
HOLDS_KEY_OR_HASH: Final = "It holds a 25-character product key or a piece of a hardware hash."

SHORTEST_SECRET: Final = 25
"""Characters of the shortest secret."""
# Any separators, because word processors replace "-" with other dashes.
_IN_GROUPS: Final = re.compile(
    r"(?<![A-Z0-9])[A-Z0-9]{5}(?:[\W_]{1,3}[A-Z0-9]{5}){4}(?![A-Z0-9])", re.IGNORECASE | re.ASCII
)
_IN_ONE: Final = re.compile(r"(?<![A-Z0-9])[A-Z0-9]{25}(?![A-Z0-9])", re.IGNORECASE | re.ASCII)
_OF_KEY_LETTERS: Final = re.compile(r"(?<![A-Z0-9])[BCDFGHJKMNPQRTVWXY2346789]{25}(?![A-Z0-9])")
"""Microsoft's keys use only these letters. Other runs of 25 characters may be something else."""
_WHOLE_KEY: Final = re.compile(r"[A-Z0-9]{5}(?:[\W_]{0,3}[A-Z0-9]{5}){4}", re.IGNORECASE | re.ASCII)
_WORD: Final = re.compile(r"(?=[A-Z]*[AEIOUY])[A-Z]{5}", re.IGNORECASE | re.ASCII)
_RUN: Final = re.compile(r"[A-Za-z0-9+/=]{48,}|[A-Za-z0-9_=-]{160,}")
"""Longer than any serial number: base64, or its form for URLs."""
_HEX: Final = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_MIXED: Final = re.compile(r"(?=.*[a-z])(?=.*[A-Z0-9+/])|(?=.*[A-Z])(?=.*[0-9+/])")


def is_license_key(text: str) -> bool:
    """Whether the text has the form of a 25-character product key, with any separators between the groups."""
    return _WHOLE_KEY.fullmatch(text.strip()) is not None


def holds_secret(text: str) -> bool:
    """Whether the text contains a product key or part of a hash, and so must not be stored."""
    if len(text) < SHORTEST_SECRET:
        return False
    return (
        any(_is_key(found.group()) for found in _IN_GROUPS.finditer(text))
        or _OF_KEY_LETTERS.search(text) is not None
        or holds_hash(text)
    )


def holds_hash(text: str) -> bool:
    """Whether the text contains a hash or part of one."""
    if len(text) < 48:
        return False
    return any(
        _MIXED.match(run) and not _HEX.fullmatch(run) for run in (f.group() for f in _RUN.finditer(text))
    )


def shown(value: str | None) -> str | None:
    """The value as it may be shown; None if it may contain a secret."""
    if value is None or holds_secret(value) or (len(value) >= SHORTEST_SECRET and _IN_ONE.search(value)):
        return None
    text = visible(value[:LONGEST])
    return f"{text}…" if len(value) > LONGEST else text


def quoted(value: str) -> str:
    """The value in quotation marks, for a sentence; a fixed text if it must not be shown."""
    text = shown(value)
    return NOT_SHOWN if text is None else f'"{text}"'


def kept(cell: str, field: str | None = None) -> str:
    """A cell of a file as it may be stored or returned: empty if it contains a secret.

    `field` is the field that its column is read as. A hash stays in the hash's own column.
    """
    if len(cell) < SHORTEST_SECRET or field == "hardware_hash":
        return cell
    if field == "product_key" and is_license_key(cell):
        return ""
    return "" if holds_secret(cell) else cell


def visible(text: str) -> str:
    """The text with U+FFFD in place of each invisible character."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _is_key(text: str) -> bool:
    """Whether five groups are a product key, and not digits only or words (vowels, no dashes)."""
    groups = re.findall(r"[A-Za-z0-9]{5}", text)
    if text[5:6].isspace() and all(map(_WORD.fullmatch, groups)):
        return False
    return not all(group.isdecimal() for group in groups)
