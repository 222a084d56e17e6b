"""Finds keys that are repeated in one object of a body, where it is unclear which value is meant.

Parsers silently take the last one, and a device could be registered under the wrong serial number. An exact
check of an order of 40 MB needs as much memory again, so a large body is counted first: if it has exactly the
commas or colons that the parsed value needs, no key is repeated.
"""

import json
from typing import Any, Final

from pydantic import BaseModel

SMALL: Final = 4 * 1024 * 1024
"""The largest body that is checked exactly without counting first."""
_BEFORE_COLON: Final = frozenset(b'" \t\r\n')


class Repeated(Exception):
    """The name of the key."""


def find(body: bytes, taken: BaseModel, commas: int | None = None) -> str | None:
    """Raises Repeated for the first key that appears twice. `body` is valid JSON, `taken` its parsed value.

    `commas`: the number in the body, if it was counted; each repeated key has its own comma.
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
    """Counts colons that may follow a name, some inside texts. Hashes have none and are skipped fast."""
    found, at = 0, body.find(b":")
    while at >= 0:
        found += body[at - 1] in _BEFORE_COLON
        at = body.find(b":", at + 1)
    return found


def _names(value: Any) -> int:
    """The number of names in all objects of the value."""
    if isinstance(value, BaseModel):
        names = value.model_fields_set
        return len(names) + sum(_names(getattr(value, name)) for name in names)
    return sum(map(_names, value)) if isinstance(value, list) else 0


def _commas(value: Any) -> int:
    """The number of commas in all objects and lists of the value."""
    if isinstance(value, BaseModel):
        names = value.model_fields_set
        return max(len(names) - 1, 0) + sum(_commas(getattr(value, name)) for name in names)
    if isinstance(value, list):
        return max(len(value) - 1, 0) + sum(map(_commas, value))
    return 0
