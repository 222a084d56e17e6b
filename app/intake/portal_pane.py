"""Reads a portal's errors that name rows of the uploaded file instead of devices.

Intune names failures only by Microsoft's code and by rows of the CSV file, in a pane that people copy, or
write down as a table of rows and codes. Rows are counted from 1 without the header. How Intune counts is not
published, so the answer names the devices.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from app.domain.autopilot_errors import NUMBERS
from app.domain.registration import UpstreamRow
from app.intake.portal_results import Code, PortalAnswer, codes_in, columns_of, read_row
from app.intake.portal_words import Title, title_of

_NUMBERS: Final = r"[0-9]{1,5}(?:\s*(?:-|–|to|bis|à)\s*[0-9]{1,5})?"
_AND: Final = r"\s*(?:,|;|and|und|et|y|e|en|、)\s*"
_ROWS: Final = re.compile(
    r"(?:rows?|lines?|zeilen?|lignes?|filas?|righe|riga|rijen|rij|regels?|行)"
    r"(?:\s*-?\s*(?:numbers?|nummern?|no\.?|nr\.?|番号))?\s*[:=#]?\s*"
    rf"({_NUMBERS}(?:{_AND}{_NUMBERS})*)",
    re.IGNORECASE,
)
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:\s*(?:-|–|to|bis|à)\s*([0-9]{1,5}))?")
_SHORT_CODE: Final = re.compile(
    r"(?:^|\b(?:error|fehler|erreur|errore|fout)\s*[:#]?|エラー)\s*([0-9]{3})(?![0-9]|[.,][0-9])",
    re.IGNORECASE,
)
"""A number at the beginning of a line, or after the word "error"."""
_DELIMITERS: Final = "\t;,"
MAX_ROWS: Final = 10_000
"""The most rows that a text may name: ten times what any portal takes."""


def read(content: bytes) -> list[tuple[int, PortalAnswer]]:
    """Each row of the file that the text names, with the text's line and its outcome."""
    lines = _decoded(content).splitlines()
    table = _table(lines)
    return list(islice(_of_sentences(lines) if table is None else table, MAX_ROWS))


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _of_sentences(lines: Sequence[str]) -> Iterator[tuple[int, PortalAnswer]]:
    """Each row with the code named before it, on its own line or above."""
    codes: list[Code] = []
    for number, line in enumerate(lines, start=1):
        codes = codes_in(line) or _short_codes(line) or codes
        for listed in _ROWS.finditer(line):
            for row in _expanded(listed.group(1)):
                yield number, _answer(row, codes)


def _short_codes(line: str) -> list[Code]:
    return [Code(number, None) for number in _SHORT_CODE.findall(line) if number in NUMBERS]


def _answer(row: int, codes: Sequence[Code]) -> PortalAnswer:
    if len(codes) != 1:
        words = (
            "The text names no code for this row." if not codes else "The text names two codes for this row."
        )
        return PortalAnswer(UpstreamRow(False, None, None), doubt=words, file_row=row)
    return PortalAnswer(UpstreamRow(True, codes[0].number, codes[0].name), file_row=row)


def _table(lines: Sequence[str]) -> Iterator[tuple[int, PortalAnswer]] | None:
    """Rows of a table with a column for the file's rows; None if the text is not such a table."""
    for at, line in enumerate(lines):
        for delimiter in _DELIMITERS:
            header = next(csv.reader([line], delimiter=delimiter), [])
            kinds = {title_of(title) for title in header}
            if Title.FILE_ROW in kinds and kinds & {Title.STATUS, Title.CODE, Title.NAME}:
                return _rows_of(lines[at + 1 :], header, delimiter, first=at + 2)
    return None


def _rows_of(
    lines: Sequence[str], header: Sequence[str], delimiter: str, *, first: int
) -> Iterator[tuple[int, PortalAnswer]]:
    columns = columns_of(header)
    for number, line in enumerate(lines, start=first):
        row = dict(zip(header, next(csv.reader([line], delimiter=delimiter), []), strict=False))
        said = read_row(row, columns)
        for named in _expanded(" ".join(row.get(title, "") for title in columns[Title.FILE_ROW])):
            yield number, replace(said, file_row=named)


def _expanded(text: str) -> Iterator[int]:
    for found in _RANGE.finditer(text):
        first, last = int(found.group(1)), int(found.group(2) or found.group(1))
        yield from range(first, min(last, first + MAX_ROWS) + 1)
