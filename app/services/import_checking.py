"""Judging the rows of a file: the very checks of an order, row by row, with bounded memory.

A verdict that is given here is the one that is committed later. It is made in two strokes, because
between them our own books are asked: `examine` is heavy and runs in a thread; `settle` adds what the
books say, and gives each valid row its place in the batches to be.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from app.db.engine import encode_json
from app.db.ids import new_row_ids
from app.db.sql import Record
from app.domain import hardware_hash
from app.domain.catalogue import Finding, lookup
from app.domain.directory import Directory, Entry
from app.domain.identity import CheckedDevice, IdentityKind, Rules
from app.domain.ids import PartnerId
from app.domain.imports import Verdict
from app.intake.devices import check_row
from app.intake.problems import problems_of, shown
from app.intake.table import Row
from app.platforms.base import Platform
from app.services.import_seen import Seen

ANY_IDENTITY = frozenset(IdentityKind)


@dataclass(slots=True)
class CustomerTerms:
    """What a customer's rows are judged by; `spellings` and `counted` grow while the file is read."""

    rules: Rules
    default_group_tag: str
    max_devices: int
    barred: str | None
    """Why nothing can be ordered for the customer, if so."""
    spellings: dict[str, str] | None = None
    """The customer's group tags by lower case; None until they have been looked up."""
    counted: Counter[str] = field(default_factory=Counter)
    """Valid rows so far, by group tag."""


@dataclass(slots=True)
class Examined:
    """A row with its own findings, before our books have been asked. Its duplicates are known."""

    row: Row
    device: CheckedDevice
    customer_id: UUID | None
    findings: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Staged:
    """A chunk fit for storage: rows and hashes as `db.import_rows` takes them."""

    rows: Sequence[Sequence[Any]]
    hashes: Sequence[tuple[UUID, UUID, int, bytes]]
    counts: Counter[Verdict]
    last_row: int


class Checker:
    """Everything one file's rows are judged by. Not to be shared between files."""

    def __init__(
        self,
        partner_id: PartnerId,
        record: Record,
        customers: Sequence[Record],
        platforms: Mapping[str, Platform],
        *,
        max_group_tag: int,
        now: datetime,
    ) -> None:
        self.partner_id = partner_id
        self.import_id: UUID = record["id"]
        self.given_customer: UUID | None = record["customer_id"]
        self.given_tag: str | None = record["group_tag"]
        self.now = now
        self.directory = Directory(
            Entry(row["id"], row["entra_tenant_id"], row["domain"], row["name"]) for row in customers
        )
        self.terms = {row["id"]: _terms(row, platforms, max_group_tag) for row in customers}
        self._seen = Seen()
        self._unknown = Rules(ANY_IDENTITY, max_group_tag=max_group_tag)

    # --- first stroke, in a thread --------------------------------------------------------------

    def examine(self, rows: Iterator[Row], limit: int) -> list[Examined]:
        """The next rows; an empty list at the end of the file. Raises UnreadableFile."""
        examined = []
        for row in rows:
            examined.append(self._examine(row))
            if len(examined) == limit:
                break
        return examined

    def _examine(self, row: Row) -> Examined:
        customer_id, objection = self.directory.of_row(row.fields.get("customer"), self.given_customer)
        terms = None if customer_id is None else self.terms[customer_id]
        device = check_row(row, self._unknown if terms is None else terms.rules, self.now)
        findings: list[dict[str, Any]] = []
        if row.notices or device.findings:
            findings = [
                _as_json(p.code, p.field, p.detail, p.column, p.value) for p in problems_of(row, device)
            ]
        own = [] if objection is None else [objection]
        if terms is not None and terms.barred is not None:
            own.append(Finding("partner_role_cannot_use_api", "customer", terms.barred))
        examined = Examined(row, device, customer_id, findings)
        _add(examined, own)
        if examined.device.is_valid:
            twin = self._seen.add(row.number, examined.device.keys, device.group_tag)
            if twin is not None:
                _add(examined, [twin])
        return examined

    # --- second stroke --------------------------------------------------------------------------

    def settle(self, examined: Sequence[Examined], from_books: Sequence[Sequence[Finding]]) -> Staged:
        """`from_books`: what `services.history` says about each row."""
        ids = new_row_ids(len(examined))
        rows = []
        hashes: list[tuple[UUID, UUID, int, bytes]] = []
        counts: Counter[Verdict] = Counter()
        for id, item, books in zip(ids, examined, from_books, strict=True):
            _add(item, books)
            tag = self._tag(item)
            place = self._place(item, tag)
            verdict = Verdict.INVALID if place is None else _milder(item.findings)
            counts[verdict] += 1
            rows.append(self._row(id, item, tag, place, verdict))
            if item.device.hash is not None:
                hashes.append((self.partner_id, self.import_id, item.row.number, item.device.hash.data))
        return Staged(rows, hashes, counts, examined[-1].row.number)

    def _tag(self, item: Examined) -> str | None:
        tag = item.device.group_tag or self.given_tag
        if tag is None and item.customer_id is not None:
            tag = self.terms[item.customer_id].default_group_tag
        return tag

    def _place(self, item: Examined, tag: str | None) -> tuple[int, int] | None:
        """Which batch of its customer and tag the row goes into, and where; None for an invalid row."""
        if not item.device.is_valid or item.customer_id is None or tag is None:
            return None
        terms = self.terms[item.customer_id]
        assert terms.spellings is not None  # looked up before the chunk is settled
        spelling = terms.spellings.setdefault(tag.lower(), tag)
        if spelling != tag:
            _add(item, [tag_conflict(tag, spelling)])
            return None
        at = terms.counted[tag]
        terms.counted[tag] += 1
        return divmod(at, terms.max_devices)

    def _row(
        self, id: UUID, item: Examined, tag: str | None, place: tuple[int, int] | None, verdict: Verdict
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
            tag,
            None if place is None else place[0],
            None if place is None else place[1],
            device.line_ref,
            _purchase_order(row),
            device.kind.value if device.kind is not None else None,
            device.search_serial,
            device.manufacturer,
            device.model,
            device.product_key,
            encode_json(item.findings) if item.findings else None,
            None if error is None else error["code"],
            None if error is None else error["detail"],
            _original(row, device),
        )


def tag_conflict(tag: str, spelling: str) -> Finding:
    return Finding(
        "group_tag_case_conflict",
        "group_tag",
        f"Partner Center can not tell {tag!r} from {spelling!r}, which this customer has already.",
    )


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding as it is stored with a row."""
    return _as_json(finding.code, finding.field, finding.detail, None, None)


def _as_json(
    code: str, field: str | None, detail: str, column: str | None, value: str | None
) -> dict[str, Any]:
    found = {"code": code, "field": field or "", "detail": detail}
    if column is not None:
        found["column"] = column
    if value is not None:
        found["value"] = value
    return found


def _add(item: Examined, findings: Sequence[Finding]) -> None:
    """An error among them makes the device invalid."""
    names: dict[str, str] = {}
    for finding in findings:
        if finding.field and not names:
            names = {known: column for column, known in item.row.columns if known is not None}
        column = names.get(finding.field)
        value = shown(item.row.fields.get(finding.field)) if column is not None else None
        item.findings.append(_as_json(finding.code, finding.field, finding.detail, column, value))
        if finding.is_error and item.device.is_valid:
            item.device = replace(item.device, kind=None, keys=())


def _milder(findings: Sequence[Mapping[str, Any]]) -> Verdict:
    return Verdict.WARNING if findings else Verdict.VALID


def _terms(row: Record, platforms: Mapping[str, Platform], max_group_tag: int) -> CustomerTerms:
    platform = platforms[row["platform"]]
    barred = None
    if row["partner_role"] in platform.barred_roles:
        barred = f"{platform.title} does not offer its API to partners of the role {row['partner_role']}."
    return CustomerTerms(
        Rules(platform.capabilities.identities, max_group_tag=max_group_tag),
        row["default_group_tag"],
        platform.capabilities.max_devices,
        barred,
    )


def _purchase_order(row: Row) -> str | None:
    text = (row.fields.get("purchase_order") or "").strip()
    return text if text and text.isprintable() and len(text) <= 255 else None


def _original(row: Row, device: CheckedDevice) -> str:
    """The row's cells as JSON. The hash's is null where the staged hash gives back the very same text:
    it is four fifths of a file, and need not be kept twice."""
    cells: list[str | None] = list(row.original)
    if device.hash is not None and not device.hash.repaired:
        for at, (_, known) in enumerate(row.columns[: len(cells)]):
            if known == "hardware_hash" and cells[at] == hardware_hash.encode(device.hash.data):
                cells[at] = None
    return orjson.dumps(cells, default=str).decode()


def restored(original: str, hash_data: bytes | None) -> list[str]:
    """The cells as they were in the file; empty for a hash that has been moved or deleted since."""
    text = "" if hash_data is None else hardware_hash.encode(hash_data)
    return [text if cell is None else cell for cell in orjson.loads(original)]
