"""Reads OA3.xml, the report that oa3tool writes when a device is made.

It takes the Product Key ID and the hardware hash of each `Key`. The 25-character product key beside them is a
licence and a secret: its text is never even collected. Document type declarations are refused, because with
entities a few lines of XML can become gigabytes or read other files.
"""

import re
from collections.abc import Iterator
from typing import Final
from xml.parsers import expat

from app.intake import foreign, profiles
from app.intake.profiles import Profile
from app.intake.row_builder import MAX_ROWS, too_many_rows
from app.intake.row_plan import Plan
from app.intake.table import LOST, MAX_FIELD, Dialect, Head, Kind, Notice, Row, Source, UnreadableFile
from app.intake.text import encodings
from app.intake.text.encodings import Text
from app.intake.xlsx.markup import Names

MAX_DEPTH: Final = 32
MAX_TOKEN: Final = 1024 * 1024
"""The most characters of one tag or comment."""

_COLUMNS: Final = ("ProductKeyID", "HardwareHash")
_XML: Final = re.compile(r"\s*<(\?xml|!--|!doctype(?!\s+html)|(\w+:)?keys?\b|\w+[\s>])", re.IGNORECASE)
_TOO_LONG: Final = Notice(
    "cell_too_long", f"A value has more than {MAX_FIELD:,} characters and was left out."
)


def claims(head: Head) -> bool:
    """Claims any XML. `read` refuses what is not an OA3 report, with a reason."""
    try:
        encoding = encodings.detect(head)
    except UnreadableFile:
        return False
    text = "".join(Text(head, None, encoding))
    return _XML.match(text) is not None and not foreign.is_other_markup(text)


def read(head: Head, stream: Source, profile: Profile | None = None) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile, here or later, for XML that is broken, declares a type or is not a report."""
    encoding = encodings.detect(head)
    resolved = profiles.resolve(_COLUMNS, profile)
    source = _rows(Text(head, stream, encoding), Plan.of(resolved, profile))
    # Read the first device now, to refuse a document without any before yielding anything.
    first = next(source, None)
    if first is None:
        raise _no_report()
    dialect = Dialect(
        format="oa3",
        kind=Kind.GENERIC,
        encoding=encoding.name,
        delimiter="",
        header_row=None,
        columns=resolved.pairs,
        notices=resolved.notices,
    )
    return dialect, _again(first, source)


def _again(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


class _Report:
    """Collects the devices of a report while expat parses it."""

    def __init__(self, parser: expat.XMLParserType) -> None:
        self.found: list[tuple[int, list[str], tuple[Notice, ...]]] = []
        self._parser = parser
        self._names = Names(_too_many_names)
        self._path: list[str] = []
        self._cells: list[str] = []
        self._flaws: list[Notice] = []
        self._line = 0
        self._at: int | None = None
        self._text: list[str] = []
        self._size = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = self._names.of(name, attributes)
        if not self._path and name not in ("Key", "Keys"):
            raise _no_report()
        if len(self._path) >= MAX_DEPTH:
            raise UnreadableFile("xml_damaged", "The XML is nested deeper than any OA3 report.")
        self._path.append(name)
        if name == "Key":
            self._cells, self._flaws, self._line = ["", ""], [], self._parser.CurrentLineNumber
        self._at = _COLUMNS.index(name) if name in _COLUMNS and self._cells else None
        self._text, self._size = [], 0

    def text(self, data: str) -> None:
        if self._at is not None:
            self._size += len(data)
            if self._size <= MAX_FIELD:
                self._text.append(data)

    def end(self, _: str) -> None:
        name = self._path.pop()
        if self._at is not None:
            if self._size > MAX_FIELD:
                self._flaws.append(_TOO_LONG)
            else:
                # Blanks and line breaks around a value are not part of it.
                self._cells[self._at] = "".join(self._text).strip()
            self._at = None
        elif name == "Key" and self._cells:
            if any(self._cells) or self._flaws:
                self.found.append((self._line, self._cells, tuple(self._flaws)))
            self._cells = []


def _refuse_declaration(*_: object) -> None:
    raise UnreadableFile(
        "xml_declares",
        "The XML declares a document type or entities, which no OA3 report does. "
        "Upload the OA3.xml as oa3tool wrote it.",
    )


def _rows(text: Text, plan: Plan) -> Iterator[Row]:
    parser = expat.ParserCreate()
    parser.buffer_text = True
    report = _Report(parser)
    parser.StartElementHandler = report.start
    parser.EndElementHandler = report.end
    parser.CharacterDataHandler = report.text
    parser.StartDoctypeDeclHandler = _refuse_declaration
    parser.EntityDeclHandler = _refuse_declaration
    parser.ExternalEntityRefHandler = _refuse_declaration  # type: ignore[assignment]
    line = 0
    for number, (at, cells, flaws) in enumerate(_devices(text, parser, report), start=1):
        if number > MAX_ROWS:
            raise too_many_rows()
        # Two devices in one line still count as two.
        line = max(line + 1, at)
        yield plan.row(number, line, cells, flaws)


def _devices(
    text: Text, parser: expat.XMLParserType, report: _Report
) -> Iterator[tuple[int, list[str], tuple[Notice, ...]]]:
    given = 0
    damage: tuple[Notice, ...] = ()
    try:
        for chunk in text:
            if text.damaged:
                chunk, mixed, lost = text.mend(chunk)
                damage = (text.mixed,) * mixed + (LOST,) * lost
            parser.Parse(chunk, False)
            given += len(chunk.encode())
            if given - parser.CurrentByteIndex > MAX_TOKEN:
                raise UnreadableFile("xml_damaged", "The XML has a tag or a comment that does not end.")
            for at, cells, flaws in report.found:
                yield at, cells, (*damage, *flaws)
            report.found.clear()
        parser.Parse("", True)
    except expat.ExpatError as error:
        raise UnreadableFile(
            "xml_damaged",
            f"The XML is broken in line {error.lineno:,}. Upload the OA3.xml as oa3tool wrote it.",
        ) from None
    for at, cells, flaws in report.found:
        yield at, cells, (*damage, *flaws)


def _too_many_names() -> UnreadableFile:
    return UnreadableFile("xml_damaged", "The XML has more different tags than any OA3 report.")


def _no_report() -> UnreadableFile:
    return UnreadableFile(
        "file_is_xml",
        "This is an XML document, but not an OA3 report. Upload the OA3.xml, or the devices as a CSV file.",
    )
