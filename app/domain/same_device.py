"""The rule for whether two records are of the same device, by comparing its identifiers.

Used to find a device among earlier orders (`db.history`, in SQL) and in Microsoft's listing. Values are
compared exactly, and a value that one side lacks is no contradiction. Rows of one order are compared more
strictly, by `CheckedDevice.keys`: rows that share a key are the same device by this rule too.
"""

from typing import NamedTuple, Protocol

from app.domain.product_key import is_usual


class Named(Protocol):
    """Anything that has a device's identifiers."""

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
    """Whether both are the same device. A PKID of the usual form belongs to one device; a PKID of another
    form or a serial number may belong to many."""
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
