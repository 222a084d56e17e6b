"""What a reader hands out: rows, the dialect they were written in, and notices about both.

These are the values that every format's reader shares, so that the caller sees the same thing
whatever the file was. They carry no judgement on a device: whether a serial number or a hash is
any good is decided in `app.domain`. A notice names columns and lines, never a value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from app.domain.catalogue import Severity, lookup

if TYPE_CHECKING:
    from app.intake.profiles import Profile


class Kind(StrEnum):
    """Who arranged the columns, as far as the file shows it."""

    COLLECTOR = "collector"  # Get-WindowsAutopilotInfo, 3 to 5 columns
    PARTNER_CENTER = "partner_center"  # Partner Center's five columns, either capitalisation
    CONFIGMGR = "configmgr"  # every row repeats the column names in front of its values
    HEADERLESS = "headerless"  # no names at all: the content decides
    GENERIC = "generic"  # known columns in an order of the writer's own


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should know about the file or a row.

    An error on a row means that its values can not be trusted; a warning leaves them usable.
    """

    code: str
    words: str
    column: str | None = None
    """The column's name in the file."""

    @property
    def severity(self) -> Severity:
        return lookup(self.code).severity


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written. `columns` pairs each name with the field it is read as, or None.

    `header_row` is the physical line (from 1) of the names, None when there is no such line.
    """

    format: str
    kind: Kind
    encoding: str
    delimiter: str
    header_row: int | None
    columns: tuple[tuple[str, str | None], ...]
    notices: tuple[Notice, ...] = ()
    container: str | None = None
    """What the file was packed in (`gzip`), None when it was not."""
    sheet: str | None = None
    """The sheet of a workbook that is read."""


class Row(NamedTuple):
    """One device as written: values are not trimmed; empty and blank values are absent.

    `number` counts data rows from 1, as a person would; `line` is the physical line on which the
    row starts. `fields` has the known columns by field name (`app.intake.columns.FIELDS`), `extra`
    the others by their own name, `original` every cell, with damage replaced by U+FFFD so that it
    can be stored. `columns` are those the row was read by, as in `Dialect`: a file may change them
    on its way. A named tuple, because a file has a million of them.
    """

    number: int
    line: int
    fields: Mapping[str, str]
    extra: Mapping[str, str]
    original: tuple[str, ...]
    notices: tuple[Notice, ...] = ()
    columns: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_sound(self) -> bool:
        """False when the row could not be taken apart reliably and must not be sent."""
        return all(notice.severity is not Severity.ERROR for notice in self.notices)


class UnreadableFile(ValueError):
    """No rows can be had from the file. `words` say what it seems to be and what to do.

    `code` is of the catalogue; KeyError for any other.
    """

    def __init__(self, code: str, words: str) -> None:
        lookup(code)
        super().__init__(words)
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a file, at most 64 KiB; `whole` when there are no more."""

    data: bytes
    whole: bool


class Source(Protocol):
    """Bytes, forwards only; nothing at all is the end."""

    def read(self, size: int = -1, /) -> bytes: ...


class Reader(Protocol):
    """One format. Implemented by a module: `claims` looks at the head only, `read` reads it all.

    A profile is a supplier's saved mapping; where it speaks, it outranks names and content.
    """

    def claims(self, head: Head) -> bool: ...

    def read(
        self, head: Head, stream: Source, profile: "Profile | None" = None
    ) -> tuple[Dialect, Iterator[Row]]: ...
