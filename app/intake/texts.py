"""A workbook's shared texts: read once, and given out by their number.

Spreadsheet programs keep every text in one list, which may be larger than the sheet: four hundred
megabytes for a hundred thousand hashes. So they are read a chunk at a time and never cell by cell,
and what is beyond HELD waits in a temporary file.
"""

import os
import re
import sys
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import IO, Final

from app.intake.archive import Archive
from app.intake.bounds import CHUNK
from app.intake.markup import Names, Walk
from app.intake.pieces import Pieces, Rest
from app.intake.records import MAX_FIELD
from app.intake.table import Source, UnreadableFile

HELD: Final = 92 * 1024**2
"""Bytes of shared texts that are held in memory; further ones wait in a temporary file."""
MAX_WAITING: Final = 16 * 1024**2
"""Texts in that file. Where each of them stands is held in memory, and takes 8 bytes."""
AHEAD: Final = 64 * 1024
"""Bytes read at once from that file: rows mostly ask for texts in the order in which they stand."""
LOST_CHARACTER: Final = "\ufffd"
CHARACTERS: Final = "[^<&]*(?:&(?:amp|lt|gt|quot|apos);[^<&]*)*+"
"""A pattern of them, as `resolved` understands them. It gives nothing back, so it need not remember much."""

_ESCAPED: Final = re.compile("_x([0-9A-Fa-f]{4})_")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_LIST: Final = re.compile(rb"<sst(?: [^<>]*)?(?<!/)>")
_TEXTS: Final = re.compile(rf'\s*<si><t(?: xml:space="preserve")?>({CHARACTERS})</t></si>|(.+)', re.DOTALL)
"""One text, or all that is left where no text is understood."""
_OPENING: Final = "<si><t>"
_OPENING_KEPT: Final = '<si><t xml:space="preserve">'
_CLOSING: Final = "</t></si>"
_REFERENCES: Final = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}
"""The last one must be replaced last."""


class SharedTexts:
    """The texts that cells of all sheets point to. Beyond HELD bytes they wait in a temporary file."""

    def __init__(self, archive: Archive, part: str | None) -> None:
        self._spool = archive.spool
        self.has_odd = False
        """Whether one of them is too long or has lost a character, so that its cell needs a notice."""
        self._held: list[str] = []
        """The first ones."""
        self._size = 0
        self._places = array("Q", [0])
        self._file: IO[bytes] | None = None
        if part is not None:
            self._read(archive.open(part))

    @property
    def count(self) -> int:
        return len(self._held) + len(self._places) - 1

    def __getitem__(self, at: int) -> str:
        """Raises IndexError for a text that is not there."""
        return next(self._each((str(at),)))

    def of(self, numbers: Iterable[str]) -> list[str]:
        """The texts of many cells at once, an empty one for an empty number.

        Raises IndexError for one that is not there, ValueError for what is no number.
        """
        try:
            return [*map(self._held.__getitem__, map(int, numbers))]
        except (IndexError, ValueError):
            return [*self._each(numbers)]

    def _each(self, numbers: Iterable[str]) -> Iterator[str]:
        held, places = self._held, self._places
        data, begin, following = b"", 0, -1
        for number in numbers:
            at = int(number) if number else -1
            if at < len(held):
                yield held[at] if number else ""
                continue
            at -= len(held)
            start, end = places[at], places[at + 1]
            if start < begin or end > begin + len(data):
                size = max(end - start, AHEAD) if at == following else end - start
                data, begin = self._waiting(size, start), start
            following = at + 1
            yield data[start - begin : end - begin].decode()

    def _waiting(self, size: int, start: int) -> bytes:
        return b"" if self._file is None else os.pread(self._file.fileno(), size, start)

    def _read(self, part: Source) -> None:
        rest = Rest(part)
        reader = _TextReader(self._add)
        walk = Walk(reader.start, reader.end, reader.text)
        if rest.skip_to(_LIST, walk) and reader.last == "sst" and walk.encoding == "utf-8":
            self._scan(Pieces(rest, b"</si>"))
        for _ in walk.through(rest):
            pass
        if self._file is not None:
            self._file.flush()

    def _scan(self, pieces: Pieces) -> None:
        """Plain texts a chunk at a time, up to the first that is written in another way."""
        while chunk := pieces.take():
            if (texts := _split(chunk)) is not None or (texts := _split(_unkept(chunk))) is not None:
                self._add_all(*texts)
                continue
            found: list[tuple[str, str]] = _TEXTS.findall(chunk)
            rest = found[-1][1]
            for text, _ in found[: len(found) - bool(rest)]:
                self._add(resolved(text)[: MAX_FIELD + 1])
            if rest:
                pieces.leave(rest)
                return
        pieces.leave()

    def _add_all(self, texts: list[str], joined: str) -> None:
        """The same as `_add` for each of them, for all of them at once where nothing needs a closer look."""
        if not joined.isascii() or has_escapes(joined) or max(map(len, texts)) > MAX_FIELD:
            for text in texts:
                self._add(text[: MAX_FIELD + 1])
        elif self._has_room(len(joined) + 64 * len(texts)):
            self._held += texts
        else:
            self._write(joined.encode(), map(len, texts))

    def _add(self, text: str) -> None:
        if len(text) > MAX_FIELD:
            self.has_odd = True
        else:
            text = without_escapes(text)
            self.has_odd = self.has_odd or LOST_CHARACTER in text
        if self._has_room(sys.getsizeof(text) + 16):
            self._held.append(text)
        else:
            data = text.encode()
            self._write(data, (len(data),))

    def _has_room(self, size: int) -> bool:
        self._size += size
        return self._file is None and self._size <= HELD

    def _write(self, data: bytes, sizes: Iterable[int]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._spool.directory)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        self._spool.fill(len(data))
        self._file.write(data)
        self._places.extend(accumulate(sizes, initial=self._places.pop()))
        if len(self._places) > MAX_WAITING:
            raise UnreadableFile(
                "file_too_large",
                f"The workbook has more than {MAX_WAITING:,} different texts. Cut it into smaller files.",
            )


def without_escapes(text: str) -> str:
    """Excel writes what XML cannot hold as `_x000D_`; what cannot be stored is a lost character."""
    if not has_escapes(text):
        return text
    text = _ESCAPED.sub(lambda hit: chr(int(hit.group(1), 16)), text)
    return _UNSTORABLE.sub(LOST_CHARACTER, text)


def has_escapes(text: str) -> bool:
    # One character is looked for ten times as fast as two: a hash has four thousand.
    return "_" in text and "_x" in text


def _split(chunk: str) -> tuple[list[str], str] | None:
    """The texts of a chunk of nothing but plain ones, and all in one. Twice as fast as a pattern."""
    if not (chunk.startswith(_OPENING) and chunk.endswith(_CLOSING)):
        return None
    texts = chunk[len(_OPENING) : -len(_CLOSING)].split(_CLOSING + _OPENING)
    joined = "".join(texts)
    return None if "<" in joined or "&" in joined else (texts, joined)


def _unkept(chunk: str) -> str:
    """With all openings written alike; a text cannot hold one."""
    return chunk.replace(_OPENING_KEPT, _OPENING)


def resolved(text: str) -> str:
    """With the characters for which XML has names."""
    if "&" in text:
        for reference, character in _REFERENCES.items():
            text = text.replace(reference, character)
    return text


class _TextReader:
    """Shared texts by expat: pieces of different looks put together, readings of characters left out."""

    def __init__(self, add: Callable[[str], None]) -> None:
        self.last = ""
        names = Names()
        pieces: list[str] = []
        size = 0
        collecting = phonetic = False

        def start(name: str, pairs: list[str]) -> None:
            nonlocal collecting, phonetic, size
            kind = self.last = names.of(name, pairs)
            if kind == "si":
                pieces.clear()
                size = 0
            elif kind == "rPh":
                phonetic = True
            elif kind == "t":
                collecting = not phonetic

        def text(data: str) -> None:
            nonlocal size
            if collecting:
                size += len(data)
                # One piece more than a cell may have shows that it has too much.
                if size <= MAX_FIELD + CHUNK:
                    pieces.append(data)

        def end(name: str) -> None:
            nonlocal collecting, phonetic
            kind = names.of(name)
            if kind == "si":
                add("".join(pieces)[: MAX_FIELD + 1])
            elif kind == "rPh":
                phonetic = False
            elif kind == "t":
                collecting = False

        self.start, self.text, self.end = start, text, end
