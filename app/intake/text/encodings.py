"""Decodes bytes to text: finds the encoding, and never fails on a byte that does not fit it.

Collectors write UTF-16, portals ask for ANSI, spreadsheets write UTF-8 with a byte order mark, and people
paste such files together. The encoding is chosen from the first bytes, or named by the user. A later byte
that does not fit is read by the next likeliest encoding, or becomes U+FFFD, and its row gets a notice. A file
that is not text is refused with what it is and what to do.
"""

import codecs
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from app.intake import foreign
from app.intake.table import LOST, Encoding, Head, Notice, Source, UnreadableFile
from app.intake.text import encoding_guess
from app.intake.text.appended import Appended

__all__ = ["NAMES", "Encoding", "Text", "detect", "named", "words_for"]

CHUNK: Final = 16 * 1024
"""Bytes decoded at once. Larger chunks are slower: their rows do not fit in the processor's cache, and the
garbage collector scans them repeatedly."""

ACCIDENTS: Final = 4
"""ANSI letters that happen to form UTF-8 are accidents if there are this many times more others. Otherwise
the file is UTF-8 with pasted ANSI: read as such, every letter comes out right, with notices."""

_BOMS: Final[tuple[tuple[bytes, str], ...]] = (
    # UTF-32's little-endian mark begins with UTF-16's, so the longer one is checked first.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DAMAGE: Final = re.compile("[\x00\ufffd\udc80-\udcff]")
_VALUES: Final = re.compile("[,;\t|\r\n]")
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")


NAMES: Final[dict[str, str]] = {
    "utf-8": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16 (big-endian)", "utf-32-le": "UTF-32",
    "utf-32-be": "UTF-32 (big-endian)", "cp1252": "Windows-1252 (ANSI, Western European)",
    "cp1250": "Windows-1250 (Central European)", "cp1251": "Windows-1251 (Cyrillic)",
    "cp1253": "Windows-1253 (Greek)", "cp1254": "Windows-1254 (Turkish)", "cp1255": "Windows-1255 (Hebrew)",
    "cp1256": "Windows-1256 (Arabic)", "cp1257": "Windows-1257 (Baltic)",
    "cp1258": "Windows-1258 (Vietnamese)", "cp932": "Shift-JIS (Japanese)", "euc_jp": "EUC-JP (Japanese)",
    "gb18030": "GB18030 (Chinese)",
    "big5": "Big5 (Chinese)", "cp949": "EUC-KR (Korean)", "mac_roman": "Mac Roman",
    "cp437": "DOS code page 437", "cp850": "DOS code page 850", "cp852": "DOS code page 852",
    "cp866": "DOS code page 866", "koi8_r": "KOI8-R (Cyrillic)",
}  # fmt: skip
"""The supported codecs, with their common names."""
_ALSO: Final[dict[str, str]] = {
    "shift-jis": "cp932", "shift_jis": "cp932", "sjis": "cp932", "windows-31j": "cp932", "gbk": "gb18030",
    "gb2312": "gb18030", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "big5-hkscs": "big5", "cp950": "big5",
    "ansi": "cp1252", "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "ascii": "utf-8",
    "us-ascii": "utf-8", "utf-16": "utf-16-le", "unicode": "utf-16-le", "utf-32": "utf-32-le",
    "utf-8-sig": "utf-8", "macintosh": "mac_roman", "mac": "mac_roman", "oem": "cp850",
}  # fmt: skip


def words_for(codec: str) -> str:
    return NAMES.get(codec, codec)


def guess_in_words(encoding: Encoding) -> str:
    """Empty if nothing is guessed."""
    return words_for(encoding.codec) if encoding.is_guess else ""


def notices(encoding: Encoding) -> tuple[Notice, ...]:
    """The notice about a file whose encoding is a guess."""
    if not encoding.is_guess:
        return ()
    words = (
        "The file is not in UTF-8 and does not say in which encoding it is; it was read as "
        f"{words_for(encoding.codec)}, which is a guess."
    )
    return (Notice("encoding_guessed", words),)


def named(name: str) -> Encoding:
    """The encoding that the user names. Raises ValueError, with the list, for an unknown one."""
    plain = name.strip().lower()
    codec = _ALSO.get(plain)
    if codec is None:
        try:
            codec = codecs.lookup(plain).name if plain.isascii() and plain.isprintable() else ""
        except LookupError:
            codec = ""
    codec = _ALSO.get(codec, codec)
    if codec not in NAMES:
        raise ValueError(f"There is no such encoding here. Give one of {', '.join(NAMES)}.")
    return Encoding(codec, 0)


def detect(head: Head) -> Encoding:
    """The encoding of a text. Raises UnreadableFile if it is not text."""
    data = head.data
    foreign.refuse_signatures(data)
    marked = [Encoding(codec, len(mark)) for mark, codec in _BOMS if data.startswith(mark)]
    if head.encoding is not None:
        # Skip a matching byte order mark. A different one contradicts the name.
        mark = next((each.mark for each in marked if each.codec[:6] == head.encoding.codec[:6]), 0)
        return replace(head.encoding, codec=marked[0].codec if mark else head.encoding.codec, mark=mark)
    if marked:
        return marked[0]
    if b"\x00" in data:
        return Encoding(_utf16_without_mark(data), 0)
    if len(foreign.CONTROLS.findall(data)) * 100 > len(data):
        raise _binary()
    return (
        Encoding("utf-8", 0)
        if _is_utf8(head)
        else Encoding(encoding_guess.guess(_whole_lines(head)), 0, is_guess=True)
    )


def _whole_lines(head: Head) -> bytes:
    """Cuts an incomplete last character, which would count against its encoding."""
    return head.data if head.whole else head.data[: head.data.rfind(b"\n") + 1] or head.data


def _binary() -> UnreadableFile:
    return UnreadableFile(
        "file_is_not_text",
        "This is not a text file, or it is several texts of different encodings in one. "
        "Export the devices again as one CSV file in UTF-8.",
    )


def _utf16_without_mark(data: bytes) -> str:
    """UTF-16's byte order, from the zero byte of letters and digits."""
    # By the first line, because plain text may be appended.
    ends = [at for mark in (b"\n\0", b"\0\n") if (at := data.find(mark)) >= 0]
    data = data[: min(ends) + 2] if ends else data
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
    if wrong and not any(_is_proper(value) for value in _VALUES.split(text)):
        # Double-byte text may contain such letters by accident, but no whole value of them.
        return False
    right = sum(character > "\x7f" for character in text) - wrong
    return right * ACCIDENTS > wrong


_FOREIGN: Final = Notice(
    "encoding_mixed", "The row is not in UTF-16 like the file before it; it was read as plain text (UTF-8)."
)


def _is_proper(value: str) -> bool:
    return not value.isascii() and _NOT_UTF8.search(value) is None


class Text:
    """The characters of a file, chunk by chunk, with line feeds as line ends.

    `damaged` becomes true before the first chunk that needs repair is yielded, and stays true.
    """

    def __init__(self, head: Head, stream: Source | None, encoding: Encoding) -> None:
        self.damaged = False
        self.foreign = _FOREIGN
        """The notice about a line that is entirely in another encoding."""
        self._head = head
        self._stream = stream
        self._encoding = encoding
        self._other = encoding_guess.WESTERN
        self._foreign: list[range] = []

    @property
    def mixed(self) -> Notice:
        """The notice about a value that is not UTF-8 in a UTF-8 text."""
        words = f"A value is not UTF-8 like the file before it; it was read as {words_for(self._other)}."
        return Notice("encoding_mixed", words)

    def is_foreign(self, line: int) -> bool:
        return any(line in lines for lines in self._foreign)

    def _add_foreign(self, lines: range) -> None:
        if self._foreign and self._foreign[-1].stop >= lines.start:
            lines = range(self._foreign.pop().start, lines.stop)
        self._foreign.append(lines)

    def mend(self, cell: str) -> tuple[str, bool, bool]:
        """Repairs a cell so that it can be stored. Returns the cell, whether it had other bytes than UTF-8,
        and whether characters were lost."""
        if not _DAMAGE.search(cell):
            return cell, False, False
        mixed = _NOT_UTF8.search(cell) is not None
        if mixed:
            cell = self._as_other(cell)
        cell = cell.replace("\x00", "\ufffd")
        return cell, mixed, "\ufffd" in cell

    def mend_cells(self, line: int, cells: Sequence[str], flaws: list[Notice]) -> list[str]:
        """Repairs the cells of a line so that they can be stored. Adds the flaws to `flaws`."""
        mended = [self.mend(cell) for cell in cells]
        if self.is_foreign(line):
            flaws.append(self.foreign)
        elif any(mixed for _, mixed, _ in mended):
            flaws.append(self.mixed)
        if any(lost for _, _, lost in mended):
            flaws.append(LOST)
        return [cell for cell, _, _ in mended]

    def __iter__(self) -> Iterator[str]:
        lines = io.IncrementalNewlineDecoder(None, translate=True)
        held = ""
        number = 1
        for text, is_foreign in self._decoded():
            if held or text.endswith("\r") or "\r\r" in text:
                # wmic ends its lines with CR CR LF.
                text = held + text
                plain = text.rstrip("\r")
                text, held = plain.replace("\r\r\n", "\r\n"), text[len(plain) :]
            text = lines.decode(text)
            if not text.isascii() or "\x00" in text:
                self._look_at(text)
            if self._encoding.is_utf16:
                following = number + text.count("\n")
                if is_foreign:
                    self.damaged = True
                    self._add_foreign(range(number, following + (not text.endswith("\n"))))
                number = following
            # Ctrl-Z ends a text under DOS, and `copy a+b` still writes it.
            yield text.replace("\x1a", "")
        yield lines.decode(held, final=True).replace("\x1a", "")

    def _decoded(self) -> Iterator[tuple[str, bool]]:
        """Yields characters, and whether they were in another encoding than the file."""
        if self._encoding.is_utf16:
            yield from Appended(self._encoding.codec).read(self._pieces())
            return
        # A file that begins as pure ASCII may turn out to be ANSI later: UTF-8 reveals such bytes.
        errors = "surrogateescape" if self._encoding.codec == "utf-8" else "replace"
        decoder = codecs.getincrementaldecoder(self._encoding.codec)(errors)
        for data, final in self._pieces():
            yield decoder.decode(data, final), False

    def _pieces(self) -> Iterator[tuple[bytes, bool]]:
        yield self._head.data[self._encoding.mark :], False
        if self._stream is not None and not self._head.whole:
            while piece := self._stream.read(CHUNK):
                yield piece, False
        # The sample may end inside a character, which is not damage.
        if self._stream is not None or self._head.whole:
            yield b"", True

    def _look_at(self, text: str) -> None:
        if self.damaged or _DAMAGE.search(text) is None:
            return
        self.damaged = True
        if _NOT_UTF8.search(text):
            lines = [line for line in text.split("\n") if _NOT_UTF8.search(line)]
            self._other = encoding_guess.guess("\n".join(lines).encode("utf-8", "surrogateescape"))

    def _as_other(self, cell: str) -> str:
        """Decodes bytes that are not UTF-8 by the other encoding."""
        if self._other != encoding_guess.WESTERN:
            try:
                return cell.encode("utf-8", "surrogateescape").decode(self._other)
            except (UnicodeDecodeError, UnicodeEncodeError):
                pass
        return _NOT_UTF8.sub(_as_ansi, cell)


def _as_ansi(hit: re.Match[str]) -> str:
    return bytes([ord(hit.group()) - 0xDC00]).decode("cp1252", "replace")
