"""XML of one shape over and over, cut at its closing tags, with everything else left to expat.

A sheet has a million rows that all look alike, and a pattern takes them apart ten times as fast as
calls for every tag. It may only ever match what it understands completely: whoever finds a piece
that it does not, gives it back, and expat reads on from there.
"""

import codecs
import re
from typing import Final

from app.intake.bounds import CHUNK
from app.intake.markup import MAX_TOKEN, Walk
from app.intake.table import Source

PROLOGUE: Final = 256 * 1024
"""Bytes in front of the first row or text; further ones are for expat."""

_NOT_PLAIN: Final = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]")
"""What XML forbids or changes: carriage returns become line feeds."""


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
    """The texts in front of each closing tag."""

    def __init__(self, rest: Rest, closing: str) -> None:
        self._rest = rest
        self._closing = closing
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text = ""
        """What follows the last closing tag."""

    def take(self) -> list[str]:
        """The next pieces; none at the end, and where something stands that is for expat."""
        while data := self._rest.read(CHUNK):
            try:
                text = self.text + self._decoder.decode(data)
            except UnicodeDecodeError:
                self._rest.give_back(data)
                return []
            if _NOT_PLAIN.search(text) or len(text) > MAX_TOKEN + CHUNK:
                self.text = text
                return []
            *found, self.text = text.split(self._closing)
            if found:
                return found
        return []

    def leave(self, untaken: list[str]) -> None:
        """Gives back pieces that were not understood and all that follows them."""
        text = "".join(piece + self._closing for piece in untaken) + self.text
        pending: bytes = self._decoder.getstate()[0]
        self._rest.give_back(text.encode() + pending)
