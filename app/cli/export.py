"""`registrar export`: writes devices' outcomes as CSV or JSON Lines, for an order or a filter.

Rows are written as they arrive, so that a million need little memory. A file gets its name only when it is
complete. A CSV is safe to open: a cell that a spreadsheet would run as a formula is written as text.
"""

import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import orjson
import typer

from app.cli.api_client import Api, JsonObject
from app.cli.customers import customer_names, find_customer
from app.cli.listing import CustomerOption, Since, moment_of
from app.cli.outcome import ExitCode, Stop
from app.cli.references import find_orders, order_references
from app.cli.results import reason
from app.cli.screen import Screen, amount
from app.cli.surroundings import DEFAULT_URL, ORDERS_PANEL, ApiKey, ApiUrl, surroundings
from app.domain.characters import escaped
from app.domain.registration import RegistrationState
from app.intake.corrections import disarmed

app = typer.Typer()

STDOUT: Final = Path("-")
BOM: Final = "\ufeff"
"""Without this byte order mark, spreadsheets read UTF-8 as the local code page."""
COLUMNS: Final = (
    *("order", "row", "state", "code", "problem", "remedy", "group tag", "line", "serial number"),
    *("manufacturer", "model", "PKID", "customer", "changed"),
)
CHUNK: Final = 500
"""Rows that are written at a time."""


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"


@app.command("export", rich_help_panel=ORDERS_PANEL)
def export(
    ctx: typer.Context,
    order: Annotated[
        str | None, typer.Argument(help="The order's id or reference. Default: the devices of all orders.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; `-` is stdout.")] = STDOUT,
    format: Annotated[
        Format | None,
        typer.Option(metavar="FORMAT", help="csv or jsonl. Default: by the file's name, otherwise csv."),
    ] = None,
    state: Annotated[
        RegistrationState | None,
        typer.Option(metavar="STATE", help="Only devices in this state, such as failed."),
    ] = None,
    code: Annotated[str | None, typer.Option("--code", help="Only devices with this error code.")] = None,
    customer: CustomerOption = None,
    since: Since = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
) -> int:
    """Write the outcomes of devices to a file or to the output, as CSV or JSON Lines.

    The CSV of an order, without a filter, has the columns of the order's
    file, like `result.csv` of the API.
    """  # fmt: skip
    if order and customer:
        raise Stop("An order has one customer.", "Leave --customer out.", error_code="command_misused")
    if out.suffix.lower() in (".xlsx", ".xls", ".ods"):
        raise Stop(
            "It writes CSV or JSON Lines, and no workbook.",
            "Name the file .csv, which every spreadsheet program opens.",
            error_code="command_misused",
        )
    form = format or (Format.JSONL if out.suffix in (".jsonl", ".ndjson") else Format.CSV)
    with surroundings(ctx).api(api_url, api_key) as api, _target(out) as write:
        filters = {
            "state": None if state is None else state.value,
            "error_code": code,
            "customer_id": find_customer(api, customer)["id"] if customer else None,
            "since": moment_of(since),
        }
        orders = find_orders(api, order) if order else []
        if len(orders) == 1 and form is Format.CSV and not any(filters.values()):
            api.save(f"/v1/orders/{orders[0]['id']}/result.csv", write)
            rows = orders[0]["counts"]["total"]
        else:
            rows = _write(api, write, form, _devices(api, orders, filters, everywhere=order is None))
    if out != STDOUT:
        Screen().say(f"{amount(rows, 'device')} written to {out}.")
    return ExitCode.DONE


def _devices(
    api: Api, orders: Sequence[JsonObject], filters: dict[str, str | None], *, everywhere: bool
) -> Iterable[JsonObject]:
    """Devices of the orders, by row; or of all orders, newest first."""
    if everywhere:
        return api.items("/v1/registrations", limit=None, **filters)
    paths = (f"/v1/orders/{order['id']}/registrations" for order in orders)
    return chain.from_iterable(api.items(path, limit=None, **filters) for path in paths)


def _write(api: Api, write: Callable[[bytes], object], form: Format, devices: Iterable[JsonObject]) -> int:
    if form is Format.CSV:
        write((BOM + _csv([COLUMNS])).encode())
    references: dict[str, str] = {}
    names: dict[str, str] = {}
    total = 0
    for chunk in _chunks(devices):
        total += len(chunk)
        if form is Format.JSONL:
            write("".join(f"{escaped(orjson.dumps(row).decode())}\n" for row in chunk).encode())
            continue
        references |= order_references(api, {row["order_id"] for row in chunk} - references.keys())
        names |= customer_names(api, {row["customer_id"] for row in chunk} - names.keys())
        lines = [_cells(row, references[row["order_id"]], names[row["customer_id"]]) for row in chunk]
        write(_csv(lines).encode())
    return total


def _chunks(devices: Iterable[JsonObject]) -> Iterator[list[JsonObject]]:
    chunk: list[JsonObject] = []
    for device in devices:
        chunk.append(device)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _cells(row: JsonObject, reference: str, customer: str) -> Sequence[object]:
    return (
        reference,
        row["row"],
        row["state"],
        row["error_code"],
        reason(row),
        row["remedy"],
        row["group_tag"],
        row["line_ref"],
        row["serial_number"],
        row["manufacturer"],
        row["model"],
        row["product_key"],
        customer,
        row["updated_at"],
    )


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([disarmed("" if cell is None else str(cell)) for cell in line] for line in lines)
    return text.getvalue()


@contextmanager
def _target(out: Path) -> Iterator[Callable[[bytes], object]]:
    if out == STDOUT:
        yield from _output(typer.get_binary_stream("stdout"))
        return
    try:
        # In the same folder, so that it can be renamed. For its owner only, because it names devices.
        descriptor, part = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-")
    except OSError as error:
        raise _not_written(out, error) from None
    try:
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream.write
            Path(part).replace(out)
        except OSError as error:
            raise _not_written(out, error) from None
    finally:
        Path(part).unlink(missing_ok=True)


def _output(stream: BinaryIO) -> Iterator[Callable[[bytes], object]]:
    try:
        yield stream.write
        stream.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does: write no more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _not_written(out: Path, error: OSError) -> Stop:
    return Stop(f"{out} cannot be written: {error.strerror or error}.", error_code="file_not_written")
