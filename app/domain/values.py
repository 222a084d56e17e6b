"""The values of one row: cleaned, and checked one by one.

What the values identify together is decided in `identity`. Most values are plain, and a large order has
10,000 rows, so the slow checks run only for the others.
"""

from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeAlias

from app.domain import cell_text, hardware_hash, product_key
from app.domain.catalogue import Finding
from app.domain.device import Given
from app.domain.firmware_text import FINE, PLAIN_SERIAL, Said, is_list, of_name, of_serial
from app.domain.hardware_hash import HardwareHash, HashError
from app.domain.masking import HOLDS_KEY_OR_HASH, holds_secret, quoted, visible
from app.domain.placeholders import is_no_hash, is_no_tag

SERIAL, MAKER, MODEL, KEY, HASH = 1, 2, 4, 8, 16
FIELDS: Final = (
    (SERIAL, "serial_number"),
    (MAKER, "manufacturer"),
    (MODEL, "model"),
    (KEY, "product_key"),
    (HASH, "hardware_hash"),
)


class Limits(Protocol):
    """The most characters of a value."""

    @property
    def max_group_tag(self) -> int: ...
    @property
    def max_value(self) -> int: ...


class Unfit(NamedTuple):
    """A value that cannot be part of an identity."""

    bit: int
    error: Finding
    """The error to report if nothing else identifies the device."""
    beside: Finding
    """The warning to report if something else does: the value is then left out."""


class Values:
    """A row's usable values, and the findings about each."""

    __slots__ = (
        *("found", "given", "group_tag", "line_ref", "maker", "model", "product_key", "serial", "spoilt"),
        *("unfit", "unusual", "whole"),
    )

    def __init__(self, device: Given, limits: Limits) -> None:
        self.found: list[Finding] = []
        self.unfit: list[Unfit] = []
        self.unusual = False
        """The PKID is of an unusual form."""
        limit = limits.max_value
        maker, model = device.manufacturer, device.model
        self.maker = None if maker is None else self._name(MAKER, "manufacturer", maker, limit)
        self.model = None if model is None else self._name(MODEL, "model", model, limit)
        serial, key = device.serial_number, device.product_key
        # Most values are plain: nothing to remove, nothing to check.
        if serial is not None and not PLAIN_SERIAL.fullmatch(serial):
            serial = self._serial(serial, limit)
        if key is not None and not product_key.USUAL.fullmatch(key):
            key = self._product_key(key, limit)
        self.serial, self.product_key = serial, key
        self.spoilt = _spoilt(self.found) if self.found else 0
        tag, line_ref = device.group_tag, device.line_ref
        self.group_tag = None if tag is None else self._group_tag(tag, limits.max_group_tag)
        self.line_ref = None if line_ref is None else self._line_ref(line_ref, limit)
        # A field with an error counts as given, so that people see its error and not that it is missing.
        self.given = self.spoilt
        self.whole: HardwareHash | None = None
        text = device.hardware_hash
        if text and not text.isspace() and (text := self._hash_text(text)):
            self.given |= HASH
            self.whole = self._decoded(text)
        if self.serial is not None:
            self.given |= SERIAL
        if self.maker is not None:
            self.given |= MAKER
        if self.model is not None:
            self.given |= MODEL
        if self.product_key is not None:
            self.given |= KEY

    def usable(self) -> int:
        """The fields that can be part of an identity."""
        bits = self.given & ~self.spoilt
        for unfit in self.unfit:
            bits &= ~unfit.bit
        if self.unusual:
            bits &= ~KEY
        if self.whole is None:
            bits &= ~HASH
        return bits

    def leave_out(self, bit: int) -> None:
        if bit == SERIAL:
            self.serial = None
        elif bit == MAKER:
            self.maker = None
        elif bit == MODEL:
            self.model = None
        elif bit == KEY:
            self.product_key = None
        self.given &= ~bit

    def _serial(self, value: str, limit: int) -> str | None:
        before = len(self.found)
        if "\n" in value or "\r" in value:
            # Invisible line breaks are an error of their own; this one says what they mean.
            text = value.strip()[: 4 * limit]
            if is_list(text):
                words = f"It reads {quoted(text)}."
                self.found.append(Finding("several_serials", "serial_number", words))
                return visible(text[:limit])
        bare = cell_text.bare("serial_number", value, limit, self.found)
        if bare is None or any(finding.is_error for finding in self.found[before:]):
            return bare
        return self._add(SERIAL, "serial_number", bare, of_serial(bare, self.maker, self.model))

    def _name(self, bit: int, name: str, value: str, limit: int) -> str | None:
        text, found, said = (
            _read_name(name, value, limit) if len(value) <= limit else _name(name, value, limit)
        )
        self.found += found
        return None if text is None else self._add(bit, name, text, said)

    def _add(self, bit: int, name: str, text: str, said: Said) -> str | None:
        self.found += said.found
        if said.unfit is not None:
            beside = Finding("value_not_sent", name, f"{said.unfit.detail} It is not sent.")
            if said.placeholder:
                beside = Finding("value_placeholder", name, f"{said.unfit.detail} It counts as empty.")
            self.unfit.append(Unfit(bit, said.unfit, beside))
        elif said.found and said.found[0].code == "value_is_secret":
            return None
        return text

    def _product_key(self, value: str, limit: int) -> str | None:
        before = len(self.found)
        plain = None if value.isprintable() else cell_text.squeezed(value)
        if plain is not None and product_key.USUAL.fullmatch(plain):
            self.found.append(product_key.cleaned(value))
            return plain
        text = cell_text.bare("product_key", value, limit, self.found, error_is_empty=True)
        if text is None or any(finding.is_error for finding in self.found[before:]):
            return None  # unreadable, so it could be anything, including a secret
        judged = product_key.judge(text)
        self.found += judged.found
        self.unusual = judged.unusual
        if judged.unfit is not None:
            beside = Finding("value_not_sent", "product_key", f"{judged.unfit.detail} It is not sent.")
            self.unfit.append(Unfit(KEY, judged.unfit, beside))
        return judged.value

    def _group_tag(self, value: str, limit: int) -> str | None:
        text, found = _read_tag(value, limit) if len(value) <= limit else _tag(value, limit)
        self.found += found
        return text

    def _line_ref(self, value: str, limit: int) -> str | None:
        text = cell_text.clean("line_ref", value, limit, self.found, keep_blanks=True)
        if text is not None and holds_secret(text):
            self.found.append(Finding("secret_left_out", "line_ref", HOLDS_KEY_OR_HASH))
            return None
        return text

    def _hash_text(self, text: str) -> str | None:
        """The hash without anything around it; None for a placeholder, which counts as empty."""
        if text.startswith("T0") and text not in ("T0", "T0H"):
            return text
        bare: str | None = text.strip()
        if bare and (bare[0] in cell_text.QUOTES or bare[0] == "="):
            bare = cell_text.unwrapped("hardware_hash", bare, self.found, error_is_empty=True)
        if bare and cell_text.is_error(bare):
            self.found.append(cell_text.error_as_empty("hardware_hash", bare))
            return None
        if bare and is_no_hash(bare):
            words = f"It reads {quoted(bare)} and counts as empty."
            self.found.append(Finding("value_placeholder", "hardware_hash", words))
            return None
        return bare

    def _decoded(self, text: str) -> HardwareHash | None:
        try:
            return hardware_hash.decode(text)
        except HashError as error:
            self.found.append(Finding(error.code, "hardware_hash", error.detail))
            return None


_Name: TypeAlias = tuple[str | None, tuple[Finding, ...], Said]


def _name(name: str, value: str, limit: int) -> _Name:
    found: list[Finding] = []
    text = cell_text.bare(name, value, limit, found)
    said = FINE
    if text is not None and not (found and any(finding.is_error for finding in found)):
        said = of_name(name, text)
    return text, tuple(found), said


def _tag(value: str, limit: int) -> tuple[str | None, tuple[Finding, ...]]:
    found: list[Finding] = []
    text = cell_text.clean(
        "group_tag", value, limit, found, too_long="group_tag_too_long", error_is_empty=True
    )
    if text is None or any(finding.is_error for finding in found):
        return text, tuple(found)
    text = cell_text.of_formula_only("group_tag", text, found)
    if text is not None and is_no_tag(text):
        words = f"It reads {quoted(text)} and counts as empty."
        return None, (*found, Finding("value_placeholder", "group_tag", words))
    if text is not None and holds_secret(text):
        return None, (*found, Finding("value_is_secret", "group_tag", HOLDS_KEY_OR_HASH))
    return text, tuple(found)


# An order has few makers, models and group tags. A value over its limit is not worth remembering.
_read_name = lru_cache(maxsize=2048)(_name)
_read_tag = lru_cache(maxsize=2048)(_tag)


def _spoilt(found: list[Finding]) -> int:
    names = {finding.field for finding in found if finding.is_error}
    return sum(bit for bit, name in FIELDS if name in names)


def names_of(bits: int) -> list[str]:
    return [name for bit, name in FIELDS if bits & bit]
