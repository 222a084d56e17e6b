"""Checks the rows of a file with the checks of an order, row by row, in bounded memory.

The verdict given here is the one that is committed later. It takes two steps with a query between them:
`examine` is heavy and runs in a thread; `settle` adds what the partner's earlier orders say, and gives each
valid row its place in a future batch.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from app.db.engine import encode_json
from app.db.ids import new_row_ids
from app.domain import hardware_hash
from app.domain.batch import Cutting
from app.domain.catalogue import Finding, lookup
from app.domain.customer import OrderableCustomer
from app.domain.directory import Directory, Entry
from app.domain.duplicates import Compared
from app.domain.group_tag import Spellings, tag_of
from app.domain.identity import CheckedDevice, IdentityKind, Rules
from app.domain.ids import PartnerId
from app.domain.imports import Import, Verdict
from app.domain.masking import holds_secret, shown
from app.domain.planning import OrderRules
from app.intake.corrections import Pairs
from app.intake.devices import check_row, without_secrets
from app.intake.problems import Problem, problems_of
from app.intake.table import Row
from app.runtime import Runtime
from app.services.connections.terms import bar_of, order_rules

ANY_IDENTITY = frozenset(IdentityKind)


@dataclass(slots=True)
class OrderToBe:
    """The order that a customer's rows will become. `cutting` and `spellings` grow during the reading."""

    rules: OrderRules
    barred: str | None
    """Why nothing can be ordered for the customer, if so."""
    cutting: Cutting
    spellings: Spellings | None = None
    """None until the customer's group tags have been looked up."""


@dataclass(slots=True)
class Examined:
    """A row with its own findings, duplicates included, but without those from earlier orders."""

    row: Row
    device: CheckedDevice
    customer_id: UUID | None
    group_tag: str | None
    """The row's own, otherwise the import's, otherwise the customer's."""
    purchase_order: str | None
    findings: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Staged:
    """A chunk ready to be stored: rows and hashes as `db.import_rows` takes them."""

    rows: Sequence[Sequence[Any]]
    hashes: Sequence[tuple[UUID, UUID, int, bytes]]
    counts: Counter[Verdict]


class Checker:
    """Everything that one file's rows are checked by. Make one for each file."""

    def __init__(
        self,
        partner_id: PartnerId,
        record: Import,
        customers: Sequence[OrderableCustomer],
        runtime: Runtime,
        now: datetime,
    ) -> None:
        self.partner_id = partner_id
        self.import_id: UUID = record.id
        self.given_customer: UUID | None = record.customer_id
        self.given_tag: str | None = record.group_tag
        self.now = now
        self.directory = Directory(
            Entry(row.id, row.entra_tenant_id, row.domain, row.name) for row in customers
        )
        self.orders = {row.id: _order_to_be(runtime, row, self.given_tag) for row in customers}
        self._compared = Compared()
        self._unknown = Rules(ANY_IDENTITY, max_group_tag=runtime.settings.max_group_tag)
        self.columns: Pairs = ()
        """The file's columns; a row with other columns stores its own."""

    @property
    def late_duplicates(self) -> list[tuple[int, Finding]]:
        """Rows that a later row showed to duplicate an earlier one. Complete after the last row."""
        return list(self._compared.late.items())

    # --- first step, in a thread ----------------------------------------------------------------

    def examine(self, rows: Iterator[Row], limit: int, breathe: Callable[[], None]) -> list[Examined]:
        """Returns the next rows; an empty list at the end of the file. Raises UnreadableFile, and whatever
        `breathe` raises."""
        examined = []
        for row in rows:
            examined.append(self._examine(row))
            breathe()
            if len(examined) == limit:
                break
        return examined

    def _examine(self, row: Row) -> Examined:
        fields = row.fields
        customer_id, objection = self.directory.of_row(fields.get("customer"), self.given_customer)
        order = None if customer_id is None else self.orders[customer_id]
        device = check_row(row, self._unknown if order is None else order.rules.of_rows, self.now)
        objections = [] if objection is None else [objection]
        if order is not None and order.barred is not None:
            objections.append(Finding("partner_role_cannot_use_api", "customer", order.barred))
        if any(finding.is_error for finding in objections):
            device = device._replace(kind=None, keys=())
        default = self.given_tag if order is None else order.rules.group_tag
        tag = tag_of(device.group_tag, default) or None
        # Invalid rows are counted too, so that the numbers are those of the file.
        device = self._compared.add(device, tag)
        findings: list[dict[str, Any]] = []
        if row.notices or device.findings:
            findings = [_as_json(p, p.column, p.value) for p in problems_of(row, device)]
        purchase_order = _purchase_order(fields.get("purchase_order"))
        examined = Examined(row, device, customer_id, tag, purchase_order, findings)
        if objections:
            _add(examined, objections)
        return examined

    # --- second step ----------------------------------------------------------------------------

    def settle(self, examined: Sequence[Examined], from_books: Sequence[Sequence[Finding]]) -> Staged:
        """`from_books`: the findings of `earlier_registrations` for each row."""
        ids = new_row_ids(len(examined))
        rows = []
        hashes: list[tuple[UUID, UUID, int, bytes]] = []
        counts: Counter[Verdict] = Counter()
        for id, item, books in zip(ids, examined, from_books, strict=True):
            if books:
                _add(item, books)
            place = self._place(item)
            verdict = Verdict.INVALID if place is None else _valid_or_warning(item.findings)
            counts[verdict] += 1
            rows.append(self._row(id, item, place, verdict))
            if item.device.hash is not None:
                hashes.append((self.partner_id, self.import_id, item.row.number, item.device.hash.data))
        return Staged(rows, hashes, counts)

    def _place(self, item: Examined) -> tuple[int, int] | None:
        """Returns the batch of the row's customer and tag, and its place there; None for an invalid row."""
        tag = item.group_tag
        if not item.device.is_valid or item.customer_id is None or tag is None:
            return None
        order = self.orders[item.customer_id]
        assert order.spellings is not None  # looked up before the chunk is settled
        if (conflict := order.spellings.conflict(tag)) is not None:
            _add(item, [conflict])
            return None
        return order.cutting.place(tag)

    def _row(
        self, id: UUID, item: Examined, place: tuple[int, int] | None, verdict: Verdict
    ) -> tuple[Any, ...]:
        row, device = item.row, item.device
        error = next((f for f in item.findings if lookup(f["code"]).severity == "error"), None)
        return (
            self.partner_id,
            self.import_id,
            row.number,
            id,
            row.line,
            verdict.value,
            item.customer_id,
            item.group_tag,
            None if place is None else place[0],
            None if place is None else place[1],
            device.line_ref,
            item.purchase_order,
            device.kind.value if device.kind is not None else None,
            device.search_serial,
            device.manufacturer,
            device.model,
            device.product_key,
            encode_json(item.findings) if item.findings else None,
            None if error is None else error["code"],
            None if error is None else error["detail"],
            self._original(row, device),
        )

    def _original(self, row: Row, device: CheckedDevice) -> str:
        """The row's cells as JSON. A hash's cell is null if the staged hash gives back the same text: hashes
        are four fifths of a file, and are not stored twice. Product keys and pieces of hashes are replaced by
        a mark."""
        cells: list[str | None] = list(without_secrets(row))
        if device.hash is not None and not device.hash.repaired:
            for at, (_, known) in enumerate(row.columns[: len(cells)]):
                if known == "hardware_hash" and cells[at] == hardware_hash.encode(device.hash.data):
                    cells[at] = None
        if row.columns != self.columns:
            return orjson.dumps({"cells": cells, "columns": row.columns}).decode()
        return orjson.dumps(cells).decode()


def _as_json(found: Finding | Problem, column: str | None, value: str | None) -> dict[str, Any]:
    """A finding on a row, with column and value if the file has them."""
    named = {"column": column, "value": value}
    remark = {"code": found.code, "field": found.field or "", "detail": found.detail}
    return remark | {name: said for name, said in named.items() if said is not None}


def _add(item: Examined, findings: Sequence[Finding]) -> None:
    """Adds findings. An error among them makes the device invalid."""
    for finding in findings:
        column = value = None
        if finding.field:
            names = {known: name for name, known in item.row.columns if known is not None}
            column, value = names.get(finding.field), shown(item.row.fields.get(finding.field))
        item.findings.append(_as_json(finding, column, value))
    item.device = item.device.noted(*findings)


def _valid_or_warning(findings: Sequence[Mapping[str, Any]]) -> Verdict:
    return Verdict.WARNING if findings else Verdict.VALID


def _order_to_be(runtime: Runtime, customer: OrderableCustomer, given_tag: str | None) -> OrderToBe:
    rules = order_rules(runtime, customer, given_tag)
    barred = bar_of(runtime.platforms[customer.platform], customer.partner_role, customer.mode)
    return OrderToBe(rules, barred, Cutting(rules.max_devices))


def _purchase_order(text: str | None) -> str | None:
    text = (text or "").strip()
    return text if text and text.isprintable() and len(text) <= 255 and not holds_secret(text) else None


def restored(original: str, hash_data: bytes | None) -> tuple[list[str], Pairs | None]:
    """Returns a row's cells as they were in the file, and its own columns if they differ from the file's.

    Such a row may have no column at all: a line that could not be read. The cell of a hash that has since
    been moved or deleted is empty.
    """
    found = orjson.loads(original)
    pairs: Pairs | None = None
    if isinstance(found, dict):
        found, pairs = found["cells"], tuple((name, known) for name, known in found["columns"])
    text = "" if hash_data is None else hardware_hash.encode(hash_data)
    return [text if cell is None else cell for cell in found], pairs
