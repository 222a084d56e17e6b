"""Guesses which field a column is from its values, for files whose columns have no usable names.

Hashes and PKIDs are unmistakable, and a maker's name reveals the tuple. Anything else counts only if no other
reading is possible, because a wrong guess registers nothing and blames the wrong device.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

_HASH: Final = re.compile(r"T0[E-H][A-Za-z0-9+/]{97,}={0,2}")
"""Base64 of `OA` and a length. 100 characters are enough, so that a truncated hash is found, too."""
_PKID: Final = re.compile(r"[0-9]{13}")
_SERIAL: Final = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9][A-Za-z0-9._/-]{3,39}")

MAKERS: Final = frozenset(
    (
        "acer", "apple", "asus", "asustek", "clevo", "dell", "durabook", "dynabook", "fujitsu", "getac",
        "gigabyte", "google", "hewlett", "hewlett-packard", "honor", "hp", "huawei", "ibm", "intel",
        "lenovo", "lg", "medion", "micro-star", "microsoft", "msi", "nec", "panasonic", "qemu", "razer",
        "samsung", "sony", "terra", "toshiba", "vaio", "vmware", "wortmann", "xiaomi", "zebra",
    )
)  # fmt: skip
"""First words of manufacturers as firmware reports them, in lower case."""

Cells = Sequence[str]


def is_hash(cell: str) -> bool:
    return cell.lstrip().startswith("T0") and _HASH.fullmatch(cell.strip()) is not None


def is_pkid(cell: str) -> bool:
    return _PKID.fullmatch(cell.strip()) is not None


def is_proof(cells: Cells) -> bool:
    """Whether a hash or a PKID is among the cells, so that this is a device and not a heading."""
    return any(is_hash(cell) or is_pkid(cell) for cell in cells)


def is_maker(cell: str) -> bool:
    words = re.split(r"[\s,.]+", cell.strip().lower(), maxsplit=1)
    return words[0] in MAKERS


def is_serial(cell: str) -> bool:
    return _SERIAL.fullmatch(cell.strip()) is not None


def share(rows: Sequence[Cells], at: int, test: Callable[[str], bool]) -> float:
    """The share of a column's filled cells that pass a test; 0 if none is filled."""
    filled = [row[at] for row in rows if at < len(row) and row[at].strip()]
    return sum(map(test, filled)) / len(filled) if filled else 0.0


def assign(rows: Sequence[Cells]) -> dict[int, str]:
    """Position -> field for rows without names. Empty if the content does not decide."""
    if not rows:
        return {}
    width = _width(rows)
    hash_at = _most(rows, width, is_hash)
    pkid_at = _most(rows, width, is_pkid)
    maker_at = _most(rows, width, is_maker, 0.8)
    if _is_template(rows, width, hash_at, pkid_at, maker_at):
        fields = {0: "serial_number", 1: "product_key", 2: "hardware_hash"}
        return fields | _tail(rows, width)
    fields = {
        at: field for at, field in ((hash_at, "hardware_hash"), (pkid_at, "product_key")) if at is not None
    }
    if maker_at is not None and maker_at + 1 < width and maker_at + 1 not in fields:
        fields |= {maker_at: "manufacturer", maker_at + 1: "model"}
    candidates = [at for at in range(width) if at not in fields and share(rows, at, is_serial) >= 0.8]
    if len(candidates) == 1:
        fields[candidates[0]] = "serial_number"
    whole = {"serial_number", "manufacturer", "model"} <= set(fields.values())
    return fields if whole or hash_at is not None or pkid_at is not None else {}


def _is_template(
    rows: Sequence[Cells], width: int, hash_at: int | None, pkid_at: int | None, maker_at: int | None
) -> bool:
    """Microsoft's order: serial number, PKID, hash, then the columns of one of the templates."""
    if hash_at not in (None, 2) or pkid_at not in (None, 1):
        return False
    if hash_at == 2:
        # The second column is empty in everything a collector writes.
        return pkid_at == 1 or not _is_filled(rows, 1)
    if pkid_at == 1:
        return width == 2 or not _is_filled(rows, 2)
    return maker_at == 3 and width >= 5 and not _is_filled(rows, 1) and not _is_filled(rows, 2)


def _tail(rows: Sequence[Cells], width: int) -> dict[int, str]:
    if width > 4 and share(rows, 4, lambda cell: "@" in cell) >= 0.5:
        return {3: "group_tag", 4: "assigned_user"}
    if width > 4 and share(rows, 3, is_maker) >= 0.5:
        return {3: "manufacturer", 4: "model"}
    if _is_filled(rows, 3) and not _is_filled(rows, 4) and share(rows, 3, is_maker) < 0.5:
        return {3: "group_tag"}
    return {}


def _is_filled(rows: Sequence[Cells], at: int) -> bool:
    return any(at < len(row) and row[at].strip() for row in rows)


def _most(rows: Sequence[Cells], width: int, test: Callable[[str], bool], least: float = 0.5) -> int | None:
    """The column in which the most cells pass a test, if at least the given share does."""
    shares = [(share(rows, at, test), -at) for at in range(width)]
    best, at = max(shares, default=(0.0, 0))
    return -at if best >= least else None


def _width(rows: Sequence[Cells]) -> int:
    """The greatest width that a tenth of the rows have, so that a stray comma does not make a column."""
    widths = Counter(len(row) for row in rows)
    return max(width for width, count in widths.items() if count * 10 >= len(rows))
