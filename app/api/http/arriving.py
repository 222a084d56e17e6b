"""A request body while it arrives: gathers, counts and hashes its bytes."""

import asyncio
import hashlib
from io import BytesIO
from typing import Final

from app.api.http.bodies import MAX_TEXT, PIECE, Bound, Count, Scan, text_too_long

SMALL_BODY: Final = 64 * 1024
"""Bytes. Larger bodies are hashed and decoded in threads, so that other callers are answered meanwhile."""
_BACKLOG: Final = 4 * 1024 * 1024
"""Bytes that may wait to be hashed. Beyond that, reading pauses."""


class Arriving:
    """Gathers a body. If its length is known, it is written into one buffer, so that an order of 40 MB is
    there only once."""

    def __init__(self, bound: Bound, announced: int) -> None:
        self._bound = bound
        self._received = BytesIO(bytes(announced)) if announced else BytesIO()
        self._size = 0
        self._count = Count(bound)
        self._scan: Scan | None = None
        self._without_quote = 0
        """Bytes since the last quotation mark, white space between values left out."""
        self._digest = hashlib.sha256()
        self._unhashed: list[bytes] = []
        self._backlog = 0
        self._hashing: asyncio.Future[None] | None = None

    @property
    def commas(self) -> int | None:
        """The number of commas; None if they were not all counted."""
        return self._count.commas if self._scan is None else None

    async def add(self, chunk: bytes) -> None:
        """Raises Unprocessable as soon as the body exceeds its bound."""
        if self._scan is None and not self._count.fits(chunk):
            self._scan = await self._look_again()
        if self._scan is not None:
            self._scan.take(chunk)
        self._bound_texts(chunk)
        self._received.write(chunk)
        self._size += len(chunk)
        self._unhashed.append(chunk)
        self._backlog += len(chunk)
        if self._size >= SMALL_BODY:
            await self._hash_beside()

    def _bound_texts(self, chunk: bytes) -> None:
        if (last := chunk.rfind(b'"')) >= 0:
            self._without_quote = len(chunk) - last - 1
        elif not chunk.isspace():
            self._without_quote += len(chunk)
        if self._without_quote > MAX_TEXT:
            raise text_too_long()

    async def _look_again(self) -> Scan:
        """Counts what has arrived exactly, because the fast count includes what is inside texts."""
        scan = Scan(self._bound)
        arrived = self._received.getvalue()
        for start in range(0, self._size, PIECE):
            scan.take(arrived[start : min(start + PIECE, self._size)])
            await asyncio.sleep(0)
        return scan

    async def _hash_beside(self) -> None:
        if self._hashing is not None and not self._hashing.done():
            if self._backlog <= _BACKLOG:
                return
            await self._hashing
        self._hashing = asyncio.get_running_loop().run_in_executor(None, self._hash, self._unhashed)
        self._unhashed, self._backlog = [], 0

    def _hash(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._digest.update(chunk)

    def body(self) -> bytes:
        """Returns the whole body. Nothing can be added afterwards."""
        self._received.truncate()
        body = self._received.getvalue()
        self._received = BytesIO()
        return body

    async def digest(self) -> bytes:
        """The SHA-256."""
        if self._hashing is None:
            self._hash(self._unhashed)
        else:
            await self._hashing
            await asyncio.to_thread(self._hash, self._unhashed)
        return self._digest.digest()
