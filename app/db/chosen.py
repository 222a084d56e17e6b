"""Selections of an order's rows: all of them, or those that match what a caller names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows of an order. A row is chosen when it fits everything that is given; None leaves it open."""

    rows: Sequence[int] | None = None
    line_refs: Sequence[str] | None = None
    states: Sequence[str] | None = None
    codes: Sequence[str] | None = None


EVERY_ROW: Final = Choice()


def chosen_rows(choice: Choice) -> tuple[str, dict[str, Any]]:
    """SQL for rows `r`, and its values."""
    given = {
        "row_number": choice.rows,
        "line_ref": choice.line_refs,
        "state": choice.states,
        "error_code": choice.codes,
    }
    values = {f"of_{column}": list(wanted) for column, wanted in given.items() if wanted is not None}
    return "".join(f"AND r.{name.removeprefix('of_')} = ANY(:{name}) " for name in values), values
