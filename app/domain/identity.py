"""What identifies a device, and which combinations of identities are legal.

Decides for every row of an order, before anything is sent, what will be sent and what is wrong with
it; never guesses a missing part. Stands alone, and asks nobody, because the same judgement is given
at the API, on files and on the command line, and a large order has 10,000 rows. What only Microsoft
can know (conflicts, unknown tuples) is not decided here.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from app.domain import hardware_hash
from app.domain.catalogue import Finding
from app.domain.hardware_hash import HardwareHash, HashError, is_placeholder


class IdentityKind(StrEnum):
    TUPLE = "tuple"
    PRODUCT_KEY = "product_key"
    HARDWARE_HASH = "hardware_hash"


@dataclass(frozen=True, slots=True)
class Device:
    """A device as the caller gave it."""

    serial_number: str | None = field(default=None, repr=False)
    manufacturer: str | None = None
    model: str | None = None
    product_key: str | None = field(default=None, repr=False)
    hardware_hash: str | None = field(default=None, repr=False)
    group_tag: str | None = None
    line_ref: str | None = None


class Given(Protocol):
    """A device as the caller gave it, whatever holds it: `Device` is one, a row of a request's body another,
    so that 10,000 of them need not be copied."""

    @property
    def serial_number(self) -> str | None: ...
    @property
    def manufacturer(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def product_key(self) -> str | None: ...
    @property
    def hardware_hash(self) -> str | None: ...
    @property
    def group_tag(self) -> str | None: ...
    @property
    def line_ref(self) -> str | None: ...


class CheckedDevice(NamedTuple):
    """A device after the check, with values fit for storage.

    Outer blanks are gone (not from `line_ref`, which is echoed), empty is None, an invisible character
    is shown as U+FFFD, and what is too long, a placeholder beside a better identity, or a 25-character
    product key in the PKID's place is not kept. Columns missing beside a hash stay None: their values
    are in `hash`.
    """

    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    group_tag: str | None
    line_ref: str | None
    kind: IdentityKind | None
    """What is sent; None when the device is invalid."""
    hash: HardwareHash | None
    keys: tuple[str, ...]
    """Two valid devices that share a key are the same device. Empty when the device is invalid."""
    findings: tuple[Finding, ...]
    """A finding with the empty field is about the whole device."""

    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings)
        return f"CheckedDevice({self.kind or 'invalid'}, {codes})"  # what identifies it belongs into no log

    @property
    def is_valid(self) -> bool:
        return self.kind is not None

    @property
    def search_serial(self) -> str | None:
        """The serial number to find the device by: the one given, else the one inside the hash."""
        if self.serial_number is not None or self.hash is None:
            return self.serial_number
        return _real_serial(self.hash)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a platform accepts. The lengths, in characters, are ours: Microsoft publishes none.

    Tools of the field allow group tags of 64 or 128 characters, and firmware strings are far below 256.
    """

    accepted: frozenset[IdentityKind]
    max_group_tag: int = 128
    max_value: int = 256
    objection: Callable[[CheckedDevice], Finding | None] | None = None
    """What the platform's own file can not carry of a device that is valid otherwise."""


_SERIAL, _MAKER, _MODEL, _KEY, _HASH = 1, 2, 4, 8, 16
_TUPLE: Final = _SERIAL | _MAKER | _MODEL
_FIELDS: Final = (
    (_SERIAL, "serial_number"),
    (_MAKER, "manufacturer"),
    (_MODEL, "model"),
    (_KEY, "product_key"),
    (_HASH, "hardware_hash"),
)
# The legal identities, best first: kind, what it needs, what is sent with it.
_LEGAL: Final = (
    (IdentityKind.HARDWARE_HASH, _HASH, _HASH | _KEY | _SERIAL),
    (IdentityKind.PRODUCT_KEY, _KEY, _KEY),
    (IdentityKind.TUPLE, _TUPLE, _TUPLE),
)

_PKID = re.compile(r"[0-9]{13}")
# Any separators: a word processor makes other dashes of "-", and a secret must not slip through for that.
_LICENSE_KEY = re.compile(r"[A-Z0-9]{5}(?:[\W_]{0,3}[A-Z0-9]{5}){4}", re.IGNORECASE | re.ASCII)
_SCIENTIFIC = re.compile(r"[0-9]+(?:[.,][0-9]*)?E\+[0-9]+", re.IGNORECASE)
_DAMAGED_KEYS: Final = (
    (
        re.compile(r"[0-9]{5}-[0-9]{5}-[0-9]{4,5}-[A-Z0-9]{5}", re.IGNORECASE | re.ASCII),
        "product_key_is_product_id",
        "It has the form of a Windows Product ID.",
    ),
    (_LICENSE_KEY, "product_key_is_license_key", "It has the form of a 25-character product key."),
    (
        re.compile(r"[0-9](?:[.,][0-9]*)?E\+?[0-9]+", re.IGNORECASE),
        "product_key_scientific",
        "It is in scientific notation.",
    ),
)
_MONTH: Final = (
    "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez|fév|avr|juin|juil|aoû|déc"
)
_DATE: Final = re.compile(
    rf"[0-9]{{1,4}}[-. ]{{1,2}}(?:{_MONTH})\.?(?:[- ][0-9]{{2,4}})?|(?:{_MONTH})\.?[- ][0-9]{{1,4}}"
    r"|[0-3]?[0-9]\.[01]?[0-9]\.(?:19|20)[0-9]{2}|[0-3]?[0-9]/[0-3]?[0-9]/(?:19|20)?[0-9]{2}"
    r"|(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9](?: [0-9:]{5,8})?",
    re.IGNORECASE,
)
"""Dates as spreadsheets show them after taking a serial number for one."""
_QUOTED: Final = re.compile(r"[\"“”„«»‘’‚‹›'](.*)[\"“”„«»‘’‚‹›']|['‘’]([^\"“”„«»‘’‚‹›']*)", re.DOTALL)
"""A pair around the value, or the single one by which spreadsheets mark a text."""
_QUOTES: Final = frozenset("\"“”„«»‘’‚‹›'")
_APOSTROPHES: Final = frozenset("'‘’‚‹›")
_INVISIBLE_EDGES: Final = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\x00"
_SPREADSHEET_ERRORS: Final = re.compile(
    r"#(?:N/A|NULL!|DIV/0!|VALUE!|REF!|NAME\?|NUM!|SPILL!|CALC!|GETTING_DATA"
    r"|NV|WERT!|BEZUG!|ZAHL!|VALEUR!|NOM\?|NOMBRE!|NUL!|N/D|¡VALOR!|¡REF!|¿NOMBRE\?|¡NUM!|¡DIV/0!|#+)",
    re.IGNORECASE,
)
"""What a formula that failed, or a column that is too narrow, leaves behind in a file of text: English,
German, French and Spanish."""
_SHOWN: Final = 64
_UNSET_UUIDS: Final = frozenset(
    {
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        # Fillers of board makers, on any number of machines:
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "4c4c4544-0000-2010-8020-80c04f202020",
    }
)


def check(device: Given, rules: Rules, now: datetime) -> CheckedDevice:
    """Judges one row. Never raises for any text in it; every objection is a finding."""
    found: list[Finding] = []
    serial, maker, model, product_key, spoilt = _columns(device, rules.max_value, found)
    tag = _clean("group_tag", device.group_tag, rules.max_group_tag, found, too_long="group_tag_too_long")
    line_ref = _clean("line_ref", device.line_ref, rules.max_value, found, keep_blanks=True)
    # A field in error counts as given: its error is what people must see, not that it is missing too.
    given = spoilt
    whole = inside = None
    if device.hardware_hash and not device.hardware_hash.isspace():
        given |= _HASH
        whole = _decoded(device.hardware_hash, found)
    for value, bit in ((serial, _SERIAL), (maker, _MAKER), (model, _MODEL), (product_key, _KEY)):
        if value is not None:
            given |= bit
    unset = serial is not None and is_placeholder(serial)
    if whole is not None:
        inside = _real_serial(whole)
        comparable = None if unset or spoilt & _SERIAL else serial
        _compare(whole, inside, comparable, maker, model, product_key, found)
    kind, unsent = _choose(given, rules.accepted, found)
    if unset:
        if kind is IdentityKind.TUPLE or not given & (_KEY | _HASH):
            found.append(Finding("serial_placeholder", "serial_number", f"It reads {shown(serial or '')}."))
        else:
            serial, unsent = None, unsent | _SERIAL
    if kind is IdentityKind.HARDWARE_HASH and whole is not None:
        found.extend(hardware_hash.findings(whole, now=now))
    if found and any(finding.is_error for finding in found):
        kind = None
    if kind is not None and unsent:
        names = _names(unsent)
        found.append(Finding("identity_reduced", names[0], f"Sent as {kind}; not sent: {', '.join(names)}."))
    keys = _keys(inside or serial, maker, model, product_key, whole) if kind is not None else ()
    checked = CheckedDevice(serial, maker, model, product_key, tag, line_ref, kind, whole, keys, tuple(found))
    if kind is not None and rules.objection is not None and (finding := rules.objection(checked)):
        return checked._replace(kind=None, keys=(), findings=(*found, finding))
    return checked


# --- values -----------------------------------------------------------------------------------


def _columns(
    device: Given, limit: int, found: list[Finding]
) -> tuple[str | None, str | None, str | None, str | None, int]:
    """Serial number, manufacturer, model and PKID as they can be used, and the bits of those in error."""
    serial = _unquoted("serial_number", device.serial_number, limit, found)
    maker = _unquoted("manufacturer", device.manufacturer, limit, found)
    model = _unquoted("model", device.model, limit, found)
    product_key = _unquoted("product_key", device.product_key, limit, found)
    spoilt = _spoilt(found) if found else 0
    if serial is not None:
        if _SCIENTIFIC.fullmatch(serial):
            found.append(Finding("serial_scientific", "serial_number", f"It reads {shown(serial)}."))
            spoilt |= _SERIAL
        elif _DATE.fullmatch(serial):
            found.append(Finding("serial_looks_like_date", "serial_number", f"It reads {shown(serial)}."))
    if spoilt & _KEY:
        product_key = None  # unreadable, so it could be anything, a secret too
    elif product_key is not None:
        product_key, damaged = _product_key(product_key, found)
        spoilt |= damaged
    return serial, maker, model, product_key, spoilt


def _clean(
    name: str,
    value: str | None,
    limit: int,
    found: list[Finding],
    *,
    too_long: str = "value_too_long",
    keep_blanks: bool = False,
) -> str | None:
    if value is None:
        return None
    clean = value.strip()
    if not clean:
        return None
    if not clean.isprintable():
        clean = clean.strip(_INVISIBLE_EDGES).strip()
        if not clean:
            return None
    if keep_blanks and value.isprintable():
        clean = value
    elif len(clean) != len(value):
        found.append(Finding("value_trimmed", name, "Blanks or invisible characters around it were removed."))
    if len(clean) > limit:
        found.append(
            Finding(too_long, name, f"It has {len(clean):,} characters; at most {limit} are allowed.")
        )
        return None
    if not clean.isprintable():
        place = next(n for n, character in enumerate(clean) if not character.isprintable())
        detail = f"Character {place + 1} is U+{ord(clean[place]):04X}, which can not be seen."
        found.append(Finding("value_has_control_characters", name, detail))
        return _visible(clean)
    if clean[0] == "#" and not keep_blanks and _SPREADSHEET_ERRORS.fullmatch(clean):
        found.append(Finding("cell_is_error", name, f"It reads {shown(clean)}."))
    return clean


def _unquoted(name: str, value: str | None, limit: int, found: list[Finding]) -> str | None:
    """`_clean`, without quotation marks around the value: no firmware has them, many a program puts them."""
    clean = _clean(name, value, limit, found)
    if clean is None or clean[0] not in _QUOTES:
        return clean
    quoted = _QUOTED.fullmatch(clean)
    if quoted is None:
        if clean[0] not in _APOSTROPHES:
            # What stood behind it in its file may be part of the value, or the value of the next column.
            found.append(Finding("quote_unclosed", name, "It begins with a quotation mark that never ends."))
        return clean
    inside = (quoted.group(1) or quoted.group(2) or "").strip()
    if not inside:
        return None
    found.append(Finding("value_quoted", name, "Quotation marks around it were removed."))
    return inside


def _visible(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def is_license_key(text: str) -> bool:
    """Whether it has the form of a 25-character product key, which is a secret."""
    return _LICENSE_KEY.fullmatch(text.strip()) is not None


def shown(text: str) -> str:
    """A value inside a detail: bounded, printable, and never a hash or a secret key."""
    if is_license_key(text) or (len(text) > _SHOWN and text.lstrip().startswith("T0")):
        return "(not shown)"
    return f'"{_visible(text[:_SHOWN])}{"…" if len(text) > _SHOWN else ""}"'


def _spoilt(found: list[Finding]) -> int:
    names = {finding.field for finding in found if finding.is_error}
    return sum(bit for bit, name in _FIELDS if name in names)


def _names(bits: int) -> list[str]:
    return [name for bit, name in _FIELDS if bits & bit]


def _product_key(value: str, found: list[Finding]) -> tuple[str | None, int]:
    """The PKID to use, and the bit of the field when it is an error."""
    if not value.strip("0"):
        found.append(Finding("product_key_placeholder", "product_key", "It has only zeros."))
        return None, 0
    if _PKID.fullmatch(value):
        return value, 0
    for pattern, code, detail in _DAMAGED_KEYS:
        if pattern.fullmatch(value):
            found.append(Finding(code, "product_key", detail))
            return (None if pattern is _LICENSE_KEY else value), _KEY
    detail = f"It has {len(value)} characters"
    if len(value) < 13 and value.isdecimal():
        detail += "; a spreadsheet may have dropped leading zeros"
    found.append(Finding("product_key_unusual", "product_key", detail + "."))
    return value, 0


def _decoded(text: str, found: list[Finding]) -> HardwareHash | None:
    try:
        return hardware_hash.decode(text)
    except HashError as error:
        found.append(Finding(error.code, "hardware_hash", error.detail))
        return None


# --- identity ---------------------------------------------------------------------------------


def _choose(
    given: int, accepted: frozenset[IdentityKind], found: list[Finding]
) -> tuple[IdentityKind | None, int]:
    """The best legal identity that the platform takes, and the given fields that are not sent with it."""
    refused = None
    for kind, needs, sent in _LEGAL:
        if given & needs != needs:
            continue
        if kind in accepted:
            return kind, given & ~sent
        refused = refused or kind
    if refused is not None:
        takes = ", ".join(sorted(accepted)) or "nothing"
        detail = f"Given: {refused}. The platform takes: {takes}."
        found.append(Finding("identity_not_accepted", "", detail))
    elif missing := given and _TUPLE & ~given:
        names = _names(missing)
        found.append(Finding("incomplete_tuple", names[0], f"Missing: {', '.join(names)}."))
    else:
        found.append(Finding("missing_identity", "", "None of the identity fields has a usable value."))
    return None, 0


def _compare(
    whole: HardwareHash,
    inside: str | None,
    serial: str | None,
    maker: str | None,
    model: str | None,
    product_key: str | None,
    found: list[Finding],
) -> None:
    """What the row says against what the hash says; a value that one of them lacks contradicts nothing."""
    if serial is not None and inside is not None and serial.casefold() != inside.casefold():
        found.append(_mismatch("hash_serial_mismatch", "serial_number", serial, inside))
    if maker is not None and whole.manufacturer is not None and maker != whole.manufacturer:
        found.append(_mismatch("hash_manufacturer_mismatch", "manufacturer", maker, whole.manufacturer))
    if model is not None and whole.model is not None and model != whole.model:
        found.append(_mismatch("hash_model_mismatch", "model", model, whole.model))
    given, key = product_key or "", whole.product_key or ""
    # Anything but 13 digits on either side is not a PKID, and can not be compared with one.
    if given != key and _PKID.fullmatch(given) and _PKID.fullmatch(key):
        found.append(_mismatch("hash_product_key_mismatch", "product_key", given, key))


def _mismatch(code: str, name: str, said: str, inside: str) -> Finding:
    return Finding(code, name, f"The row says {shown(said)}, the hash says {shown(inside)}.")


def _real_serial(whole: HardwareHash) -> str | None:
    """The serial number inside the hash if it can tell devices apart and be stored."""
    serial = whole.serial_number
    if serial is None or len(serial) > 256 or not serial.isprintable() or is_placeholder(serial):
        return None
    return serial


def _keys(
    serial: str | None,
    maker: str | None,
    model: str | None,
    product_key: str | None,
    whole: HardwareHash | None,
) -> tuple[str, ...]:
    """Exact values: a false duplicate would leave a device unregistered, a missed one costs one answer.

    The SMBIOS UUID counts together with the serial number only, because some makers give one UUID to
    many machines. Without a serial number it counts only if there is no TPM key, which is better.
    """
    keys = []
    if product_key is not None:
        keys.append(f"pkid:{product_key}")
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
