"""Selects rows of an order: all of them, or those that a caller names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of an order's rows. A row must match every field that is not None."""

    rows: Sequence[int] | None = None
    line_refs: Sequence[str] | None = None
    states: Sequence[str] | None = None
    codes: Sequence[str] | None = None


EVERY_ROW: Final = Choice()


def chosen_rows(choice: Choice) -> tuple[str, dict[str, Any]]:
    """SQL that restricts the rows `r` to the choice, and its parameters."""
    given = {
        "row_number": choice.rows,
        "line_ref": choice.line_refs,
        "state": choice.states,
        "error_code": choice.codes,
    }
    values = {f"of_{column}": list(wanted) for column, wanted in given.items() if wanted is not None}
    return "".join(f"AND r.{name.removeprefix('of_')} = ANY(:{name}) " for name in values), values
