"""Parses a workbook's XML in pieces, and refuses declarations and entities."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from xml.parsers import expat

from app.intake.bounds import CHUNK
from app.intake.table import MAX_FIELD, Source, UnreadableFile, storable
from app.intake.xlsx.archive import damaged

MAX_TOKEN: Final = 1024**2
"""The most bytes of one tag or comment."""

MAX_NAMES: Final = 1_000
"""The most different names of tags, and of attributes."""


_ESCAPED: Final = re.compile("_x([0-9A-Fa-f]{4})_")

Start = Callable[[str, dict[str, str]], Any]
End = Callable[[str], Any]


def walk(part: Source, start: Start, end: End | None = None) -> Iterator[None]:
    """Feeds a part to handlers and yields after every piece, so that the caller can yield rows.

    `start` gets a name, which may have a prefix, and its attributes.
    Raises UnreadableFile for anything but well-formed XML without declarations.
    """
    yield from Walk(start, end).through(part)


class Walk:
    """The same in steps.

    `text` gets the characters. The handlers clear it. Between two steps it is cut to one character more than
    a cell may have.
    """

    def __init__(self, start: Start, end: End | None = None, text: list[str] | None = None) -> None:
        parser = self._parser = expat.ParserCreate()
        self._given = 0
        self._text = text
        parser.buffer_text = True
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = None if text is None else text.append
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
        parser.ExternalEntityRefHandler = _refuse  # type: ignore[assignment]

    def step(self, piece: bytes, *, last: bool = False) -> None:
        self._given += len(piece)
        try:
            self._parser.Parse(piece, last)
        except UnreadableFile:
            raise
        except (expat.ExpatError, LookupError, ValueError):
            raise damaged() from None
        if self._given - self._parser.CurrentByteIndex > MAX_TOKEN and not last:
            raise damaged()
        if self._text:
            # One character more than allowed shows that the cell is too long.
            self._text[:] = ["".join(self._text)[: MAX_FIELD + 1]]

    def through(self, part: Source) -> Iterator[None]:
        """Parses the rest of the document."""
        while piece := part.read(CHUNK):
            self.step(piece)
            yield
        self.step(b"", last=True)
        yield


class Names(dict[str, str]):
    """The local names of tags by their full names, for a walk's handlers; at most MAX_NAMES.

    expat keeps every different name of a tag or attribute in memory, so a document may not have many.
    """

    def __init__(self, refusal: Callable[[], UnreadableFile] = damaged) -> None:
        super().__init__()
        self._refusal = refusal
        self._attributes = {"r", "s", "t", "spans"}

    def __missing__(self, name: str) -> str:
        """Raises UnreadableFile for a document with too many different names."""
        if len(self) >= MAX_NAMES:
            raise self._refusal()
        self[name] = found = local(name)
        return found

    def of(self, name: str, attributes: Mapping[str, str]) -> str:
        """A tag's local name. Counts the names of its attributes, too."""
        if not self._attributes.issuperset(attributes):
            self._attributes.update(attributes)
            if len(self._attributes) > MAX_NAMES:
                raise self._refusal()
        return self[name]


def local(name: str) -> str:
    """A name without its prefix."""
    return name.rpartition(":")[2]


def by_local_name(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes without their prefixes. If two are alike, the last one counts."""
    return {local(name): value for name, value in attributes.items()}


def has_escapes(text: str) -> bool:
    # Searching for one character is ten times as fast as for two: a hash has four thousand.
    return "_" in text and "_x" in text


def without_escapes(text: str) -> str:
    """Decodes Excel's `_x000D_` for characters that XML cannot hold. Characters that cannot be stored are
    lost."""
    if not has_escapes(text):
        return text
    text = _ESCAPED.sub(lambda hit: chr(int(hit.group(1), 16)), text)
    return storable(text)


def _refuse(*_: object) -> None:
    raise damaged()
