"""Repairs rows in which a separator inside a value has split it into two cells.

Such a row has more cells than the file has columns. If the pieces fit together in only one way, they are
joined again with a notice. Otherwise everything after the tear may be in the wrong column. A hash or a PKID
in its own column proves that the row is whole up to there, and it is sent without the rest. All other such
rows are errors.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from app.intake import column_guess
from app.intake.table import Notice

_SURE: Final = (
    "ltd", "ltd.", "limited", "inc", "inc.", "incorporated", "llc", "l.l.c.", "corp", "corp.", "corporation",
    "gmbh", "co. ltd", "co. ltd.", "co.ltd.", "co.ltd", "pte ltd", "pte. ltd.", "pty ltd", "pty. ltd.",
)  # fmt: skip
"""Legal forms of companies, which no model is named after."""
_FORMS: Final = frozenset(
    (*_SURE, "co", "co.", "company", "s.a.", "sa", "s.p.a.", "spa", "s.r.l.", "srl", "k.k.", "b.v.", "bv",
     "n.v.", "plc", "pte", "pte.", "pty", "pty.", "ag", "ab", "a/s", "oy", "kg", "se", "sas", "l.p.", "lp")
)  # fmt: skip
SURE: Final = frozenset(
    blank + spelt for form in _SURE for spelt in (form, form.title(), form.upper()) for blank in ("", " ")
)
"""Legal forms as they are written after a comma."""


class Judged(NamedTuple):
    """`end`: the first column that is not used."""

    cells: Sequence[str]
    notices: tuple[Notice, ...]
    end: int | None = None


class Tears:
    """The shape of a header's whole rows."""

    def __init__(
        self,
        separator: str,
        width: int,
        places: dict[str, tuple[int, str]],
        seen: frozenset[tuple[str, str]],
    ) -> None:
        """`places`: the position and name of each field's column."""
        self.maker = places["manufacturer"][0] if "manufacturer" in places else None
        self._separator = separator
        self._width = width
        self._places = places
        self._seen = seen

    def judge(self, cells: Sequence[str]) -> Judged:
        """Repairs a row that is too long, or whose maker's name goes on in the next cell."""
        notices: tuple[Notice, ...] = ()
        pieces = self._form_behind_maker(cells)
        if pieces:
            if len(cells) - pieces < self._width:
                return Judged(cells, (_torn(len(cells), self._width),))
            cells = self._joined(cells, "manufacturer", pieces)
            notices = (_joined(self._places["manufacturer"][1]),)
        for field in ("manufacturer", "model"):
            pieces = self._open_bracket(cells, field)
            if pieces and len(cells) - pieces >= self._width:
                cells = self._joined(cells, field, pieces)
                notices = (*notices, _joined(self._places[field][1]))
        if not _is_filled(cells[self._width :]):
            return Judged(cells, notices)
        return self._with_surplus(cells, notices)

    def _with_surplus(self, cells: Sequence[str], notices: tuple[Notice, ...]) -> Judged:
        count = len(cells)
        end = self._proved_up_to(cells)
        behind = {field for field, (at, _) in self._places.items() if end is not None and at >= end}
        if end is not None and not behind & {"group_tag", "customer"}:
            return Judged(cells, (*notices, long_row(count, self._width)), end if behind else None)
        if end is None and self._is_seen(cells):
            return Judged(cells, (*notices, long_row(count, self._width)))
        return Judged(cells, (*notices, _torn(count, self._width)), end if behind else None)

    def _form_behind_maker(self, cells: Sequence[str]) -> int:
        """How many cells after the maker's belong to its name: Co., Ltd."""
        at = self.maker
        if at is None or at >= len(cells) or not cells[at].strip():
            return 0
        is_long = len(cells) > self._width
        end = at + 1
        while end < len(cells) and (
            (form := cells[end].strip().lower()) in _SURE or (is_long and form in _FORMS)
        ):
            end += 1
        return end - at - 1

    def _open_bracket(self, cells: Sequence[str], field: str) -> int:
        """How many cells are needed to close the bracket that a value opens."""
        at = self._places[field][0] if field in self._places else len(cells)
        if at >= len(cells) or cells[at].count("(") <= cells[at].count(")"):
            return 0
        open_ = cells[at].count("(") - cells[at].count(")")
        for count, cell in enumerate(cells[at + 1 :], start=1):
            open_ += cell.count("(") - cell.count(")")
            if open_ <= 0:
                return count
        return 0

    def _joined(self, cells: Sequence[str], field: str, pieces: int) -> list[str]:
        at = self._places[field][0]
        return [*cells[:at], self._separator.join(cells[at : at + pieces + 1]), *cells[at + pieces + 1 :]]

    def _proved_up_to(self, cells: Sequence[str]) -> int | None:
        """The last column whose hash or PKID is where it belongs."""
        for field, test in (("hardware_hash", column_guess.is_hash), ("product_key", column_guess.is_pkid)):
            if field in self._places and test(cells[self._places[field][0]]):
                return self._places[field][0] + 1
        return None

    def _is_seen(self, cells: Sequence[str]) -> bool:
        """Whether whole rows have this maker and model too, and nothing after them is sent, so that the tear
        is later."""
        if not {"serial_number", "manufacturer", "model"} <= self._places.keys():
            return False
        maker, model = self._places["manufacturer"][0], self._places["model"][0]
        last = max(maker, model, self._places["serial_number"][0])
        behind = any(
            at > last for field, (at, _) in self._places.items() if field in ("group_tag", "customer")
        )
        return not behind and (cells[maker].strip(), cells[model].strip()) in self._seen


def long_row(count: int, width: int) -> Notice:
    words = (
        f"The row has {count} cells for {width} columns. A separator inside a value without quotation marks "
        "moves everything after it: compare the row with its source."
    )
    return Notice("row_long", words)


def _torn(count: int, width: int) -> Notice:
    words = (
        f"The row has {count} cells for {width} columns. A separator inside a value without quotation marks "
        "has torn it, and it is not certain where: what is sent may be in the wrong column."
    )
    return Notice("row_torn", words)


def _joined(column: str) -> Notice:
    words = f"The value of column '{column}' was torn at a separator; its pieces were put together again."
    return Notice("value_joined", words, column)


def _is_filled(cells: Sequence[str]) -> bool:
    return any(cell and not cell.isspace() for cell in cells)
