"""The types that all readers share: records of cells, rows, the dialect of a file, and notices about them.

A caller sees the same thing whatever the file was. None of these values judges a device: `app.domain` decides
whether a serial number or a hash is any good. A notice names columns and lines, never a value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from app.domain.catalogue import Severity, lookup

if TYPE_CHECKING:
    from app.intake.profiles import Profile


MAX_FIELD: Final = 64 * 1024
"""Characters in one cell; a hardware hash has 4,000."""
MAX_CELLS: Final = 512


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

    An error on a row means that its values cannot be trusted; a warning leaves them usable.
    """

    code: str
    words: str
    column: str | None = None
    """The column's name in the file."""

    @property
    def severity(self) -> Severity:
        return lookup(self.code).severity


TOO_MANY_CELLS = Notice("too_many_cells", f"The row has more than {MAX_CELLS} cells; the rest was left out.")
LOST = Notice(
    "character_unreadable",
    "A value has a character that cannot be read: enter it again by hand.",
)


class Flaw(Enum):
    """What is odd about the quotation marks of one cell."""

    INSIDE = auto()
    """A mark stands inside of a quoted value and is not doubled; where the value ends is clear."""
    BEHIND = auto()
    """Text follows the mark that closes the value."""


class Record(NamedTuple):
    line: int
    cells: list[str]
    notices: tuple[Notice, ...]
    flaws: tuple[tuple[int, Flaw], ...] = ()
    """Cells, by their position, whose quotation marks are odd."""


class Block(NamedTuple):
    """Records of successive lines that have no quotation mark, no damage and no bound in sight.

    `line` is that of the first. Most files are nothing else, so these are what must be fast.
    """

    line: int
    cells: list[list[str]]


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

    @property
    def omits(self) -> bool:
        """Whether devices may have been left out that nobody said to leave out."""
        return any(notice.code in OMISSIONS for notice in self.notices)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person who gives a file says about it. None: nothing was said."""

    sheet: str | None = None
    """The name of the sheet to be read."""
    include_hidden: bool | None = None
    """Whether hidden rows and columns are read; False: they are knowingly left out."""
    encoding: str | None = None
    """The encoding of a text that does not state one."""


OMISSIONS: Final = frozenset({"sheets_with_devices", "rows_hidden", "columns_hidden"})
"""Notices about a file of which more than is read may be meant, without anybody having said so."""


GUESSES: Final = frozenset(
    {
        "column_by_content",
        "header_missing",
        "corporate_identifier_layout",
        "cells_split",
        "sheet_hidden",
        "encoding_guessed",
        "encoding_mixed",
        "letters_guessed",
    }
)
"""Notices that say that a value, or what a column means, was concluded and not written."""


class Reading(Protocol):
    """How the cells of a row are understood; rows of one header share it."""

    @property
    def pairs(self) -> tuple[tuple[str, str | None], ...]: ...

    def fields_of(self, cells: Sequence[str]) -> dict[str, str]: ...

    def extra_of(self, cells: Sequence[str]) -> dict[str, str]: ...


class Row(NamedTuple):
    """One device as written: values are not trimmed; empty and blank values are absent.

    `number` counts data rows from 1, as a person would; `line` is the physical line on which the
    row starts; `cells` are all of them, with damage replaced by U+FFFD so that they can be stored.
    A named tuple whose fields are looked up when they are asked for, because a file has a million
    rows and not everyone who counts them looks into them.
    """

    number: int
    line: int
    cells: Sequence[str]
    notices: tuple[Notice, ...]
    reading: Reading

    @property
    def fields(self) -> dict[str, str]:
        """The known columns by field name (`app.intake.columns.FIELDS`); built at every call."""
        return self.reading.fields_of(self.cells)

    @property
    def extra(self) -> dict[str, str]:
        """The other columns by their own names; built at every call."""
        return self.reading.extra_of(self.cells)

    @property
    def original(self) -> tuple[str, ...]:
        return tuple(self.cells)

    @property
    def columns(self) -> tuple[tuple[str, str | None], ...]:
        """Those that the row was read by, as in `Dialect`: a file may change them on its way."""
        return self.reading.pairs

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
class Encoding:
    """How bytes are characters. `mark` is the number of bytes of the byte order mark."""

    codec: str
    mark: int
    is_guess: bool = False

    @property
    def name(self) -> str:
        return f"{self.codec} with BOM" if self.mark else self.codec

    @property
    def is_utf16(self) -> bool:
        return self.codec.startswith("utf-16")


@dataclass(frozen=True, slots=True)
class Head:
    """The first bytes of a file, at most 64 KiB; `whole` when there are no more.

    `encoding` is the one that a person has named for a text.
    """

    data: bytes
    whole: bool
    encoding: Encoding | None = None


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
