"""Reads the record list inside a hardware hash, and checks that records follow each other without gaps.

The same tool on the same model writes the same records at the same places, and a large order has few models.
So a list is walked record by record only until its layout is known. After that, one comparison of all heads
recognises the layout, in an eighth of the time. Lists with unknown layouts are walked.
"""

import struct
from typing import Final, NamedTuple

HEAD: Final = struct.Struct("<HH")
"""Kind, and length with this head; little-endian."""
FIRST: Final = 4
"""Offset of the first record."""
END: Final = b"CS\x24\x00"
"""The head of what follows the list: the checksum."""

_KEPT: Final = 256
"""How many list lengths have their layouts remembered. Beyond that, all are forgotten and learned again."""
_SAME_LENGTH: Final = 4
"""Layouts remembered per length, of about 1 kB each; lists with further layouts are walked."""


class _Layout(NamedTuple):
    heads: struct.Struct
    """Every record's head, and the checksum's."""
    expected: tuple[int, ...]
    kinds: tuple[int, ...]
    payloads: struct.Struct


_known: Final[dict[int, list[_Layout]]] = {}
"""By the length of the list. Contains nothing of a device except the lengths of its records."""


def read(blob: bytes, total: int, wanted: frozenset[int]) -> dict[int, bytes] | int:
    """The payloads of the wanted kinds (the first record of each), or the offset at which the list breaks.

    `total` is the end of the list; the blob must have at least a head after it. `wanted` is always the same.
    """
    for layout in _known.get(total, ()):
        if layout.heads.unpack_from(blob) == layout.expected:
            return dict(zip(layout.kinds, layout.payloads.unpack_from(blob), strict=True))
    places: list[tuple[int, int, int]] = []
    records: dict[int, bytes] = {}
    at = FIRST
    while at < total:
        kind, length = HEAD.unpack_from(blob, at)
        if length < HEAD.size:
            return at
        places.append((kind, at, length))
        if kind in wanted and kind not in records:
            records[kind] = blob[at + HEAD.size : at + length]
        at += length
    if at != total or blob[total : total + HEAD.size] != END:
        return at
    if len(_known) >= _KEPT:
        _known.clear()
    same = _known.setdefault(total, [])
    if len(same) < _SAME_LENGTH:
        same.append(_layout(blob, places, wanted))
    return records


def _layout(blob: bytes, places: list[tuple[int, int, int]], wanted: frozenset[int]) -> _Layout:
    heads, payloads, kinds, after = f"<{FIRST}x", "<", [], 0
    for kind, at, length in places:
        size = length - HEAD.size
        heads += f"I{size}x"
        if kind in wanted and kind not in kinds:
            kinds.append(kind)
            payloads += f"{at + HEAD.size - after}x{size}s"
            after = at + length
    shape = struct.Struct(heads + "I")
    return _Layout(shape, shape.unpack_from(blob), tuple(kinds), struct.Struct(payloads))
