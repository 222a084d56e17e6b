"""Finds tables with several devices in one line: the same columns, repeated for each device.

They are recognised only by their names, `Serial Number, Make, Model, Serial Number, Make, Model`, with or
without numbers. Each device needs its own complete identity; an extra serial number column is not a device.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

_TUPLE: Final = frozenset({"serial_number", "manufacturer", "model"})
_SENT: Final = _TUPLE | {"product_key", "hardware_hash", "group_tag"}
MOST: Final = 20
"""The most devices in one line."""
LONGEST: Final = 100
"""The most characters of a name."""

FieldOf = Callable[[str], str | None]


class Groups(NamedTuple):
    """`places`: the columns of each device, including those that all devices share."""

    places: tuple[tuple[int, ...], ...]
    fields: dict[int, str]


def without_number(name: str) -> str | None:
    """`Serial Number` for `Serial Number 2`; None for a name without a small number at its end."""
    found = _numbered(name)
    return None if found is None else found[0]


def _numbered(name: str) -> tuple[str, int] | None:
    if len(name) > LONGEST:
        return None
    whole = name.rstrip(" )")
    plain = whole.rstrip("0123456789")
    digits = whole[len(plain) :]
    plain = plain.rstrip(" ._#(-")
    if not 1 <= len(digits) <= 2 or not 1 <= int(digits) <= MOST or not plain:
        return None
    return plain, int(digits)


def find(header: Sequence[str], field_of: FieldOf, normalise: Callable[[str], str]) -> Groups | None:
    """None for a header with one device per line."""
    keys = [normalise(name) for name in header if name.strip()]
    numbered = [_numbered(name) for name in header]
    if len(set(keys)) == len(keys) and not any(numbered):
        fields = [field_of(name) for name in header]
        if len(fields) - fields.count(None) == len(set(fields) - {None}):
            return None
    return _by_number(header, numbered, field_of) or _by_order(header, field_of, normalise)


def _by_order(header: Sequence[str], field_of: FieldOf, normalise: Callable[[str], str]) -> Groups | None:
    fields = {at: field for at, name in enumerate(header) if (field := field_of(name))}
    places: dict[str, list[int]] = {}
    for at, name in enumerate(header):
        if name.strip():
            places.setdefault(fields.get(at) or f"={normalise(name)}", []).append(at)
    return _groups(places, fields)


def _by_number(
    header: Sequence[str], numbered: Sequence[tuple[str, int] | None], field_of: FieldOf
) -> Groups | None:
    """Finds `Serial 1, Make 1, Model 1, Serial 2, ...`, in any order. The first may lack its number."""
    fields: dict[int, str] = {}
    places: dict[str, list[tuple[int, int]]] = {}
    for at, name in enumerate(header):
        if not name.strip():
            continue
        found = numbered[at]
        field, number = field_of(name), 0
        if field is None and found is not None:
            field, number = field_of(found[0]), found[1]
        if field is not None:
            fields[at] = field
        places.setdefault(field or f"={at}", []).append((number, at))
    ordered = {key: [at for _, at in sorted(found)] for key, found in places.items()}
    unique = all(len({number for number, _ in found}) == len(found) for found in places.values())
    return _groups(ordered, fields, in_order=False) if unique else None


def _groups(places: dict[str, list[int]], fields: dict[int, str], *, in_order: bool = True) -> Groups | None:
    repeated = {key: found for key, found in places.items() if len(found) > 1}
    own = {key for key in repeated if key in _SENT}
    counts = {len(repeated[key]) for key in own}
    if len(own) < 2 or len(counts) != 1 or not (own >= _TUPLE or own & {"hardware_hash", "product_key"}):
        return None
    count = counts.pop()
    devices = [[repeated[key][at] for key in own] for at in range(count)]
    if in_order and any(max(one) > min(next_) for one, next_ in pairwise(devices)):
        return None
    # Each device's columns in the order of the first one's.
    ordered = sorted(places.values(), key=lambda found: found[0])
    return Groups(
        tuple(
            tuple(found[at] if len(found) == count else found[0] for found in ordered) for at in range(count)
        ),
        fields,
    )
