"""Sentences about how a file was read: its format, its columns, and notices about it as a whole."""

from app.cli.device_file import columns_read, columns_unused
from app.cli.doubts import is_doubt
from app.cli.screen import Screen, number
from app.intake.rows import Dialect, Kind
from app.intake.table import DELIMITERS

_FORMATS = {"xlsx": "Excel workbook", "jsonl": "JSON Lines", "oa3": "OA3 report"}
_DELIMITERS = {**DELIMITERS, ":": "colons", "=": "equals signs"}


def format_words(
    *,
    format: str,
    delimiter: str | None,
    container: str | None,
    encoding: str,
    header_row: int | None,
    kind: str,
    sheet: str | None = None,
    **_: object,
) -> str:
    """Describes a file's format, also from the API's values."""
    separator = _DELIMITERS.get(delimiter or "")
    words = f"text separated by {separator}" if separator else _FORMATS.get(format, format)
    if container:
        words += f" in {container}"
    header = None if header_row is None else f"header in line {header_row}"
    if header is None and kind == Kind.HEADERLESS:
        header = "no header"
    return ", ".join(
        filter(None, (words, encoding.replace("utf", "UTF"), sheet and f"sheet '{sheet}'", header))
    )


def read_words(column: str, field: str) -> str:
    """A column and its field; only the field where both names say the same."""
    return field if column.casefold() == field else f"{field} ({column})"


def show_dialect(screen: Screen, name: str, dialect: Dialect, rows: int) -> None:
    """Describes the format, the columns that are read, and those that are not."""
    format = format_words(
        format=dialect.format,
        delimiter=dialect.delimiter,
        container=dialect.container,
        encoding=dialect.encoding,
        sheet=dialect.sheet,
        header_row=dialect.header_row,
        kind=dialect.kind,
    )
    columns = [read_words(column, field) for column, field in columns_read(dialect)]
    unused = columns_unused(dialect)
    pairs = [
        ("File", name),
        ("Format", format),
        ("Devices", number(rows)),
        ("Read as", ", ".join(columns)),
    ]
    screen.facts([*pairs, ("Not used", ", ".join(unused))] if unused else pairs)
    for notice in dialect.notices:
        if notice.code not in ("column_unknown", "column_not_sent") and not is_doubt(notice.code):
            screen.say(f"Note: {notice.words}")
