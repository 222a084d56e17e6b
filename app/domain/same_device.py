"""The rule by which two records are of one device: what names it, compared.

For a device that is looked for among others: those ordered before (`db.history`, in SQL) and those in
Microsoft's listing. Values are exact, and what one side lacks contradicts nothing. Rows of one order are
compared more strictly, by `CheckedDevice.keys`: two that share a key are the same by this as well.
"""

from typing import NamedTuple, Protocol

from app.domain.product_key import is_usual


class Named(Protocol):
    """Anything with what names a device."""

    @property
    def serial_number(self) -> str | None: ...
    @property
    def manufacturer(self) -> str | None: ...
    @property
    def model(self) -> str | None: ...
    @property
    def product_key(self) -> str | None: ...


class DeviceNames(NamedTuple):
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None


def is_same(one: Named, other: Named) -> bool:
    """A PKID of the usual form is one device's. Many may have one of another form, or a serial number."""
    if one.product_key is not None and one.product_key == other.product_key:
        return is_usual(one.product_key) or _agree(one.serial_number, other.serial_number)
    return (
        one.serial_number is not None
        and one.serial_number == other.serial_number
        and _agree(one.manufacturer, other.manufacturer)
        and _agree(one.model, other.model)
        and _agree(one.product_key, other.product_key)
    )


def _agree(ours: str | None, theirs: str | None) -> bool:
    return not ours or not theirs or ours == theirs
