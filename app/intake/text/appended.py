"""Decodes UTF-16 files to which plain text was appended, such as a command's output to a collector's.

Two letters of plain text look like one character of UTF-16, mostly a Chinese one. So lines of plain text are
found by their bytes before decoding: a line of UTF-16 has zero bytes, one for each separator and digit; a
line of plain text has none.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Final

MAX_HELD: Final = 1024 * 1024
"""The most bytes to wait for the end of a line."""
LEAST: Final = 8
"""Bytes of a line that are enough to decide: no row of devices in UTF-16 has four characters whose eight
bytes are all letters of plain text, without a digit or separator before the line's end."""

_LINE: Final = re.compile(rb"[^\0\n]{%d,}+(?:\n|\Z)" % LEAST)
_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Appended:
    """Decodes UTF-16 and the lines of plain text in it."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._newline = b"\n\0" if codec.endswith("le") else b"\0\n"
        self._behind = re.compile(rb"(?<=%s)%s" % (re.escape(self._newline), _LINE.pattern))
        self._decoder = codecs.getincrementaldecoder(codec)("replace")
        self._held = b""
        self._is_start = False
        """Whether the held bytes begin a line."""
        self._is_plain = False

    def read(self, pieces: Iterable[tuple[bytes, bool]]) -> Iterator[tuple[str, bool]]:
        """Yields characters piece by piece, and whether they were plain text."""
        for piece, final in pieces:
            self._held += piece
            yield from self._take(final)
        if self._held:
            # A sample may end anywhere.
            yield self._decoder.decode(self._held), False

    def _take(self, final: bool) -> Iterator[tuple[str, bool]]:
        while self._held:
            if self._is_plain:
                text = self._plain_lines(final)
                if text:
                    yield text, True
                    continue
                if self._is_plain:
                    return
            at = self._next_plain(final)
            if at is not None:
                yield self._decoder.decode(self._held[:at], True), False
                self._decoder.reset()
                self._held, self._is_plain = self._held[at:], True
                continue
            end = len(self._held) if final else self._end_of_lines()
            if not end and not final:
                return
            yield self._decoder.decode(self._held[:end], final), False
            self._held, self._is_start = self._held[end:], True
        if final:
            yield self._decoder.decode(b"", True), False

    def _end_of_lines(self) -> int:
        at = self._held.rfind(self._newline)
        while at > 0 and at % 2:
            at = self._held.rfind(self._newline, 0, at + 1)
        if at < 0 and len(self._held) > MAX_HELD:
            return len(self._held) // 2 * 2
        return max(0, at + 2) if at >= 0 else 0

    def _next_plain(self, final: bool) -> int | None:
        found = _LINE.match(self._held) if self._is_start else None
        found = found or self._behind.search(self._held)
        while found is not None:
            line = found[0]
            whole = line.endswith(b"\n") or final
            if found.start() % 2 == 0 and whole and _is_text(line):
                return found.start()
            found = self._behind.search(self._held, found.start() + 1)
        return None

    def _plain_lines(self, final: bool) -> str:
        """The lines of plain text that come next; none if UTF-16 goes on."""
        end = 0
        while (at := self._held.find(b"\n", end)) >= 0 and b"\0" not in self._held[end:at]:
            end = at + 1
        if not end and final and b"\0" not in self._held:
            end = len(self._held)
        if end:
            text = self._held[:end].decode("utf-8", "surrogateescape")
            self._held = self._held[end:]
            return text
        if b"\0" in self._held or len(self._held) > MAX_HELD:
            self._is_plain, self._is_start = False, True
            if self._held.startswith(_MARKS):
                self._held = self._held[2:]
        return ""


def _is_text(line: bytes) -> bool:
    """Whether these are mostly characters of plain text, without control characters."""
    usual = sum(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in line)
    return usual >= 0.8 * len(line) and not any(byte < 0x20 and byte not in b"\t\r\n" for byte in line)
