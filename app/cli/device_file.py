"""A device file as orders: which rows can be sent, what is wrong with the others, and how it is cut.

`app.intake` reads the file and the API judges its devices. This module does what is in between: it picks the
fields that the API takes, rejects values that the API would refuse unread, and cuts parts of an order's size.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from app.cli.outcome import Stop, reading
from app.cli.screen import field_words
from app.domain.masking import holds_secret
from app.domain.order import MAX_DEVICES
from app.intake.devices import SENT, device_of
from app.intake.rows import Dialect, Row, UnreadableFile, Wanted, read
from app.intake.text import encodings

LONGEST: Final[Mapping[str, int]] = {
    "serial_number": 4096,
    "manufacturer": 4096,
    "model": 4096,
    "product_key": 4096,
    "hardware_hash": 20_000,
    "group_tag": 4096,
    "line_ref": 255,
}
"""The fields that the API takes, with the length beyond which it refuses the whole order."""
MAX_REFERENCE: Final = 100
EncodingName = Annotated[
    str | None,
    typer.Option(
        "--encoding", help="Encoding of a text that does not state it, e.g. cp1251. Default: detected."
    ),
]
STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class FileRow:
    """`number` counts the rows with devices from 1; `line` is where the row starts in the file."""

    number: int
    line: int
    device: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    number: int
    line: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceFile:
    name: str
    digest: str
    """SHA-256 of the bytes, in hexadecimal."""
    dialect: Dialect
    rows: Sequence[FileRow]
    unreadable: Sequence[UnreadableRow]
    remarks: Mapping[tuple[str, str], int]
    """Warnings about rows: code and words -> rows they are about."""
    customers: Sequence[str]
    """The different customers the file names."""
    purchase_orders: Sequence[str]

    @property
    def row_count(self) -> int:
        return len(self.rows) + len(self.unreadable)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one order."""

    reference: str
    rows: Sequence[FileRow]

    def row_of(self, position: int) -> FileRow | None:
        """The file's row behind a row number of the order, which counts from 1."""
        return self.rows[position - 1] if 1 <= position <= len(self.rows) else None


def known_encoding(name: str | None) -> str | None:
    """Returns the name. Raises Stop for an unknown encoding."""
    if name is not None:
        try:
            encodings.named(name)
        except ValueError as error:
            raise Stop(f"The encoding {name!r} is not known.", str(error)) from None
    return name


def open_file(path: str, wanted: Wanted | None = None) -> DeviceFile:
    """Reads a file, or the standard input for `-`. Raises Stop when it gives no rows."""
    with reading(path):
        data = typer.get_binary_stream("stdin").read() if path == STDIN else Path(path).read_bytes()
    name = "standard input" if path == STDIN else Path(path).name
    rows: list[FileRow] = []
    unreadable: list[UnreadableRow] = []
    remarks: Counter[tuple[str, str]] = Counter()
    # Dictionaries as ordered sets, to show values in the file's order.
    customers: dict[str, None] = {}
    purchase_orders: dict[str, None] = {}
    try:
        dialect, source = read(io.BytesIO(data), wanted=wanted)
        for row in source:
            reasons = _reasons(row)
            if reasons:
                unreadable.append(UnreadableRow(row.number, row.line, reasons))
                continue
            remarks.update({(notice.code, notice.words) for notice in row.notices})
            rows.append(FileRow(row.number, row.line, _device(row)))
            fields = row.fields
            for field, found in (("customer", customers), ("purchase_order", purchase_orders)):
                if field in fields and not holds_secret(fields[field]):
                    found[fields[field].strip()] = None
    except UnreadableFile as error:
        raise Stop(f"{name} cannot be read.", error.words) from None
    return DeviceFile(
        name=name,
        digest=hashlib.sha256(data).hexdigest(),
        dialect=dialect,
        rows=rows,
        unreadable=unreadable,
        remarks=remarks,
        customers=list(customers),
        purchase_orders=list(purchase_orders),
    )


def default_reference(file: DeviceFile) -> str:
    """The default reference, from the file's name and content: the same file gets the same reference
    again."""
    stem = Path(file.name).stem if file.name != "standard input" else "stdin"
    legible = "".join(c if c.isprintable() and ord(c) != 0x7F else "_" for c in stem).strip()
    return f"{legible[:70] or 'devices'}-{file.digest[:10]}"


def cut(file: DeviceFile, reference: str) -> list[Part]:
    """One order, or several (`R-1`, `R-2`, ...) if the file has more devices than one order may have."""
    pieces = [file.rows[at : at + MAX_DEVICES] for at in range(0, len(file.rows), MAX_DEVICES)]
    if len(pieces) == 1:
        parts = [Part(reference, pieces[0])]
    else:
        parts = [Part(f"{reference}-{at}", piece) for at, piece in enumerate(pieces, start=1)]
    if any(len(part.reference) > MAX_REFERENCE for part in parts):
        raise Stop(
            f"The reference is too long: with its part number it has over {MAX_REFERENCE} characters.",
            "Give a shorter one with --reference.",
        )
    return parts


def body_of(part: Part, terms: Mapping[str, Any]) -> bytes:
    """The order as the API takes it. The same file and terms give the same bytes."""
    order = {**terms, "reference": part.reference, "devices": [row.device for row in part.rows]}
    return orjson.dumps(order)


def columns_read(dialect: Dialect) -> Iterator[tuple[str, str]]:
    """Columns that are sent or affect the order, each with the field it is read as."""
    for name, field in dialect.columns:
        if field is not None and field != "assigned_user":
            yield name, field_words(field)


def columns_unused(dialect: Dialect) -> list[str]:
    """Partner Center takes no assigned user, so that column is not sent either."""
    return [name for name, field in dialect.columns if field in (None, "assigned_user")]


def _reasons(row: Row) -> tuple[str, ...]:
    """Why a row cannot be sent, without its values. Empty if it can."""
    reasons = [notice.words for notice in row.notices] if not row.is_sound else []
    fields = row.fields
    for field, longest in LONGEST.items():
        if len(fields.get(field, "")) > longest:
            reasons.append(
                f"The {field_words(field)} has more than {longest:,} characters: have the columns shifted?"
            )
    return tuple(reasons)


def _device(row: Row) -> dict[str, str]:
    device = device_of(row)
    return {field: value for field in SENT if (value := getattr(device, field)) is not None}
