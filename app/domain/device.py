"""A device as a caller sent it, before any check."""

from dataclasses import dataclass, field
from typing import Protocol

from app.domain.same_device import Named


@dataclass(frozen=True, slots=True)
class Device:
    serial_number: str | None = field(default=None, repr=False)
    manufacturer: str | None = None
    model: str | None = None
    product_key: str | None = field(default=None, repr=False)
    hardware_hash: str | None = field(default=None, repr=False)
    group_tag: str | None = None
    line_ref: str | None = None


class Given(Named, Protocol):
    """A device as the caller sent it, in any object with these fields: `Device`, or a row of a request's
    body, so that 10,000 rows need not be copied."""

    @property
    def hardware_hash(self) -> str | None: ...
    @property
    def group_tag(self) -> str | None: ...
    @property
    def line_ref(self) -> str | None: ...
