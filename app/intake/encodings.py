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

from app.intake.table import Head, Source, UnreadableFile

CHUNK: Final = 16 * 1024
"""Bytes decoded at once. Larger ones are slower: the rows of one chunk are then too many to stay in the
processor's cache, and the garbage collector goes over them again and again."""

ACCIDENTS: Final = 4
"""ANSI letters that stand as UTF-8 would have them are accidents while others are so many times as many.
More of them are UTF-8 with ANSI pasted in: read as such, every one comes out right, and rows say so."""

_AS_CSV: Final = "Save the sheet as .xlsx without a password, or as 'CSV UTF-8', and upload that file."
_UNPACK: Final = "Unpack it and upload the CSV file inside."
_SIGNATURES: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\xd0\xcf\x11\xe0", "excel_workbook", f"This is an Excel workbook (.xls, or locked). {_AS_CSV}"),
    (b"%PDF-", "pdf", "This is a PDF document. Ask its sender for the data as a CSV file."),
    (b"BZh", "compressed", f"This file is compressed (bzip2). {_UNPACK}"),
    (b"\xfd7zXZ\x00", "compressed", f"This file is compressed (xz). {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", "compressed", f"This file is compressed (zstd). {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", "compressed", f"This is a 7z archive. {_UNPACK}"),
    (b"Rar!\x1a\x07", "compressed", f"This is a RAR archive. {_UNPACK}"),
    (b"MSCF", "cabinet", f"This is a cabinet (.cab). {_UNPACK}"),
    (b"\x89PNG", "picture", "This is a picture. Upload the CSV file itself, not a photograph of it."),
    (b"\xff\xd8\xff", "picture", "This is a picture. Upload the CSV file itself, not a photograph of it."),
    (b"SQLite format 3\x00", "database", "This is a database file. Export the table as CSV and upload that."),
    (b"MZ", "program", "This is a program. Upload the CSV file that it writes."),
)  # fmt: skip

_XML: Final = "This is an XML document. Upload the devices as a CSV file."
_TEXT_FORMATS: Final[tuple[tuple[re.Pattern[str], str, str], ...]] = (
    (re.compile(r"\s*<(!doctype html|html)\b", re.IGNORECASE), "web_page",
     "This is a web page. The download probably failed or needs a sign-in: download the CSV file again."),
    (re.compile(r"\s*<(\?xml|!--|key>|[a-z]\w*[\s>/])", re.IGNORECASE), "xml", _XML),
    (re.compile(r'\s*(\{\s*["}]|\[\s*[\[{"\]])'), "json",
     "This is JSON, but not one object per line. Write it so, or send it to the API as an order."),
    (re.compile(r"\s*\{\\rtf"), "rich_text",
     "This is a word processor's document. Save it as plain text (CSV)."),
)  # fmt: skip

_BOMS: Final[tuple[tuple[bytes, str], ...]] = (
    # UTF-32's little-endian mark begins with UTF-16's: the longer one is looked at first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f]")
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
    _refuse_signatures(data)
    for mark, codec in _BOMS:
        if data.startswith(mark):
            return Encoding(codec, len(mark))
    if b"\x00" in data:
        return Encoding(_utf16_without_mark(data), 0)
    if len(_CONTROLS.findall(data)) * 100 > len(data):
        raise _binary()
    return Encoding("utf-8" if _is_utf8(head) else "cp1252", 0)


def refuse_other_text(text: str) -> None:
    """Raises UnreadableFile when a text is of a kind that has no delimited rows."""
    for pattern, code, words in _TEXT_FORMATS:
        if pattern.match(text):
            raise UnreadableFile(code, words)


def _refuse_signatures(data: bytes) -> None:
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"opendocument" in data[:128]:
            words = "This is an OpenDocument sheet. Save it as .xlsx or CSV, and upload that."
            raise UnreadableFile("excel_workbook", words)
        raise UnreadableFile("compressed", f"This is a zip archive. {_UNPACK}")
    for magic, code, words in _SIGNATURES:
        # A signature of letters may begin a serial number; a program or archive also has binary data.
        if data.startswith(magic) and (not magic.isalnum() or _CONTROLS.search(data)):
            raise UnreadableFile(code, words)


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
