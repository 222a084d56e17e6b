"""Made-up devices for the sandbox: well-formed hardware hashes of machines that do not exist.

The same serial number always gives the same hash. Such hashes are whole by every public rule, and the real
service would still refuse or, worse, accept them: they are for this program only.
"""

from __future__ import annotations

import base64
import hashlib
import struct

SIZE = 3000
"""Bytes of every hash seen in the field; 4,000 characters of base64."""


def _record(kind: int, payload: bytes) -> bytes:
    return struct.pack("<HH", kind, len(payload) + 4) + payload


def _text(kind: int, text: str) -> bytes:
    return _record(kind, text.encode() + b"\0")


def hardware_hash(
    serial: str,
    manufacturer: str = "Contoso",
    model: str = "Sample 14",
    product_key: str = "",
    uuid: bytes | None = None,
) -> str:
    """A hash with this identity. Without a uuid (16 bytes), one is derived from the other values."""
    identity = "\0".join((manufacturer, model, serial)).encode()
    if uuid is None:
        uuid = hashlib.md5(identity, usedforsecurity=False).digest()
    endorsement = bytearray(hashlib.shake_256(identity).digest(256))
    endorsement[0] |= 0x80
    endorsement[-1] |= 1
    offline_id = struct.pack("<IHI", 0, 1, 32) + hashlib.sha256(endorsement).digest()
    header = struct.pack("<8H", 0, 10, 0, 22621, 0, 10, 0, 22631) + struct.pack(
        "<IbBBB", 0x2F000000, 4, 2, 9, 8
    )
    records = [
        _record(1, header),
        _text(13, "TPM-Version:2.0 -Level:0-Revision:1.38-VendorID:'SIM '-Firmware:1.0"),
        _record(25, bytes(endorsement)),
        _record(11, offline_id),
        _record(12, uuid),
        _text(14, serial),
        _text(15, "Contoso Firmware"),
        _text(16, manufacturer),
        _text(17, model),
    ]
    if product_key:
        records.append(_text(24, product_key))
    body = b"".join(records)
    checked = b"OA" + struct.pack("<H", len(body) + 4) + body
    data = checked + struct.pack("<HH", 0x5343, 36) + hashlib.sha256(checked).digest()
    return base64.b64encode(data.ljust(SIZE, b"\0")).decode()


def sample_devices(count: int, prefix: str) -> list[dict[str, str]]:
    """Serial numbers with the prefix, counted from 1, each with the hash, tuple and PKID of one device."""
    devices = []
    for number in range(1, count + 1):
        serial, key = f"{prefix}-{number:06d}", f"{number:013d}"
        devices.append(
            {
                "serialNumber": serial,
                "oemManufacturerName": "Contoso",
                "modelName": "Sample 14",
                "productKey": key,
                "hardwareHash": hardware_hash(serial, product_key=key),
            }
        )
    return devices
