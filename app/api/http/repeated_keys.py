"""Repeated keys in one object of a body: nobody can tell which value is meant.

Parsers take the last one without a word, and a device would be registered under a serial number that its
sender may not have meant. The exact look at an order of 40 MB costs as much memory again, so a large body is
first counted: as many commas or colons as what was made of it takes mean that none stood twice.
"""

import json
from typing import Any, Final

from pydantic import BaseModel

SMALL: Final = 4 * 1024 * 1024
"""Bytes up to which a body is looked at exactly at once."""
_BEFORE_COLON: Final = frozenset(b'" \t\r\n')


class Repeated(Exception):
    """The name of the key."""


def find(body: bytes, taken: BaseModel, commas: int | None = None) -> str | None:
    """The first key that appears twice. `body` is valid JSON, of which `taken` was made.

    `commas`: how many the body has, where that was counted; each repeated key has a comma of its own.
    """
    if len(body) > SMALL and (commas == _commas(taken) or _colons(body) == _names(taken)):
        return None
    try:
        json.loads(body, object_pairs_hook=_look)
    except Repeated as repeated:
        return str(repeated)
    return None


def _look(pairs: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise Repeated(name)
        names.add(name)


def _colons(body: bytes) -> int:
    """Those that may follow a name; some may be inside texts. Hashes have none, and are passed over fast."""
    found, at = 0, body.find(b":")
    while at >= 0:
        found += body[at - 1] in _BEFORE_COLON
        at = body.find(b":", at + 1)
    return found


def _names(value: Any) -> int:
    """Names of all objects that the value was made of."""
    if isinstance(value, BaseModel):
        names = value.model_fields_set
        return len(names) + sum(_names(getattr(value, name)) for name in names)
    return sum(map(_names, value)) if isinstance(value, list) else 0


def _commas(value: Any) -> int:
    """Those that the objects and lists take of which the value was made."""
    if isinstance(value, BaseModel):
        names = value.model_fields_set
        return max(len(names) - 1, 0) + sum(_commas(getattr(value, name)) for name in names)
    if isinstance(value, list):
        return max(len(value) - 1, 0) + sum(map(_commas, value))
    return 0
