"""The "4K hardware hash": decodes it, checks that it is intact, and names the kind of damage.

A hash is base64 of a little-endian record list followed by a SHA-256, zero-filled to 3,000 bytes. Microsoft
has not published the layout. So the container is read strictly (any changed character is found) and the
records tolerantly (unknown ones are normal). The checksum has no key: it detects damage, but does not prove
where a hash comes from. Imports, orders and the command line all decode hashes here; a large order has 10,000
of them.
"""

import re
import struct
from base64 import b64decode, b64encode
from binascii import a2b_base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from app.domain import record_list
from app.domain.catalogue import Finding
from app.domain.masking import quoted
from app.domain.placeholders import is_filler_serial

TEXT_LENGTH: Final = 4000
BLOB_LENGTH: Final = 3000
MAX_TEXT_LENGTH: Final = 16_384
"""Longer input is refused unread. Our limit: four times the true length, with room for wrapped lines."""

_CHECKSUM_LENGTH: Final = 36
_OBSOLETE_LENGTH: Final = 128  # bytes; the format of Windows 10 1703 and older
_ZEROS: Final = bytes(MAX_TEXT_LENGTH)
_FILLING: Final = "A" * TEXT_LENGTH
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_WINPE: Final = 1
_TEXT_FORBIDDEN = re.compile(r"[^A-Za-z0-9+/]")
_TAIL_OF_HEADER = struct.Struct("<16xIbBBB")  # clock, UTC offset, OS type, architecture, tool version
_UUID_AS_STORED = struct.Struct("<IHH8s")
_UUID_AS_SHOWN = struct.Struct(">IHH8s")

# The records that identify a device or its capture. Only `explain` reads the others.
_HEADER, _UUID, _TPM, _SERIAL, _MAKER, _MODEL, _PRODUCT_KEY, _EK = 1, 12, 13, 14, 16, 17, 24, 25
_WANTED: Final = frozenset({_HEADER, _UUID, _TPM, _SERIAL, _MAKER, _MODEL, _PRODUCT_KEY, _EK})


class HashError(ValueError):
    """The text is not a usable hash. `code` is a catalogue code; `detail` never contains the hash."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class HardwareHash(NamedTuple):
    """An intact hash. `data` has no zero fill; texts are stripped, and None if empty or absent."""

    data: bytes
    repaired: bool
    """The given text was not the canonical one; `encode(data)` is."""
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    """The PKID, normally 13 digits; not a secret, unlike the 25-character key it belongs to."""
    smbios_uuid: str | None
    """As Windows shows it, in lower case. Firmware without one repeats a filler such as all zeros."""
    ek_digest: bytes | None
    """SHA-256 of the TPM's public endorsement key."""
    has_tpm: bool
    os_type: int | None
    """2 full Windows, 1 Windows PE."""
    tool_version: int | None
    captured: int | None
    """Seconds since 2000, UTC, by the device's own clock, which is often hours off."""

    @property
    def captured_at(self) -> datetime | None:
        return None if self.captured is None else _EPOCH + timedelta(seconds=self.captured)

    def __repr__(self) -> str:
        return f"HardwareHash({len(self.data)} bytes)"  # the values must not be logged


def decode(text: str | bytes) -> HardwareHash:
    """Decodes a hash. Blanks, line breaks and zero fill that is too short or too long are repaired without
    loss.

    Raises HashError, and no other exception, for any other input.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    try:
        blob, held, usual = _bytes_of(text)
        total, records = _walk(blob, held)
    except HashError as error:
        blob, held, total, records = _with_plus_for_blanks(text, error)
        usual = False
    data = blob[: total + _CHECKSUM_LENGTH]
    get = records.get
    header, ek, uuid = get(_HEADER), get(_EK), get(_UUID)
    captured = os_type = tool_version = None
    if header is not None and len(header) >= _TAIL_OF_HEADER.size:
        captured, _, os_type, _, tool_version = _TAIL_OF_HEADER.unpack_from(header)
    return HardwareHash(
        data,
        not usual and text.strip() != encode(data),
        _text(get(_SERIAL)),
        _text(get(_MAKER)),
        _text(get(_MODEL)),
        _text(get(_PRODUCT_KEY)),
        _uuid_text(uuid) if uuid is not None and len(uuid) == 16 else None,
        sha256(ek).digest() if ek else None,
        bool(ek) or bool(get(_TPM)),
        os_type,
        tool_version,
        captured,
    )


def encode(data: bytes) -> str:
    """The canonical 4,000 characters of `HardwareHash.data`. Raises ValueError over 3,000 bytes."""
    if len(data) > BLOB_LENGTH:
        raise ValueError(f"{len(data)} bytes do not fit into a hash of {BLOB_LENGTH}")
    return b64encode(data.ljust(BLOB_LENGTH, b"\0")).decode("ascii")


def findings(hardware_hash: HardwareHash, *, now: datetime) -> list[Finding]:
    """The findings about an intact hash. Errors are what Microsoft is known to refuse (802).

    The capture time often comes from a clock that was never set, so no finding uses it. `now` is unused until
    the catalogue has a code for it.
    """
    found = []
    if hardware_hash.repaired:
        found.append(Finding("hash_repaired", "hardware_hash", "Blanks or filling were put right."))
    if hardware_hash.serial_number is None:
        found.append(Finding("hash_lacks_serial", "hardware_hash", "The firmware has no serial number."))
    elif is_filler_serial(hardware_hash.serial_number):
        found.append(
            Finding(
                "serial_placeholder_in_hash",
                "hardware_hash",
                f"The serial number inside is {quoted(hardware_hash.serial_number)}.",
            )
        )
    if hardware_hash.manufacturer is None:
        found.append(
            Finding("hash_lacks_manufacturer", "hardware_hash", "The firmware names no manufacturer.")
        )
    if hardware_hash.os_type == _WINPE:
        found.append(Finding("hash_from_winpe", "hardware_hash", "It was captured in Windows PE."))
    if not hardware_hash.has_tpm:
        found.append(
            Finding("hash_lacks_tpm", "hardware_hash", "It has neither a TPM version nor a TPM key.")
        )
    return found


def _with_plus_for_blanks(text: str, error: HashError) -> tuple[bytes, int, int, dict[int, bytes]]:
    """Repairs a hash whose plus signs a web form turned into blanks; the checksum proves the repair.

    Raises the given error if that does not help.
    """
    plain = "".join(text.strip().splitlines())
    if " " not in plain or len(plain) > MAX_TEXT_LENGTH:
        raise error
    try:
        blob, held, _ = _bytes_of(plain.replace(" ", "+"))
        return blob, held, *_walk(blob, held)
    except HashError:
        raise error from None


# --- container --------------------------------------------------------------------------------


def _bytes_of(text: str) -> tuple[bytes, int, bool]:
    """The bytes, at least to the checksum's end; how many the text held; whether it is canonical."""
    if len(text) == TEXT_LENGTH and (blob := _usual_bytes(text)):
        return blob, BLOB_LENGTH, True
    if len(text) > MAX_TEXT_LENGTH:
        raise HashError("hash_not_a_hash", f"It has {len(text):,} characters; a hash has 4,000.")
    characters = "".join(text.split()).replace("=", "")
    if not characters:
        raise HashError("hash_not_a_hash", "It is empty.")
    if bad := _TEXT_FORBIDDEN.search(characters):
        raise HashError(
            "hash_not_base64",
            f"Character {bad.start() + 1:,} of {len(characters):,} is U+{ord(bad.group()):04X}, "
            "which base64 does not have.",
        )
    held = len(characters) * 6 // 8
    # Padding with "A" (zero bits) loses nothing: the checksum proves the result.
    blob = b64decode(characters + "A" * (-len(characters) % 4), validate=True)
    if not blob.startswith(b"OA"):
        raise _not_a_hash(characters, held)
    return blob.ljust(BLOB_LENGTH, b"\0"), held, False


def _usual_bytes(text: str) -> bytes | None:
    """The bytes of a canonical text, or None. Compares the filling: decoding it would cost more."""
    try:
        head = a2b_base64(text[:8], strict_mode=True)
        needed = (int.from_bytes(head[2:4], "little") + _CHECKSUM_LENGTH + 2) // 3 * 4
        if needed > TEXT_LENGTH or text[needed:] != _FILLING[needed:]:
            return None
        blob = a2b_base64(text[:needed], strict_mode=True)
    except ValueError:
        return None
    return blob if len(blob) == needed // 4 * 3 and blob.startswith(b"OA") else None


def _not_a_hash(characters: str, held: int) -> HashError:
    if held == _OBSOLETE_LENGTH:
        return HashError("hash_obsolete", "It has 128 bytes, as those of Windows 10 1703 and older.")
    if characters == characters.lower() and characters.startswith("t0"):
        return HashError("hash_not_a_hash", "Its capital letters were turned into small ones.")
    return HashError("hash_not_a_hash", f"Its {len(characters):,} characters do not start as a hash does.")


def _walk(blob: bytes, held: int) -> tuple[int, dict[int, bytes]]:
    """The length of the record list, and the wanted records. Raises HashError if anything does not fit."""
    total: int = int.from_bytes(blob[2:4], "little")
    end = total + _CHECKSUM_LENGTH
    if held < 4:
        raise HashError("hash_truncated", "It ends within its first characters.")
    if total < 8 or end > BLOB_LENGTH:
        raise HashError("hash_malformed", f"Its header promises {total:,} bytes, which cannot be.")
    records = record_list.read(blob, total, _WANTED)
    if isinstance(records, int):
        raise _broken(blob, held, end, records)
    if sha256(blob[:total]).digest() != blob[total + 4 : end]:
        if held < end:
            raise _cut(held, end)
        raise HashError(
            "hash_checksum_mismatch", "Its structure is whole, but its contents have been changed."
        )
    if not _ZEROS.startswith(blob[end:]):
        raise HashError("hash_malformed", "Its data is whole, but the filling behind it has been changed.")
    return total, records


def _broken(blob: bytes, held: int, end: int, at: int) -> HashError:
    """The error for a list that broke at `at`: cut short, cut short and padded again, or changed."""
    if held < end:
        return _cut(held, end)
    past_checksum = blob[at - _CHECKSUM_LENGTH : at - _CHECKSUM_LENGTH + 4] == record_list.END
    inside = at <= end - _CHECKSUM_LENGTH
    if inside and not past_checksum and _ZEROS.startswith(blob[at:]):
        return HashError(
            "hash_truncated", "The end of its data is missing, and it was filled up to full length."
        )
    if not inside:
        return HashError("hash_malformed", "The length of a record points beyond the end of its list.")
    return HashError("hash_malformed", f"Its list of records breaks at byte {at:,}.")


def _cut(held: int, end: int) -> HashError:
    return HashError("hash_truncated", f"It has {held:,} of the {end:,} bytes its header promises.")


# --- fields -----------------------------------------------------------------------------------


def _text(payload: bytes | None) -> str | None:
    if payload is None:
        return None
    return payload.partition(b"\0")[0].decode("utf-8", "replace").strip() or None


def _uuid_text(payload: bytes) -> str:
    text = _UUID_AS_SHOWN.pack(*_UUID_AS_STORED.unpack(payload)).hex()  # six times as fast as uuid.UUID
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


# --- description ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One record in words. It contains identifiers of the device: show it to the owner, never log it."""

    kind: int
    name: str
    values: tuple[tuple[str, str], ...]


def explain(hardware_hash: HardwareHash) -> tuple[Record, ...]:
    """All records, in the order of the hash. Unknown and unreadable ones give only their size."""
    return tuple(_describe(kind, payload) for kind, payload in _records(hardware_hash.data))


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = record_list.FIRST
    while at < len(data) - _CHECKSUM_LENGTH:
        kind, length = record_list.HEAD.unpack_from(data, at)
        yield kind, data[at + 4 : at + length]
        at += length


_Values: TypeAlias = tuple[tuple[str, str], ...]


def _describe(kind: int, payload: bytes) -> Record:
    if (name := _TEXTS.get(kind)) is not None:
        return Record(kind, name, (("text", _text(payload) or ""),))
    name, read = _LAYOUTS.get(kind, ("unknown", _size_only))
    try:
        return Record(kind, name, read(payload))
    except (struct.error, IndexError):  # shorter than in every hash seen so far
        return Record(kind, name, _size_only(payload))


def _size_only(payload: bytes) -> _Values:
    return (("bytes", str(len(payload))),)


def _plain(layout: str, *names: str) -> Callable[[bytes], _Values]:
    """A reader for records with a fixed layout of plain numbers."""
    shape = struct.Struct(layout)

    def read(payload: bytes) -> _Values:
        return tuple(zip(names, map(str, shape.unpack_from(payload)), strict=True))

    return read


def _named(value: int, names: dict[int, str]) -> str:
    return names.get(value, f"unknown ({value})")


def _read_header(payload: bytes) -> _Values:
    tool, system = struct.unpack_from("<4H", payload), struct.unpack_from("<4H", payload, 8)
    seconds, quarters, os_type, architecture, version = _TAIL_OF_HEADER.unpack_from(payload)
    # Tool version 3 writes a constant that is no time zone's offset.
    offset = f"{quarters * 15:+d} minutes" if abs(quarters) <= 56 else "unknown"
    return (
        *((name, f"{b[1]}.{b[0]}.{b[3]}.{b[2]}") for name, b in (("tool build", tool), ("OS build", system))),
        ("captured at", (_EPOCH + timedelta(seconds=seconds)).isoformat()),
        ("UTC offset", offset),
        ("OS type", _named(os_type, {1: "Windows PE", 2: "full Windows"})),
        ("architecture", _named(architecture, {0: "x86", 5: "ARM", 9: "x64", 12: "ARM64"})),
        ("tool version", str(version)),
    )


def _read_disk(payload: bytes) -> _Values:
    gigabytes, bus, seek, trim = struct.unpack_from("<QHBB", payload)
    return (
        ("capacity GB", str(gigabytes)),
        ("bus", _named(bus, _BUSES)),
        ("seek penalty", str(seek)),
        ("TRIM", str(trim)),
    )


def _read_network(payload: bytes) -> _Values:
    medium, mac, length = struct.unpack_from("<I6sI", payload)
    return (
        ("medium", _named(medium, _MEDIA)),
        ("MAC address", mac.hex(":")),
        ("bus", payload[14 : 14 + length].decode("utf-16-le", "replace").rstrip("\0")),
    )


def _read_offline_id(payload: bytes) -> _Values:
    status, method, size = struct.unpack_from("<IHI", payload)
    methods = {1: "TPM endorsement key", 0x0102: "UEFI variable", 0x0103: "without TPM"}
    return (
        ("status", str(status)),
        ("method", _named(method, methods)),
        ("id", payload[10 : 10 + size].hex()),
    )


def _read_uuid(payload: bytes) -> _Values:
    return (("UUID", str(UUID(bytes_le=payload)) if len(payload) == 16 else "unreadable"),)


def _read_endorsement_key(payload: bytes) -> _Values:
    return (("bits", str(len(payload) * 8)), ("SHA-256", sha256(payload).hexdigest()))


def _read_utf16(payload: bytes) -> _Values:
    return (("text", payload.decode("utf-16-le", "replace").rstrip("\0")),)


def _read_core_classes(payload: bytes) -> _Values:
    classes = [struct.unpack_from("<BHH", payload, 1 + 5 * n) for n in range(payload[0])]
    return tuple(
        (f"efficiency class {c}", f"{cores} cores, {threads} threads") for c, cores, threads in classes
    )


# Names are those of oa3tool's XML, where it has one.
_TEXTS: Final = {
    3: "ProcessorManufacturer",
    4: "ProcessorModel",
    7: "DiskSerialNumber",
    13: "TPMVersion",
    14: "SmbiosSystemSerialNumber",
    15: "SmbiosFirmwareVendor",
    16: "SmbiosSystemManufacturer",
    17: "SmbiosSystemProductName",
    18: "SmbiosSkuNumber",
    19: "SmbiosSystemFamily",
    20: "SmbiosBoardManufacturer",
    21: "SmbiosBoardProduct",
    22: "SmbiosBoardVersion",
    23: "SmbiosSystemVersion",
    24: "ProductKeyID",
    26: "ProductKeyPkPn",
    28: "DiskSSNKernel",
    36: "Locale",
}
_LAYOUTS: Final[dict[int, tuple[str, Callable[[bytes], _Values]]]] = {
    1: ("Header", _read_header),
    2: ("Processor", _plain("<5H", "architecture", "packages", "cores", "threads", "hyperthreading")),
    5: ("RAM", _plain("<QQHHB", "GB", "maximum GB", "slots", "arrays", "error correction")),
    6: ("Disk", _read_disk),
    8: ("NetworkAdapter", _read_network),
    9: ("Display", _plain("<4HI", "width mm", "height mm", "pixels x", "pixels y", "output technology")),
    10: ("Enclosure", _plain("<4B", "chassis type", "power platform role", "optical drive", "digitizer")),
    11: ("OfflineDeviceId", _read_offline_id),
    12: ("SmbiosUuid", _read_uuid),
    25: ("TPMEkPub", _read_endorsement_key),
    27: ("DisplaySize", _plain("<HH", "width cm", "height cm")),
    29: ("GPU", _plain("<QQ", "dedicated video memory", "dedicated system memory")),
    30: ("VideoAdapter", _read_utf16),
    34: ("CoreClasses", _read_core_classes),
}
_BUSES: Final = {1: "SCSI", 2: "ATAPI", 3: "ATA", 7: "USB", 8: "RAID", 10: "SAS", 11: "SATA"} | {
    12: "SD",
    13: "MMC",
    14: "virtual",
    17: "NVMe",
    19: "UFS",
}
_MEDIA: Final = {0: "unspecified", 1: "WLAN", 8: "WWAN", 9: "802.11", 10: "Bluetooth", 14: "Ethernet"}
