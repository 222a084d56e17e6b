"""Bytes to text: what the bytes are, and how they become characters without ever failing.

Collectors write UTF-16, portals ask for ANSI, spreadsheets write UTF-8 with a mark, and people
glue such files together. The choice is made from the first bytes; a byte that contradicts it
later is read as Windows-1252, or becomes U+FFFD, and the row it is in says so. What is no text at
all is refused in words: what it is, and what to do.
"""

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.intake import foreign
from app.intake.table import Head, Source, UnreadableFile

CHUNK: Final = 16 * 1024
"""Bytes decoded at once. Larger ones are slower: the rows of one chunk are then too many to stay in the
processor's cache, and the garbage collector goes over them again and again."""

ACCIDENTS: Final = 4
"""ANSI letters that stand as UTF-8 would have them are accidents while others are so many times as many.
More of them are UTF-8 with ANSI pasted in: read as such, every one comes out right, and rows say so."""

_BOMS: Final[tuple[tuple[bytes, str], ...]] = (
    # UTF-32's little-endian mark begins with UTF-16's: the longer one is looked at first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DAMAGE: Final = re.compile("[\x00\ufffd\udc80-\udcff]")
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """`mark` is the number of bytes of the byte order mark."""

    codec: str
    mark: int

    @property
    def name(self) -> str:
        return f"{self.codec} with BOM" if self.mark else self.codec


def detect(head: Head) -> Encoding:
    """The encoding of a text. Raises UnreadableFile for what is not one."""
    data = head.data
    foreign.refuse_signatures(data)
    for mark, codec in _BOMS:
        if data.startswith(mark):
            return Encoding(codec, len(mark))
    if b"\x00" in data:
        return Encoding(_utf16_without_mark(data), 0)
    if len(foreign.CONTROLS.findall(data)) * 100 > len(data):
        raise _binary()
    return Encoding("utf-8" if _is_utf8(head) else "cp1252", 0)


def _binary() -> UnreadableFile:
    return UnreadableFile(
        "binary",
        "This is not a text file, or it is several texts of different encodings in one. "
        "Export the devices again as one CSV file in UTF-8.",
    )


def _utf16_without_mark(data: bytes) -> str:
    """Letters and digits have one zero byte in UTF-16: which one tells the byte order."""
    pairs = max(1, len(data) // 2)
    high_first, low_first = data[0::2].count(0), data[1::2].count(0)
    if low_first > 0.7 * pairs and high_first < 0.05 * pairs:
        return "utf-16-le"
    if high_first > 0.7 * pairs and low_first < 0.05 * pairs:
        return "utf-16-be"
    raise _binary()


def _is_utf8(head: Head) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(head.data, head.whole)
    if text.isascii():
        return True
    wrong = len(_NOT_UTF8.findall(text))
    right = sum(character > "\x7f" for character in text) - wrong
    return right * ACCIDENTS > wrong


class Text:
    """The characters of a file, chunk by chunk, with every line end as a single line feed.

    `damaged` turns true before the first chunk that needs `mend` is handed out, and stays so.
    """

    def __init__(self, head: Head, stream: Source | None, encoding: Encoding) -> None:
        self.damaged = False
        self._head = head
        self._stream = stream
        self._encoding = encoding

    def __iter__(self) -> Iterator[str]:
        # A file that is pure ASCII at first may turn out to be ANSI later: UTF-8 keeps such bytes apart.
        errors = "surrogateescape" if self._encoding.codec == "utf-8" else "replace"
        inner = codecs.getincrementaldecoder(self._encoding.codec)(errors)
        decoder = io.IncrementalNewlineDecoder(inner, translate=True)
        for data, final in self._pieces():
            text = decoder.decode(data, final)
            if not text.isascii() or "\x00" in text:
                self.damaged = self.damaged or _DAMAGE.search(text) is not None
            # Ctrl-Z ends a text under DOS; `copy a+b` still writes it.
            yield text.replace("\x1a", "")

    def _pieces(self) -> Iterator[tuple[bytes, bool]]:
        yield self._head.data[self._encoding.mark :], False
        if self._stream is not None and not self._head.whole:
            while piece := self._stream.read(CHUNK):
                yield piece, False
        # The head as a sample may end inside a character, which is no damage.
        if self._stream is not None or self._head.whole:
            yield b"", True


def mend(cell: str) -> tuple[str, bool, bool]:
    """A cell with its damage made storable: (cell, had ANSI bytes in UTF-8, lost characters)."""
    if not _DAMAGE.search(cell):
        return cell, False, False
    mixed = _NOT_UTF8.search(cell) is not None
    cell = _NOT_UTF8.sub(_as_ansi, cell).replace("\x00", "\ufffd")
    return cell, mixed, "\ufffd" in cell


def _as_ansi(hit: re.Match[str]) -> str:
    return bytes([ord(hit.group()) - 0xDC00]).decode("cp1252", "replace")
