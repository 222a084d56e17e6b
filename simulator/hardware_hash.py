"""Decodes a hardware hash as far as the device service needs: its identity, and whether it is whole.

The value is base64 of `OA`, a length, records, and a checksum record with the SHA-256 of everything before
it. The container is checked strictly, the records loosely. Written for speed: benchmarks send many of them.
"""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from struct import Struct

_PAIR = Struct("<HH").unpack_from
_CHECKSUM_RECORD = b"\x43\x53\x24\x00"
_UUID, _SERIAL, _MAKER, _MODEL, _PKID = 12, 14, 16, 17, 24
_WANTED = frozenset((_UUID, _SERIAL, _MAKER, _MODEL, _PKID))


@dataclass(frozen=True, slots=True)
class Opened:
    """The identity inside a hash. `uuid` is the 16 bytes as stored, empty when absent."""

    serial: str
    manufacturer: str
    model: str
    product_key: str
    uuid: bytes


def _text(payload: bytes) -> str:
    return payload.split(b"\0", 1)[0].decode("utf-8", "replace").strip()


def open_hash(value: str) -> Opened | None:
    """The identity in the hash, or None when the service would answer InvalidZtdHardwareHash."""
    try:
        data = binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    if len(data) < 44 or data[:2] != b"OA":
        return None
    total = data[2] | data[3] << 8
    if total < 8 or total + 36 > len(data) or data[total : total + 4] != _CHECKSUM_RECORD:
        return None
    if hashlib.sha256(data[:total]).digest() != data[total + 4 : total + 36]:
        return None
    found: dict[int, bytes] = {}
    at = 4
    while at < total:
        kind, length = _PAIR(data, at)
        if length < 4 or at + length > total:
            return None
        if kind in _WANTED:
            found[kind] = data[at + 4 : at + length]
        at += length
    serial, manufacturer = _text(found.get(_SERIAL, b"")), _text(found.get(_MAKER, b""))
    if not serial or not manufacturer:
        return None
    return Opened(
        serial,
        manufacturer,
        _text(found.get(_MODEL, b"")),
        _text(found.get(_PKID, b"")),
        found.get(_UUID, b""),
    )
