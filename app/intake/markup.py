"""A workbook's XML, part by part, without entities and without holding more than a piece of it."""

from collections.abc import Callable, Iterator
from typing import Any, Final
from xml.parsers import expat

from app.intake.archive import damaged
from app.intake.bounds import CHUNK
from app.intake.table import Source, UnreadableFile

MAX_TOKEN: Final = 1024**2
"""Bytes of one tag or comment."""

MAX_NAMES: Final = 1_000
"""Different names of tags, and of attributes."""

Start = Callable[[str, list[str]], Any]
End = Callable[[str], Any]
Characters = Callable[[str], Any]


def walk(
    part: Source, start: Start, end: End | None = None, text: Characters | None = None
) -> Iterator[None]:
    """Feeds a part to handlers and yields after every piece, so that a caller can hand out what it has.

    `start` gets a name, which may have a prefix, and its attributes as names and values in turn.
    Raises UnreadableFile for anything but sound XML without declarations.
    """
    yield from Walk(start, end, text).through(part)


class Walk:
    """The same in steps, for a caller that reads a part of it by itself."""

    def __init__(self, start: Start, end: End | None, text: Characters | None) -> None:
        parser = self._parser = expat.ParserCreate()
        self.encoding = "utf-8"
        """As declared, in lower case."""
        self._given = 0
        parser.ordered_attributes = True
        parser.buffer_text = True
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = text
        parser.XmlDeclHandler = self._declared
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

    def through(self, part: Source) -> Iterator[None]:
        """The rest, to the end of the document."""
        while piece := part.read(CHUNK):
            self.step(piece)
            yield
        self.step(b"", last=True)
        yield

    def _declared(self, _: str, encoding: str | None, __: int) -> None:
        self.encoding = (encoding or "utf-8").lower()


class Names:
    """Names of tags without their prefixes, for a walk's handlers.

    expat keeps every different name of a tag or attribute for good, so a document may not have many.
    """

    def __init__(self, refusal: Callable[[], UnreadableFile] = damaged) -> None:
        self._refusal = refusal
        self._tags: dict[str, str] = {}
        self._attributes = {"r", "s", "t", "spans"}

    def of(self, name: str, pairs: list[str] | None = None) -> str:
        """Raises UnreadableFile for a document with more different names than one honestly has."""
        if pairs:
            seen = self._attributes
            for attribute in pairs[::2]:
                if attribute not in seen:
                    seen.add(attribute)
                    if len(seen) > MAX_NAMES:
                        raise self._refusal()
        known = self._tags.get(name)
        if known is None:
            known = self._tags[name] = local(name)
            if len(self._tags) > MAX_NAMES:
                raise self._refusal()
        return known


def local(name: str) -> str:
    """A name without its prefix."""
    return name.rpartition(":")[2]


def attributes(pairs: list[str]) -> dict[str, str]:
    """By local names; the last of two that are alike counts."""
    return {local(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _refuse(*_: object) -> None:
    raise damaged()
