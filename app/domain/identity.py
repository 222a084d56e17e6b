"""A device's identity: checks one row, and decides which identifiers are sent.

Each row of an order is checked before anything is sent; a missing part is never guessed. The same check is
used by the API, for files and on the command line, and a large order has 10,000 rows. Conflicts and unknown
tuples, which only Microsoft can see, are not decided here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from app.domain import hardware_hash
from app.domain.batch import SentRow
from app.domain.catalogue import Finding
from app.domain.device import Device, Given
from app.domain.firmware_text import is_machine_type, is_marketing_name, likely_serial, plain_form
from app.domain.hardware_hash import HardwareHash
from app.domain.masking import quoted
from app.domain.placeholders import is_filler_serial
from app.domain.same_device import DeviceNames
from app.domain.values import HASH, KEY, MAKER, MODEL, SERIAL, Unfit, Values, names_of

__all__ = ["CheckedDevice", "Device", "Given", "IdentityKind", "OutgoingDevice", "Rules", "check", "outgoing"]


class IdentityKind(StrEnum):
    TUPLE = "tuple"
    PRODUCT_KEY = "product_key"
    HARDWARE_HASH = "hardware_hash"


class OutgoingDevice(NamedTuple):
    """One device as it is sent: exactly one legal identity; the other fields are None.

    A tuple, because a worker makes tens of thousands a second.
    """

    serial_number: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    product_key: str | None = None
    hash_data: bytes | None = None
    """The hash without its zero fill (`HardwareHash.data`)."""

    def as_sent(self) -> SentRow:
        return SentRow(self.serial_number, self.product_key)


class CheckedDevice(NamedTuple):
    """A device after the check, with values that can be stored.

    Outer blanks are removed (not from `line_ref`, which is echoed), empty values are None, and invisible
    characters become U+FFFD. Values that are too long, placeholders beside a better identity, and
    25-character product keys in the PKID's place are dropped. Columns missing beside a hash stay None: their
    values are in `hash`.
    """

    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    group_tag: str | None
    line_ref: str | None
    kind: IdentityKind | None
    """The identity that is sent; None if the device is invalid."""
    hash: HardwareHash | None
    keys: tuple[str, ...]
    """Two valid devices that share a key are the same device. Empty if the device is invalid."""
    findings: tuple[Finding, ...]
    """A finding with an empty field is about the whole device."""

    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings)
        return f"CheckedDevice({self.kind or 'invalid'}, {codes})"  # its identifiers must not be logged

    @property
    def is_valid(self) -> bool:
        return self.kind is not None

    @property
    def search_serial(self) -> str | None:
        """The serial number for finding the device: the given one, otherwise the one inside the hash."""
        if self.serial_number is not None or self.hash is None:
            return self.serial_number
        return _real_serial(self.hash)

    @property
    def names(self) -> DeviceNames | None:
        """The names by which the device is found; None if it is invalid."""
        if self.kind is None:
            return None
        return DeviceNames(self.search_serial, self.manufacturer, self.model, self.product_key)

    def noted(self, *findings: Finding) -> "CheckedDevice":
        """The device with further findings; an error among them makes it invalid."""
        found = (*self.findings, *findings)
        if any(finding.is_error for finding in findings):
            return self._replace(kind=None, keys=(), findings=found)
        return self._replace(findings=found)

    def outgoing(self, *, with_serial: bool) -> OutgoingDevice:
        """The fields of a valid device that are sent."""
        assert self.kind is not None
        data = None if self.hash is None else self.hash.data
        serial, key = self.search_serial, self.product_key
        return outgoing(self.kind, serial, self.manufacturer, self.model, key, data, with_serial=with_serial)


@dataclass(frozen=True, slots=True)
class Rules:
    """The platform's rules. The length limits, in characters, are ours: Microsoft publishes none.

    Common tools allow group tags of 64 or 128 characters, and firmware strings are far below 256.
    """

    accepted: frozenset[IdentityKind]
    max_group_tag: int = 128
    max_value: int = 256
    objection: Callable[[CheckedDevice], Finding | None] | None = None
    """Checks whether the platform's file format can carry a device that is otherwise valid."""


TUPLE_FIELDS: Final = SERIAL | MAKER | MODEL
# The legal identities, best first: kind, required fields, fields that are sent.
_LEGAL: Final = (
    (IdentityKind.HARDWARE_HASH, HASH, HASH | KEY | SERIAL),
    (IdentityKind.PRODUCT_KEY, KEY, KEY),
    (IdentityKind.TUPLE, TUPLE_FIELDS, TUPLE_FIELDS),
)

_SENT: Final[Mapping[str, Sequence[bool]]] = {
    kind: [bool(sent & field) for field in (SERIAL, MAKER, MODEL, KEY, HASH)] for kind, _, sent in _LEGAL
}
"""The fields that are sent, by identity. Computed once: a worker needs them for every device."""


def outgoing(
    kind: str,
    serial_number: str | None,
    manufacturer: str | None,
    model: str | None,
    product_key: str | None,
    hash_data: bytes | None,
    *,
    with_serial: bool,
) -> OutgoingDevice:
    """The fields of a device that are sent: exactly those of its identity.

    `with_serial`: the serial number is sent with a hash (the setting `send_serial_with_hash`).
    """
    has_serial, has_maker, has_model, has_key, has_hash = _SENT[kind]
    return OutgoingDevice(
        serial_number if has_serial and (with_serial or not has_hash) else None,
        manufacturer if has_maker else None,
        model if has_model else None,
        product_key if has_key else None,
        hash_data if has_hash else None,
    )


_PKID: Final = re.compile(r"[0-9]{13}")
_UNSET_UUIDS: Final = frozenset(
    {
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        # Default values of mainboard manufacturers, found on any number of machines:
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "4c4c4544-0000-2010-8020-80c04f202020",
    }
)


def check(device: Given, rules: Rules, now: datetime) -> CheckedDevice:
    """Checks one row. Never raises for any text in it; every problem is a finding."""
    row = Values(device, rules)
    found, whole = row.found, row.whole
    inside = None
    if whole is not None:
        inside = _real_serial(whole)
        _compare(row, whole, inside)
    kind, sent, sound = _choose(row, rules.accepted)
    if row.unfit:
        _settle(row, sound=sound)
    if kind is IdentityKind.HARDWARE_HASH and whole is not None:
        found.extend(hardware_hash.findings(whole, now=now))
    if found and any(finding.is_error for finding in found):
        kind = None
    if kind is not None and (unsent := row.given & ~sent):
        names = names_of(unsent)
        found.append(Finding("identity_reduced", names[0], f"Sent as {kind}; not sent: {', '.join(names)}."))
        if row.unusual and unsent & KEY:
            row.leave_out(KEY)  # other devices may have the same one, so it is not used to find or compare
    keys = _keys(row, inside or row.serial) if kind is not None else ()
    checked = CheckedDevice(
        row.serial,
        row.maker,
        row.model,
        row.product_key,
        row.group_tag,
        row.line_ref,
        kind,
        whole,
        keys,
        tuple(found),
    )
    if kind is not None and rules.objection is not None and (finding := rules.objection(checked)):
        return checked.noted(finding)
    return checked


# --- identity ---------------------------------------------------------------------------------


def _choose(row: Values, accepted: frozenset[IdentityKind]) -> tuple[IdentityKind | None, int, bool]:
    """The best legal identity that the platform accepts, the fields that are sent with it, and whether all of
    them are usable.

    Usable identities come before all others. A PKID of an unusual form comes last.
    """
    given, usable = row.given, row.usable()
    for kind, needs, sent in _LEGAL:
        if usable & needs == needs and kind in accepted:
            return kind, sent & usable, True
    if row.unusual and IdentityKind.PRODUCT_KEY in accepted:
        return IdentityKind.PRODUCT_KEY, KEY, True
    refused = None
    for kind, needs, sent in _LEGAL:
        if given & needs != needs:
            continue
        if kind in accepted:
            return kind, sent, False
        refused = refused or kind
    if refused is not None:
        takes = ", ".join(sorted(accepted)) or "nothing"
        detail = f"Given: {refused}. The platform takes: {takes}."
        row.found.append(Finding("identity_not_accepted", "", detail))
    elif missing := given and TUPLE_FIELDS & ~given:
        names = names_of(missing)
        row.found.append(Finding("incomplete_tuple", names[0], f"Missing: {', '.join(names)}."))
    else:
        row.found.append(Finding("missing_identity", "", "None of the identity fields has a usable value."))
    return None, 0, False


def _compare(row: Values, whole: HardwareHash, inside: str | None) -> None:
    """Compares the row with the hash. A value that one of them lacks is no contradiction."""
    usable = row.usable()
    serial, maker, model = row.serial, row.maker, row.model
    looks_like = any(unfit.error.code == "serial_not_ascii" for unfit in row.unfit)
    if serial is not None and inside is not None and (usable & SERIAL or looks_like):
        _compare_serial(row, serial, inside)
    torn = False
    if (
        maker is not None
        and usable & MAKER
        and whole.manufacturer is not None
        and maker != whole.manufacturer
    ):
        torn = _is_torn(maker, whole.manufacturer)
        wrong = _mismatch("hash_manufacturer_mismatch", "manufacturer", maker, whole.manufacturer)
        _object(row, MAKER, wrong, pardoned=torn or _is_odd(row, "manufacturer"))
    if model is not None and usable & MODEL and whole.model is not None and model != whole.model:
        sold_as = is_marketing_name(whole.manufacturer or "", model) and is_machine_type(whole.model)
        pardoned = torn or sold_as or _is_torn(model, whole.model) or _is_odd(row, "model")
        wrong = _mismatch("hash_model_mismatch", "model", model, whole.model)
        _object(row, MODEL, wrong, pardoned=pardoned)
    given, key = row.product_key or "", whole.product_key or ""
    # Anything but 13 digits on either side is not a PKID and cannot be compared.
    if given != key and _PKID.fullmatch(given) and _PKID.fullmatch(key):
        row.found.append(_mismatch("hash_product_key_mismatch", "product_key", given, key))


def _compare_serial(row: Values, serial: str, inside: str) -> None:
    if serial.casefold() == inside.casefold():
        return
    likely = likely_serial(serial, row.maker, row.model) or serial.removeprefix("S")
    if inside.casefold() not in (likely.casefold(), plain_form(serial).casefold()):
        row.found.append(_mismatch("hash_serial_mismatch", "serial_number", serial, inside))
    elif serial.isascii() and not _is_odd(row, "serial_number"):
        detail = f"It reads {quoted(serial)}; the hash says {quoted(inside)}."
        row.found.append(Finding("value_unlikely", "serial_number", detail))


def _object(row: Values, bit: int, wrong: Finding, *, pardoned: bool) -> None:
    """Adds a mismatch. `pardoned`: the row's value is damaged, so it does not disprove the hash."""
    if pardoned:
        row.unfit.append(
            Unfit(bit, wrong, Finding("value_not_sent", wrong.field, f"{wrong.detail} It is not sent."))
        )
    else:
        row.found.append(wrong)


def _is_torn(given: str, whole: str) -> bool:
    """Whether the given value is the part of the whole one before a separator."""
    return whole.startswith(given) and whole[len(given) :].lstrip()[:1] in (",", ";", "|")


def _is_odd(row: Values, name: str) -> bool:
    return any(finding.code == "value_unlikely" and finding.field == name for finding in row.found)


def _mismatch(code: str, name: str, said: str, inside: str) -> Finding:
    return Finding(code, name, f"The row says {quoted(said)}, the hash says {quoted(inside)}.")


def _settle(row: Values, *, sound: bool) -> None:
    """Makes an unusable value an error, or leaves it out if another identity identifies the device."""
    for unfit in row.unfit:
        if sound:
            row.found.append(unfit.beside)
            row.leave_out(unfit.bit)
        else:
            row.found.append(unfit.error)


def _real_serial(whole: HardwareHash) -> str | None:
    """The serial number inside the hash if it identifies the device and can be stored."""
    serial = whole.serial_number
    if serial is None or len(serial) > 256 or not serial.isprintable() or is_filler_serial(serial):
        return None
    return serial


def _keys(row: Values, serial: str | None) -> tuple[str, ...]:
    """The keys by which duplicates are found. Exact: a false duplicate would leave a device unregistered,
    while a missed one costs one answer from Microsoft.

    The SMBIOS UUID counts only together with the serial number, because some manufacturers give many machines
    the same one. Without a serial number it counts only if there is no TPM key, which is better. A PKID of an
    unusual form may also be shared by many devices.
    """
    keys = []
    maker, model, product_key, whole = row.maker, row.model, row.product_key, row.whole
    if product_key is not None:
        keys.append(f"pkid:{product_key}\x1f{serial}" if row.unusual else f"pkid:{product_key}")
    if whole is not None:
        inside = whole.product_key
        if inside is not None and inside != product_key and _PKID.fullmatch(inside) and inside.strip("0"):
            keys.append(f"pkid:{inside}")
        maker, model = whole.manufacturer or maker, whole.model or model
        uuid = whole.smbios_uuid
        if uuid is not None and uuid not in _UNSET_UUIDS and (serial or whole.ek_digest is None):
            keys.append(f"uuid:{uuid}\x1f{serial or ''}")
        if whole.ek_digest is not None:
            keys.append(f"ek:{whole.ek_digest.hex()}")
    if serial is not None and maker is not None and model is not None:
        keys.append(f"tuple:{serial}\x1f{maker}\x1f{model}")
    return tuple(keys)
