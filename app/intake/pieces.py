"""XML of one shape over and over, cut at its closing tags, with everything else left to expat.

A sheet has a million rows that all look alike, and a pattern takes them apart ten times as fast as
calls for every tag. It may only ever match what it understands completely: a piece that it does not
understand is given back, and expat reads on from there.
"""

import re
from typing import Final

from app.intake.bounds import CHUNK
from app.intake.markup import MAX_TOKEN, Walk
from app.intake.table import Source

PROLOGUE: Final = 256 * 1024
"""Bytes in front of the first row or text; further ones are for expat."""

_NOT_PLAIN: Final = bytes(byte < 0x20 and byte not in b"\t\n" for byte in range(256))
"""What XML forbids or changes: carriage returns become line feeds. 1 for those."""
_NO_CHARACTERS: Final = "\ufffe\uffff"


class Rest:
    """A part of which some has been read and given back."""

    def __init__(self, part: Source) -> None:
        self._part = part
        self._held = b""

    def read(self, size: int = -1, /) -> bytes:
        data, self._held = self._held, b""
        return data or self._part.read(size)

    def give_back(self, data: bytes) -> None:
        self._held = data + self._held

    def skip_to(self, mark: re.Pattern[bytes], walk: Walk) -> bool:
        """Has expat read up to and with the mark; False, and nothing read, when it is not near."""
        data = b""
        while (hit := mark.search(data)) is None:
            piece = self._part.read(CHUNK)
            data += piece
            if not piece or len(data) > PROLOGUE:
                self.give_back(data)
                return False
        self.give_back(data[hit.end() :])
        walk.step(data[: hit.end()])
        return True


class Pieces:
    """The pieces up to each closing tag, as many at once as a chunk has."""

    def __init__(self, rest: Rest, closing: bytes) -> None:
        self._rest = rest
        self._closing = closing
        self.tail = b""
        """What follows the last closing tag."""

    def take(self) -> str:
        """The next pieces; none at the end, and where something stands that is for expat."""
        while data := self._rest.read(CHUNK):
            data = self.tail + data
            self.tail = data
            if len(data) > MAX_TOKEN + CHUNK:
                return ""
            end = data.rfind(self._closing) + len(self._closing)
            if end < len(self._closing):
                continue
            text = _plain(data[:end])
            if text:
                self.tail = data[end:]
            return text
        return ""

    def leave(self, untaken: str = "") -> None:
        """Gives back pieces that were not understood and all that follows them."""
        self._rest.give_back(untaken.encode() + self.tail)


def _plain(data: bytes) -> str:
    """The characters of it; none when XML forbids or changes one."""
    # A translation looks at every byte six times as fast as a pattern that searches for a few of them.
    if b"\1" in data.translate(_NOT_PLAIN):
        return ""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isascii() or not any(character in text for character in _NO_CHARACTERS) else ""
