"""Made-up devices, for the demonstration, the tests and the benchmarks.

Every value follows from a seed, so that a failing run can be repeated. Every value looks made up: serial
numbers start with SYN, PKIDs with 9999, and makers are Microsoft's fictitious companies. Hashes are built
from what is published about the format and share no code with the reader that they test. Registrar accepts
these devices; Microsoft never does.
"""

import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256, shake_256
from pathlib import Path
from uuid import UUID

from app.domain.identity import IdentityKind

FULL_WINDOWS = 2
WINDOWS_PE = 1
CAPTURED_AT = datetime(2026, 1, 15, 9, 0, tzinfo=UTC)

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MODELS = (
    ("Contoso", "Contoso Book 14"),
    ("Contoso", "Contoso Desk 600 G5"),
    ("FABRIKAM", "20F7001SYN"),
    ("Northwind Inc.", "Traveller 5530"),
)
_KINDS = (IdentityKind.TUPLE, IdentityKind.PRODUCT_KEY, IdentityKind.HARDWARE_HASH)
_ETHERNET, _WIFI, _NVME = 14, 9, 17


@dataclass(frozen=True, slots=True)
class SyntheticDevice:
    """One device with all its values. `kind` says which of them a caller sends."""

    serial_number: str
    manufacturer: str
    model: str
    product_key: str
    hardware_hash: str | None
    kind: IdentityKind

    def fields(self) -> dict[str, str]:
        """The fields of an order's row that a caller fills in for this kind of identity."""
        if self.kind is IdentityKind.TUPLE:
            return {
                "serial_number": self.serial_number,
                "manufacturer": self.manufacturer,
                "model": self.model,
            }
        if self.kind is IdentityKind.PRODUCT_KEY:
            return {"product_key": self.product_key}
        return {"serial_number": self.serial_number, "hardware_hash": _hash_of(self)}


def devices(n: int, seed: int = 1, kind: IdentityKind | None = None) -> Iterator[SyntheticDevice]:
    """Makes `n` different devices. Without a kind, tuples, PKIDs and hashes take turns.

    The same seed gives the same devices, and the first ones do not depend on `n`. Different seeds below 1,000
    share no device in the first million.
    """
    for index in range(n):
        chosen = kind or _KINDS[index % len(_KINDS)]
        manufacturer, model = _MODELS[index // len(_KINDS) % len(_MODELS)]
        serial_number = f"SYN{seed:03d}{index:07d}"
        product_key = f"9999{(seed * 1_000_000 + index) % 1_000_000_000:09d}"
        text = None
        if chosen is IdentityKind.HARDWARE_HASH:
            chance = shake_256(f"{seed}/{index}".encode()).digest(16 + 5 + 256)
            text = hardware_hash(
                serial_number,
                manufacturer,
                model,
                product_key,
                uuid=UUID(bytes=chance[:16], version=4),
                mac=b"\x02" + chance[16:21],  # a locally administered address: no maker has it
                endorsement_key=bytes([chance[21] | 0x80]) + chance[22:276] + bytes([chance[276] | 1]),
                captured_at=CAPTURED_AT + timedelta(seconds=index),
            )
        yield SyntheticDevice(serial_number, manufacturer, model, product_key, text, chosen)


def hardware_hash(
    serial: str,
    manufacturer: str,
    model: str,
    product_key: str | None = None,
    *,
    uuid: UUID,
    mac: bytes,
    endorsement_key: bytes | None = None,
    captured_at: datetime = CAPTURED_AT,
    os_type: int = FULL_WINDOWS,
    tool_version: int = 9,
) -> str:
    """Builds a hash of 4,000 characters with the right structure.

    `mac` has 6 bytes and `endorsement_key` 256 (an RSA-2048 modulus). A device without a key has no TPM.
    Raises ValueError when the values do not fit into 3,000 bytes.
    """
    if len(mac) != 6 or (endorsement_key is not None and len(endorsement_key) != 256):
        raise ValueError("a MAC address has 6 bytes, an endorsement key 256")
    second_mac = mac[:5] + bytes([mac[5] ^ 1])
    seconds = int((captured_at - _EPOCH).total_seconds())
    build = (0, 10, 1742, 26100)  # minor, major, revision, build
    records = [
        _record(1, struct.pack("<8HIbBBB", *build, *build, seconds, 4, os_type, 9, tool_version)),
        _record(2, struct.pack("<6H", 9, 1, 4, 8, 1, 0)),
        _record(5, struct.pack("<QQHHB", 16, 32, 2, 1, 3)),
        _text(3, "GenuineSynthetic"),
        _text(4, "Synthetic(R) CPU @ 2.00GHz"),
        _record(6, struct.pack("<QHBB", 512, _NVME, 0, 1)),
        _record(7, f"{serial}-DISK|SYNTH NVME 512|".encode()),
        _network(_WIFI, mac),
        _network(_ETHERNET, second_mac),
        _record(10, bytes((10, 2, 0, 0, 0))),
    ]
    if endorsement_key is not None:
        version = "TPM-Version:2.0 -Level:0-Revision:1.38-VendorID:'SYN '-Firmware:65536.0"
        records += [_text(13, version), _record(25, endorsement_key)]
    method = 0x0103 if endorsement_key is None else 1
    device_id = sha256(uuid.bytes if endorsement_key is None else endorsement_key).digest()
    records += [
        _record(11, struct.pack("<IHI", 0, method, 32) + device_id),
        _record(12, uuid.bytes_le),
        _text(14, serial),
        _text(15, "Contoso BIOS"),
        _text(16, manufacturer),
        _text(17, model),
        _text(18, "SYN#001"),
        _text(19, "Synthetic Family"),
        _text(23, "1.0"),
    ]
    if product_key is not None:
        records.append(_text(24, product_key))
    body = b"".join(records)
    blob = b"OA" + struct.pack("<H", 4 + len(body)) + body
    blob += b"CS" + struct.pack("<H", 36) + sha256(blob).digest()
    if len(blob) > 3000:
        raise ValueError("the values do not fit into a hash")
    return b64encode(blob.ljust(3000, b"\0")).decode("ascii")


def _record(kind: int, payload: bytes) -> bytes:
    return struct.pack("<HH", kind, 4 + len(payload)) + payload


def _text(kind: int, text: str) -> bytes:
    return _record(kind, text.encode() + b"\0")


def _network(medium: int, mac: bytes) -> bytes:
    bus = "PCI\0".encode("utf-16-le")
    return _record(8, struct.pack("<I6sI", medium, mac, len(bus)) + bus)


def write_collector_csv(path: Path, devices: Iterable[SyntheticDevice], group_tag: str | None = None) -> None:
    """Writes the file that Get-WindowsAutopilotInfo writes: UTF-16LE with a BOM, CRLF, no quotes.

    So it does under Windows PowerShell 5.1, which leaves the Product ID column empty. Raises ValueError for a
    device without a hash, and for a value that the format cannot hold.
    """
    header = ["Device Serial Number", "Windows Product ID", "Hardware Hash"]
    tail = [] if group_tag is None else [group_tag]
    rows = [header + (["Group Tag"] if tail else [])]
    rows += ([device.serial_number, "", _hash_of(device), *tail] for device in devices)
    path.write_bytes(b"\xff\xfe" + _lines(rows).encode("utf-16-le"))


def write_partner_center_csv(path: Path, devices: Iterable[SyntheticDevice]) -> None:
    """Writes the file that Partner Center's template asks for: ANSI, CRLF, no quotes, one identity a row.

    Raises ValueError for a value that the format cannot hold.
    """
    header = [
        "Device serial number",
        "Windows product ID",
        "Hardware hash",
        "Manufacturer name",
        "Device model",
    ]
    rows = [header]
    for device in devices:
        match device.kind:
            case IdentityKind.TUPLE:
                rows.append([device.serial_number, "", "", device.manufacturer, device.model])
            case IdentityKind.PRODUCT_KEY:
                rows.append(["", device.product_key, "", "", ""])
            case IdentityKind.HARDWARE_HASH:
                rows.append(["", "", _hash_of(device), "", ""])
    path.write_bytes(_lines(rows).encode("cp1252"))


def _hash_of(device: SyntheticDevice) -> str:
    if device.hardware_hash is None:
        raise ValueError("this device was made without a hash; ask for devices of the kind hardware_hash")
    return device.hardware_hash


def _lines(rows: Iterable[list[str]]) -> str:
    lines = []
    for row in rows:
        if any(character in value for value in row for character in ',"\r\n'):
            raise ValueError("such files know no quotes, so no value may have a comma, quote or line break")
        lines.append(",".join(row) + "\r\n")
    return "".join(lines)
