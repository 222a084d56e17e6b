"""Types that all readers share: records of cells, rows, a file's dialect, and notices.

They are the same for every format. None of them judges a device: `app.domain` decides whether a serial number
or a hash is valid. A notice names columns and lines, never a value.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from app.domain.catalogue import Severity, lookup

if TYPE_CHECKING:
    pass


MAX_FIELD: Final = 64 * 1024
"""The most characters of a cell; a hardware hash has 4,000."""
MAX_CELLS: Final = 512
DELIMITERS: Final = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Delimiters of cells in words, in order of preference if the content does not decide (a single column)."""
LOST_CHARACTER: Final = "\ufffd"
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for each character that no database stores."""
    return _UNSTORABLE.sub(LOST_CHARACTER, text)


class Kind(StrEnum):
    """The layout of the columns, as far as it is known."""

    COLLECTOR = "collector"  # Get-WindowsAutopilotInfo, 3 to 5 columns
    PARTNER_CENTER = "partner_center"  # Partner Center's five columns, either capitalisation
    CONFIGMGR = "configmgr"  # every row repeats the column names in front of its values
    HEADERLESS = "headerless"  # no names at all: the content decides
    GENERIC = "generic"  # known columns in another order


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice about the file or a row, for people.

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
    """How the quotation marks of a cell are odd."""

    INSIDE = auto()
    """A mark inside a quoted value is not doubled, but the end of the value is clear."""
    BEHIND = auto()
    """Text follows the mark that closes the value."""


class Record(NamedTuple):
    line: int
    cells: list[str]
    notices: tuple[Notice, ...]
    flaws: tuple[tuple[int, Flaw], ...] = ()
    """Cells, by their position, whose quotation marks are odd."""


class Block(NamedTuple):
    """Records of successive lines without quotation marks, damage or exceeded bounds.

    `line` is the first one's. Most files have only such lines, so these must be fast.
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
    """How the file was packed (`gzip`); None if it was not."""
    sheet: str | None = None
    """The sheet of a workbook that is read."""

    @property
    def omits(self) -> bool:
        """Whether devices may have been left out although no option said so."""
        return any(notice.code in OMISSIONS for notice in self.notices)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The user's options for reading a file. None: not given."""

    sheet: str | None = None
    """The name of the sheet to read."""
    include_hidden: bool | None = None
    """Whether to read hidden rows and columns. False: leave them out without a notice."""
    encoding: str | None = None
    """The encoding of a text that does not state one."""


OMISSIONS: Final = frozenset({"sheets_with_devices", "rows_hidden", "columns_hidden"})
"""Codes of notices that more of the file may have been meant than was read."""


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
"""Codes of notices that a value, or the meaning of a column, is a conclusion."""


class Reading(Protocol):
    """How to read the cells of a row. Rows of one header share it."""

    @property
    def pairs(self) -> tuple[tuple[str, str | None], ...]: ...

    def fields_of(self, cells: Sequence[str]) -> dict[str, str]: ...

    def extra_of(self, cells: Sequence[str]) -> dict[str, str]: ...


class Row(NamedTuple):
    """One device as written: values are not trimmed; empty and blank values are absent.

    `number` counts data rows from 1; `line` is the physical line on which the row starts; `cells` are all
    cells, with damage replaced by U+FFFD so that they can be stored. It is a named tuple with lazy fields,
    because a file has a million rows and some callers only count them.
    """

    number: int
    line: int
    cells: Sequence[str]
    notices: tuple[Notice, ...]
    reading: Reading

    @property
    def fields(self) -> dict[str, str]:
        """The known columns by field name (`app.intake.columns.FIELDS`). Built at every call."""
        return self.reading.fields_of(self.cells)

    @property
    def extra(self) -> dict[str, str]:
        """The other columns by their own names. Built at every call."""
        return self.reading.extra_of(self.cells)

    @property
    def original(self) -> tuple[str, ...]:
        return tuple(self.cells)

    @property
    def columns(self) -> tuple[tuple[str, str | None], ...]:
        """The columns that the row was read by, as in `Dialect`. They may change within a file."""
        return self.reading.pairs

    @property
    def is_sound(self) -> bool:
        """False if the row could not be split reliably and must not be sent."""
        return all(notice.severity is not Severity.ERROR for notice in self.notices)


class UnreadableFile(ValueError):
    """The file has no readable rows. `words` say what it seems to be and what to do.

    Raises KeyError if `code` is not in the catalogue.
    """

    def __init__(self, code: str, words: str) -> None:
        lookup(code)
        super().__init__(words)
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding. `mark` is the length of the byte order mark."""

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
    """The first bytes of a file, at most 64 KiB. `whole`: there are no more.

    `encoding` is the one that the user has named for a text.
    """

    data: bytes
    whole: bool
    encoding: Encoding | None = None


class Source(Protocol):
    """A stream of bytes, read forwards only. An empty result is the end."""

    def read(self, size: int = -1, /) -> bytes: ...
