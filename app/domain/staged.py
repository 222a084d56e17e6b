"""Staged rows of an import, and the counts that are shown before orders are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.domain.same_device import DeviceNames


@dataclass(frozen=True, slots=True)
class StagedRow:
    """A staged row of a file, with its verdict."""

    row_number: int
    id: UUID
    line: int
    verdict: str
    changed: bool
    customer_id: UUID | None
    group_tag: str | None
    line_ref: str | None
    identity: str | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    findings: list[dict[str, Any]] | None
    error_code: str | None


@dataclass(frozen=True, slots=True)
class CustomerCounts:
    customer_id: UUID | None
    rows: int
    valid: int
    warning: int
    invalid: int
    changed: int
    purchase_order: str | None


@dataclass(frozen=True, slots=True)
class TagCounts:
    customer_id: UUID | None
    group_tag: str
    devices: int
    batches: int


@dataclass(frozen=True, slots=True)
class CodeCounts:
    code: str
    rows: int
    first_rows: Sequence[int]
    first_lines: Sequence[int]


@dataclass(frozen=True, slots=True)
class ValidRow:
    row_number: int
    customer_id: UUID
    group_tag: str
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None

    @property
    def names(self) -> DeviceNames:
        return DeviceNames(self.serial_number, self.manufacturer, self.model, self.product_key)


@dataclass(frozen=True, slots=True)
class StagedBatch:
    group_tag: str
    batch_part: int
    devices: int


@dataclass(frozen=True, slots=True)
class Original:
    """A row as it was in the file."""

    row_number: int
    line: int
    verdict: str
    findings: list[dict[str, Any]] | None
    original: str
    hash_data: bytes | None
