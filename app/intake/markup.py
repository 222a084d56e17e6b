"""A workbook's XML, part by part, without entities and without holding more than a piece of it."""

from collections.abc import Callable, Iterator
from typing import Any, Final
from xml.parsers import expat

from app.intake.archive import Part, damaged
from app.intake.bounds import CHUNK

MAX_TOKEN: Final = 1024**2
"""Bytes of one tag or comment."""
MAX_DEPTH: Final = 64

Start = Callable[[str, list[str]], Any]
End = Callable[[str], Any]
Characters = Callable[[str], Any]


def walk(
    part: Part, start: Start, end: End | None = None, text: Characters | None = None, *, parser: Any = None
) -> Iterator[None]:
    """Feeds a part to handlers and yields after every piece, so that a caller can hand out what it has.

    `start` gets a name, which may have a prefix, and its attributes as names and values in turn.
    Raises UnreadableFile for anything but sound XML without declarations.
    """
    parser = expat.ParserCreate() if parser is None else parser
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse
    parser.ExternalEntityRefHandler = _refuse
    given = 0
    try:
        while piece := part.read(CHUNK):
            given += len(piece)
            parser.Parse(piece, False)
            if given - parser.CurrentByteIndex > MAX_TOKEN:
                raise damaged()
            yield
        parser.Parse(b"", True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        # UnreadableFile is a ValueError too, and goes on as it is.
        if isinstance(error, expat.ExpatError | LookupError | UnicodeError) or type(error) is ValueError:
            raise damaged() from None
        raise
    yield


def local(name: str) -> str:
    """A name without its prefix."""
    return name.rpartition(":")[2]


def attributes(pairs: list[str]) -> dict[str, str]:
    """By local names; the last of two that are alike counts."""
    return {local(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _refuse(*_: object) -> None:
    raise damaged()
