"""The registry of devices of all customers, and the service's verdict on each submitted device.

A device that is sent as a hash and later as a tuple is the same device: a hash is decoded, a tuple or a PKID
is looked up. A device belongs to at most one customer; that rule is the source of 806 and 808.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulator.hardware_hash import open_hash
from simulator.switches import Switches
from simulator.wire import folded

Tuple = tuple[str, str, str]
"""Manufacturer, model, serial number; case is significant."""

NAMES = {
    "801": "InvalidZtdRequestBody",
    "802": "InvalidZtdHardwareHash",
    "803": "MissingZtdSerialNumberAndProductKey",
    "807": "ZtdDeviceIsNotRegistered",
    "809": "ZtdProfileIsNotRegistered",
    "810": "ZtdProfileAssignedToOtherTenant",
    "811": "ZtdDeviceRegisteredByOtherTenant",
    "812": "ZtdDeviceNotFound",
    "813": "ZtdDeviceIsNotUnique",
    "814": "ZtdDeviceAlreadyAadRegistered",
}
DUPLICATED, STORAGE_ERROR = "ZtdDeviceDuplicated", "StorageError"


@dataclass(slots=True)
class Row:
    """One submitted device. `shown_*` are the values as sent, which the job status repeats."""

    kind: str
    """hash, tuple, pkid, or none"""
    tuple: Tuple | None
    product_key: str
    uuid: bytes
    digest: str
    """SHA-256 of the hash text; the hash itself is not kept."""
    shown_serial: str
    shown_key: str
    error: str = ""
    """Code or name of an error that is already known."""
    register_anyway: bool = False


@dataclass(slots=True, eq=False)
class Device:
    """One device. `customer` is empty while nobody holds it."""

    id: str
    tuple: Tuple | None
    product_key: str
    uuid: bytes
    digest: str = ""
    customer: str = ""
    partner: str = ""
    batch: str = ""
    identified_by: str = ""
    call: int = 0
    uploaded: float = 0.0
    submissions: int = 0

    def view(self) -> dict[str, Any]:
        """As the ledger shows it."""
        manufacturer, model, serial = self.tuple or ("", "", "")
        return {
            "id": self.id,
            "customer": self.customer,
            "partner": self.partner,
            "group_tag": self.batch,
            "serial": serial,
            "manufacturer": manufacturer,
            "model": model,
            "product_key": self.product_key,
            "hash_sha256": self.digest,
            "identified_by": self.identified_by,
            "call": self.call,
            "submissions": self.submissions,
        }


def _clean(item: dict[str, Any], name: str) -> str | None:
    value = item.get(name)
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else None


def read_row(item: Any, switches: Switches) -> Row:
    """One element of the request's device list. Empty text counts as absent."""
    if not isinstance(item, dict):
        return Row("none", None, "", b"", "", "", "", "801")
    item = folded(item)
    serial, key = _clean(item, "serialnumber"), _clean(item, "productkey")
    manufacturer, model = _clean(item, "oemmanufacturername"), _clean(item, "modelname")
    text = _clean(item, "hardwarehash")
    if serial is None or key is None or manufacturer is None or model is None or text is None:
        return Row("none", None, "", b"", "", serial or "", key or "", "801")
    if text:
        return _read_hash(text, serial, key, switches)
    if key:
        refused = bool(serial) and switches.extra_identifiers == "refuse"
        return Row("pkid", None, key, b"", "", serial, key, "801" if refused else "")
    if serial and manufacturer and model:
        return Row("tuple", (manufacturer, model, serial), "", b"", "", serial, "")
    return Row("none", None, "", b"", "", serial, "", "803")


def _read_hash(text: str, serial: str, key: str, switches: Switches) -> Row:
    digest = hashlib.sha256(text.encode()).hexdigest()
    opened = None if switches.accept_any_hash else open_hash(text)
    if opened is None:
        error = "" if switches.accept_any_hash else "802"
        return Row("hash", None, "", b"", digest, serial, key, error)
    identity = (opened.manufacturer, opened.model, opened.serial)
    return Row("hash", identity, opened.product_key, opened.uuid, digest, serial, key)


def has_empty_policies(items: list[Any]) -> bool:
    """True when a device carries `Policies: []`, which the service answers with 500."""
    return any(
        isinstance(item, dict) and (item.get("policies") == [] or item.get("Policies") == [])
        for item in items
    )


def _device_id(number: int) -> str:
    """Not a GUID: the documents show ids such as 9993-8627-3608-6844-6369-4361-72."""
    digits = str((number * 7919 + 104_729) * 1_000_003 % 10**26).zfill(26)
    return "-".join(digits[at : at + 4] for at in range(0, 26, 4))


class Registry:
    """All devices ever seen, by identity, and the OEM data tuples and PKIDs are looked up in."""

    def __init__(self) -> None:
        self._by_tuple: dict[Tuple, list[Device]] = {}
        self._by_key: dict[str, Device] = {}
        self._by_digest: dict[str, Device] = {}
        self._spelled: dict[Tuple, Tuple] = {}
        self._by_id: dict[str, Device] = {}
        self._devices: list[Device] = []
        self._oem_keys: set[str] = set()

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def by_id(self, device_id: str) -> Device | None:
        return self._by_id.get(device_id)

    def add_oem_record(self, manufacturer: str, model: str, serial: str, product_key: str) -> Device:
        """Data a manufacturer sent in: ties a PKID to a tuple and fixes the tuple's spelling."""
        identity = (manufacturer, model, serial) if serial else None
        if product_key:
            self._oem_keys.add(product_key)
        row = Row("oem", identity, product_key, b"", "", serial, product_key)
        return self._match(row, uuid_splits=False) or self._add(row)

    def find(self, row: Row, switches: Switches) -> Device | str:
        """The device a well-formed row means (made when new), or the code of the refusal."""
        if row.kind == "pkid":
            if self._is_unknown(row.product_key, row.product_key in self._oem_keys, switches):
                return "812"
        elif row.kind == "tuple" and row.tuple is not None:
            refusal = self._refuse_tuple(row.tuple, switches)
            if refusal:
                return refusal
        return self.match_or_add(row, switches)

    def match_or_add(self, row: Row, switches: Switches) -> Device:
        """The device of a row, without looking at OEM data."""
        return self._match(row, switches.uuid_splits_devices) or self._add(row)

    def _is_unknown(self, identifier: str, recorded: bool, switches: Switches) -> bool:
        if identifier in switches.oem_unknown:
            return True
        if switches.oem_unknown_suffix and identifier.endswith(switches.oem_unknown_suffix):
            return True
        return not (switches.oem_knows_all or recorded)

    def _refuse_tuple(self, identity: Tuple, switches: Switches) -> str:
        serial = identity[2]
        same = self._by_tuple.get(identity, ())
        if self._is_unknown(serial, bool(same), switches):
            return "812"
        if not same and _fold(identity) in self._spelled:
            return "812"
        suffix = switches.oem_ambiguous_suffix
        if len(same) > 1 or serial in switches.oem_ambiguous or (suffix and serial.endswith(suffix)):
            return "813"
        return ""

    def _match(self, row: Row, uuid_splits: bool) -> Device | None:
        if row.tuple is None and not row.product_key:
            return self._by_digest.get(row.digest)
        for device in self._by_tuple.get(row.tuple, ()) if row.tuple else ():
            if not uuid_splits or not row.uuid or not device.uuid or device.uuid == row.uuid:
                return self._learn(device, row)
        known = self._by_key.get(row.product_key) if row.product_key else None
        if known is None or (row.tuple and known.tuple and known.tuple != row.tuple):
            return None
        return self._learn(known, row)

    def _learn(self, device: Device, row: Row) -> Device:
        """Adds what this row knows about the same device."""
        if row.tuple and device.tuple is None:
            device.tuple = row.tuple
            self._index_tuple(device, row.tuple)
        if row.product_key and not device.product_key:
            device.product_key = row.product_key
            self._by_key.setdefault(row.product_key, device)
        device.uuid = device.uuid or row.uuid
        return device

    def _add(self, row: Row) -> Device:
        """A new device, held by nobody yet."""
        device = Device(_device_id(len(self._devices)), row.tuple, row.product_key, row.uuid)
        self._devices.append(device)
        self._by_id[device.id] = device
        if row.tuple:
            self._index_tuple(device, row.tuple)
        if row.product_key:
            self._by_key.setdefault(row.product_key, device)
        if not row.tuple and not row.product_key:
            self._by_digest[row.digest] = device
        return device

    def _index_tuple(self, device: Device, identity: Tuple) -> None:
        self._by_tuple.setdefault(identity, []).append(device)
        self._spelled.setdefault(_fold(identity), identity)


def _fold(identity: Tuple) -> Tuple:
    return (identity[0].casefold(), identity[1].casefold(), identity[2].casefold())


def describe(error: str, switches: Switches) -> tuple[str, str]:
    """errorCode and errorDescription of a refusal given by number or, where none is known, by name."""
    if error == "806":
        return error, switches.name_806
    if error == "808":
        return error, switches.name_808
    if error in (DUPLICATED, STORAGE_ERROR):
        return switches.unnumbered_error_code, error
    return (error, NAMES[error]) if error in NAMES else ((error, "") if error.isdigit() else ("", error))
