"""Turns the cells of a worksheet into text, by their types and styles."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from app.intake.table import LOST, LOST_CHARACTER, MAX_FIELD, Notice
from app.intake.xlsx.archive import damaged
from app.intake.xlsx.markup import without_escapes
from app.intake.xlsx.parts import Styles

EXACT: Final = 15
"""Digits that a spreadsheet keeps of a number."""

_EPOCH: Final = datetime(1899, 12, 30)  # noqa: DTZ001 - a sheet's dates have no zone
_EPOCH_1904: Final = _EPOCH + timedelta(days=1462)


class Mark(Enum):
    """A cell's content other than text."""

    NUMBER = auto()
    ROUNDED = auto()
    DATE = auto()
    ERROR = auto()
    BOOLEAN = auto()
    UNCALCULATED = auto()
    """A formula without a stored result."""


class SheetRow(NamedTuple):
    line: int
    cells: list[str]
    marks: Sequence[tuple[int, Mark]]
    notices: tuple[Notice, ...]
    is_hidden: bool = False


@dataclass(slots=True)
class RowSink:
    """Collects the rows of one sheet. `line` is the last one's."""

    rows: list[SheetRow] = field(default_factory=list)
    line: int = 0


class Texts(Protocol):
    """The workbook's shared texts by number. Raises IndexError for a missing one."""

    def __getitem__(self, at: int, /) -> str: ...

    def all_of(self, numbers: Iterable[str]) -> list[str]:
        """The texts of many cells at once. Raises ValueError for something that is not a number."""
        ...


class Values:
    """The text of a cell by its type and style."""

    def __init__(self, styles: Styles, texts: Texts) -> None:
        self.texts = texts
        self._styles = styles
        self.places = _Places()

    def of(
        self, at: int, type_: str, style: str, text: str, marks: list[tuple[int, Mark]], flaws: list[Notice]
    ) -> str:
        if type_ == "s":
            text = _shared(self.texts, text)
        elif type_ in ("", "n"):
            text, mark = _of_number(text, style, self._styles)
            if mark is not None:
                marks.append((at, mark))
        elif type_ == "b":
            text = "TRUE" if text.strip() == "1" else "FALSE"
            marks.append((at, Mark.BOOLEAN))
        elif type_ == "e":
            marks.append((at, Mark.ERROR))
        elif type_ == "d":
            marks.append((at, Mark.DATE))
        if len(text) > MAX_FIELD:
            flaws.append(_too_long(at))
            return ""
        if type_ != "s":
            text = without_escapes(text)
        if LOST_CHARACTER in text and LOST not in flaws:
            flaws.append(LOST)
        return text


class _Places(dict[str, int]):
    """The position of a column by its letters, -1 for anything else."""

    def __missing__(self, letters: str) -> int:
        at = _column(letters)
        if len(self) < 20_000:
            self[letters] = at
        return at


def _column(letters: str) -> int:
    place = 0
    if not 0 < len(letters) <= 3 or not letters.isascii() or not letters.isalpha():
        return -1
    for letter in letters.upper():
        place = place * 26 + ord(letter) - 64
    return place - 1


def _shared(texts: Texts, value: str) -> str:
    """Raises UnreadableFile for a missing text. As an empty cell it would lose a device."""
    if not (value := value.strip()):
        return ""
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise damaged()
    try:
        return texts[int(value)]
    except IndexError:
        raise damaged() from None


def _of_number(value: str, style: str, styles: Styles) -> tuple[str, Mark | None]:
    """A number as digits, shown with leading zeros if its format only adds those."""
    if not value:
        return "", None
    number = int(style) if style.isascii() and style.isdecimal() and len(style) < 6 else 0
    if number in styles.dates:
        return _as_date(value, _EPOCH_1904 if styles.counts_from_1904 else _EPOCH), Mark.DATE
    if value.isascii() and value.isdecimal() and len(value) <= EXACT:
        width = styles.digits.get(number)
        return (value, Mark.NUMBER) if width is None else (value.zfill(width), None)
    return _unusual(value)


def _unusual(value: str) -> tuple[str, Mark]:
    """`4.89871E+12` and `4898710000000.0` are 4898710000000; fractions stay as they are."""
    try:
        number = Decimal(value.strip()) if len(value) < 64 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number.adjusted() > 40 or number.adjusted() < -40:
        return value, Mark.ROUNDED
    if number != number.to_integral_value():
        return value, Mark.NUMBER
    digits = format(number.to_integral_value(), "f")
    return digits, Mark.NUMBER if len(digits.lstrip("-")) <= EXACT else Mark.ROUNDED


def _as_date(value: str, epoch: datetime) -> str:
    try:
        moment = epoch + timedelta(days=float(value))
    except (ValueError, OverflowError):
        return value
    return (
        moment.date().isoformat()
        if moment.time() == datetime.min.time()
        else moment.isoformat(" ", "seconds")
    )


def _too_long(at: int) -> Notice:
    words = f"Cell {at + 1} has more than {MAX_FIELD:,} characters and was left out."
    return Notice("cell_too_long", words)
