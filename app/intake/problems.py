"""Combines what the reader noticed about a row and what the check found into one list of problems.

People look for a column and a value as they are in the file, so a problem has both. It never shows a hash,
nor anything that could be a 25-character product key, which is a secret.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.domain.catalogue import Finding, Severity, lookup
from app.domain.identity import CheckedDevice
from app.domain.masking import shown
from app.intake.table import Notice, Row

_MISSING: Final = ("missing_identity", "incomplete_tuple")


@dataclass(frozen=True, slots=True)
class Problem:
    """`column` is the file's own name of `field`'s column; `value` is the cell's value, shortened.

    A problem of the whole row has neither. `value` is also None if it must not be shown.
    """

    code: str
    severity: Severity
    column: str | None
    field: str | None
    value: str | None
    detail: str
    remedy: str

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR


def problems_of(row: Row, checked: CheckedDevice) -> tuple[Problem, ...]:
    """The row's problems: errors first, otherwise in the order in which they were found."""
    noticed = [*_noticed(row)]
    told = {(problem.code, problem.field) for problem in noticed}
    if any(problem.code == "formula_without_result" for problem in noticed):
        # The missing value is a consequence of it.
        told |= {(code, None) for code in _MISSING}
    # Do not repeat what the reader has already reported about this value or the whole row.
    found = [
        *noticed,
        *(p for p in _found(row, checked) if not told & {(p.code, p.field), (p.code, None)}),
    ]
    found.sort(key=lambda problem: not problem.is_error)
    return tuple(found)


def of_notice(notice: Notice, row: Row | None = None) -> Problem:
    """A notice as a problem; one about the whole file has no row."""
    name = notice.column
    of = dict(row.columns).get(name) if row is not None and name else None
    value = None if row is None or name is None or of == "hardware_hash" else _cell(row, name, of)
    return Problem(
        code=notice.code,
        severity=notice.severity,
        column=name,
        field=of,
        value=shown(value),
        detail=notice.words,
        remedy=lookup(notice.code).remedy,
    )


def _noticed(row: Row) -> Iterator[Problem]:
    for notice in row.notices:
        yield of_notice(notice, row)


def _found(row: Row, checked: CheckedDevice) -> Iterator[Problem]:
    names = {known: column for column, known in row.columns if known is not None}
    for finding in checked.findings:
        of = finding.field or None
        yield Problem(
            code=finding.code,
            severity=finding.severity,
            column=names.get(of) if of else None,
            field=of,
            value=_value(row, finding),
            detail=finding.detail,
            remedy=lookup(finding.code).remedy,
        )


def _value(row: Row, finding: Finding) -> str | None:
    if finding.field == "hardware_hash" or finding.code == "product_key_is_license_key":
        return None
    return shown(row.fields.get(finding.field))


def _cell(row: Row, column: str, of: str | None) -> str | None:
    return row.fields.get(of) if of is not None else row.extra.get(column)
