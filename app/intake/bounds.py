"""Limits of a file's size, packed and unpacked, and the streams that enforce them.

A few kilobytes can unpack to gigabytes. Everything that is read passes through here, so that a hostile file
costs little memory and a known amount of time.
"""

import zlib
from collections.abc import Callable
from typing import Final

from app.intake.table import Head, Source, UnreadableFile

MAX_BYTES: Final = 4 * 1024**3
"""The largest file, packed or unpacked: enough for a million devices with hashes."""
MAX_RATIO: Final = 200
"""Ratio of unpacked to packed size. Tables of devices reach at most 40, a bomb 1,000."""
FREE: Final = 8 * 1024**2
"""Unpacked bytes up to which the ratio is not checked."""
CHUNK: Final = 64 * 1024

GZIP: Final = b"\x1f\x8b"


def at_once() -> None:
    """The default `breathe`, which does nothing. Others may wait, or raise to stop the reading."""


class Limited:
    """A stream that raises UnreadableFile after more than MAX_BYTES."""

    def __init__(self, stream: Source, breathe: Callable[[], None] = at_once) -> None:
        self._stream = stream
        self._given = 0
        self._breathe = breathe

    def read(self, size: int = -1, /) -> bytes:
        self._breathe()
        data = self._stream.read(size if size >= 0 else CHUNK)
        self._given += len(data)
        if self._given > MAX_BYTES:
            raise too_large()
        return data


class Inflated:
    """The content of a gzip stream, all its members. Raises UnreadableFile for damage and for bombs."""

    def __init__(self, head: Head, stream: Source, breathe: Callable[[], None] = at_once) -> None:
        self._stream = stream
        self._breathe = breathe
        self._ended = head.whole
        self._packed = head.data
        self._taken = len(head.data)
        self._given = 0
        self._inflater = _inflater()

    def read(self, size: int = -1, /) -> bytes:
        size = CHUNK if size < 0 else size
        self._breathe()
        while True:
            if self._inflater.eof and not self._next_member():
                return b""
            if not self._packed and not self._refill():
                raise _damaged("it ends in the middle")
            try:
                data = self._inflater.decompress(self._packed, size)
            except zlib.error:
                raise _damaged("its data contradicts its checksum") from None
            self._packed = self._inflater.unconsumed_tail
            self._given += len(data)
            check_ratio(self._given, self._taken)
            if data:
                return data

    def _next_member(self) -> bool:
        """Begins the next member; False if nothing or only padding follows."""
        self._packed = self._inflater.unused_data
        while not self._packed or len(self._packed) < len(GZIP):
            before = self._packed
            if not self._refill():
                break
            self._packed = before + self._packed
        if not self._packed.startswith(GZIP):
            if self._packed.strip(b"\0"):
                raise _damaged("something else follows it")
            self._packed = b""
            return self._refill() and self._next_filling()
        self._inflater = _inflater()
        return True

    def _next_filling(self) -> bool:
        """Allows zeros up to the end: tapes pad their blocks with them."""
        while not self._packed.strip(b"\0"):
            if not self._refill():
                return False
        raise _damaged("something else follows it")

    def _refill(self) -> bool:
        self._packed = b"" if self._ended else self._stream.read(CHUNK)
        self._ended = not self._packed
        self._taken += len(self._packed)
        return bool(self._packed)


def check_ratio(unpacked: int, packed: int) -> None:
    """Raises UnreadableFile if the file unpacks to too much for its size."""
    if unpacked > MAX_BYTES:
        raise too_large()
    if unpacked > FREE and unpacked > MAX_RATIO * packed:
        raise UnreadableFile(
            "compression_bomb",
            f"The file unpacks to more than {MAX_RATIO} times its size, which no list of devices does. "
            "Upload it without compression; a workbook as CSV UTF-8.",
        )


def too_large() -> UnreadableFile:
    return UnreadableFile(
        "file_too_large", f"The file has more than {MAX_BYTES // 1024**3} GB. Cut it into smaller files."
    )


def _inflater() -> "zlib._Decompress":
    return zlib.decompressobj(wbits=31)


def _damaged(why: str) -> UnreadableFile:
    return UnreadableFile("gzip_damaged", f"The gzip file is damaged: {why}. Compress or download it again.")
