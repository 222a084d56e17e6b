"""The file that a person uploads at a platform's portal: columns, encoding, name and upload steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from app.domain import hardware_hash
from app.domain.catalogue import Finding
from app.domain.identity import OutgoingDevice


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The format of the file that a person uploads at a platform's portal.

    Portals accept no quotation marks and only ANSI encodings, so values that need either cannot be in the
    file. ASCII is the common part of all ANSI code pages and UTF-8.
    """

    columns: tuple[tuple[str, str], ...]
    """The exact title that the portal expects, and the field in the column: one of `OutgoingDevice`'s
    identity fields, `hardware_hash` or `group_tag`."""
    steps: tuple[str, ...]
    """The steps for the person, in order; `{customer}`, `{tag}`, `{file}` and `{rows}` are filled in."""
    serial_from_hash: bool = False
    """The file must have a serial number: if a row has no usable one, the hash's own is written."""
    encoding: str = "ascii"
    delimiter: str = ","
    line_end: str = "\r\n"
    forbidden: str = '",'

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(title for title, _ in self.columns)

    @property
    def tag_is_the_lists_name(self) -> bool:
        """Whether the group tag is typed as the list's name, because the file has no column for it."""
        return all(field != "group_tag" for _, field in self.columns)

    def cells(self, device: OutgoingDevice, group_tag: str) -> tuple[str, ...]:
        """One row's cells, in the order of the columns. Fields outside the device's identity stay blank."""
        text = None if device.hash_data is None else hardware_hash.encode(device.hash_data)
        serial = device.serial_number
        if serial is None and text is not None and self.serial_from_hash:
            serial = hardware_hash.decode(text).serial_number
        values = {
            "serial_number": serial,
            "product_key": device.product_key,
            "hardware_hash": text,
            "manufacturer": device.manufacturer,
            "model": device.model,
            "group_tag": group_tag,
        }
        return tuple(values[field] or "" for _, field in self.columns)

    def objection(self, cells: Sequence[str]) -> Finding | None:
        """A finding for the first value of a row that the file cannot contain."""
        for (title, field), value in zip(self.columns, cells, strict=True):
            if barred := next((character for character in value if character in self.forbidden), None):
                what = "a comma" if barred == "," else "a quotation mark" if barred == '"' else f"{barred!r}"
                return Finding(
                    "comma_in_value", field, f"It has {what}, which the column {title!r} cannot have."
                )
            try:
                value.encode(self.encoding)
            except UnicodeEncodeError as error:
                place = error.start
                detail = (
                    f"Character {place + 1} is U+{ord(value[place]):04X}; "
                    f"the file has only {self.encoding.upper()}."
                )
                return Finding("value_not_in_format", field, detail)
            if not value.isprintable():
                return Finding("value_not_in_format", field, "It has characters that cannot be seen.")
        return None

    def write(self, rows: Sequence[Sequence[str]]) -> bytes:
        """The file's bytes, header included. The rows must have passed `objection`."""
        lines = (self.delimiter.join(cells) + self.line_end for cells in (self.header, *rows))
        return "".join(lines).encode(self.encoding)

    def file_name(self, group_tag: str, reference: str, number: int = 1) -> str:
        """The file's name, from the group tag and the order's reference; valid on every system.

        So two orders for one customer and tag have different file names. `number` counts files of one order
        that would share a name.
        """
        tag = _safe(group_tag)[:LONGEST_NAME_PART].strip(" .") or "devices"
        order = _safe(reference)[:LONGEST_NAME_PART].strip(" .")
        if order != reference:
            # Keep names different for references that differ only in replaced or cut-off characters.
            order = f"{order}-{crc32(reference.encode()):08x}".lstrip("-")
        if tag.partition(".")[0].rstrip().upper() in _RESERVED_NAMES:
            tag = f"_{tag}"
        return f"{tag} - {order}.csv" if number == 1 else f"{tag} - {order} ({number}).csv"

    def steps_for(self, *, customer: str, group_tag: str, file: str, rows: int) -> list[str]:
        amount = f"{rows:,} device" if rows == 1 else f"{rows:,} devices"
        filling = {"customer": customer, "tag": group_tag, "file": file, "rows": amount}
        return [step.format(**filling) for step in self.steps]


LONGEST_NAME_PART = 60
"""The most characters of the group tag and of the reference in a file's name."""
_RESERVED_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)
"""Names that Windows reserves for devices."""


def _safe(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in " -_().") else "_" for c in text)
