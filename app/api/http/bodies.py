"""Bounds on request bodies by route: bytes, objects, lists and values.

A few megabytes of JSON can become gigabytes of objects once a parser builds them: in `[{},{},...` each
takes three bytes. So objects, lists and values are counted while the bytes arrive, and a body with more of
them than the call can use is refused before anything is built. Any body within its bound is cheap to build.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path
from starlette.types import Scope

from app.domain.errors import Unprocessable
from app.domain.order import MAX_DEVICES

KB: Final = 1024
PIECE: Final = 64 * KB
"""Bytes that are scanned at once. Other callers are answered between two pieces."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a call's body may have."""

    max_bytes: int
    containers: int
    """Objects and lists."""
    values: int
    values_each: int | None = None
    """Values for each object and list, with SOME_VALUES to spare. One object of 100,000 names would give as
    many errors."""


SOME_VALUES: Final = 12_000
"""Enough for a list of serial numbers in place of devices, so that the error can name it."""
MAX_TEXT: Final = 4 * KB * KB
"""Bytes without a quotation mark. No field is that long, and a text is copied before it is refused."""


SHORT: Final = Bound(64 * KB, containers=1_000, values=5_000)
"""Most calls: a few fields."""
LISTS: Final = Bound(512 * KB, containers=12_000, values=30_000)
"""Rows of one batch or order, or a vendor profile with its group tags."""
ORDER: Final = Bound(64 * KB * KB, containers=2 * MAX_DEVICES + 2, values=10 * MAX_DEVICES, values_each=10)
"""More than an order of 10,000 devices needs, so that a misspelt field, a list in place of a text, or a few
devices too many still get an error that names them."""

BOUNDS: Final[dict[str, Bound]] = {
    "create_order": ORDER,
    "retry_failed": LISTS,
    "record_outcome": LISTS,
    "create_profile": LISTS,
    "update_profile": LISTS,
}
"""By the route's name. Other routes get the bound of a short body; files are bounded where they are read."""


def bound_of(scope: Scope) -> Bound:
    """The bound of the route that the request was given to."""
    return BOUNDS.get(getattr(scope.get("route"), "name", ""), SHORT)


def limits_of(app: FastAPI, files: dict[str, int], max_bytes: int) -> Callable[[Scope], int]:
    """A function that gives the limit in bytes of a request's body, before the request is routed.

    `files`: the limits of routes whose body is a file, by the route's name; files are not gathered in memory.
    `max_bytes`: the limit of the largest JSON body.
    """
    table = [
        (compile_path(str(found.path))[0], found.methods or set(), limit)
        for found in iter_route_contexts(app.routes)
        if (limit := _limit(getattr(found.route, "name", ""), files, max_bytes)) is not None
    ]
    default = min(SHORT.max_bytes, max_bytes)

    def limit_of(scope: Scope) -> int:
        path: str = scope["path"]
        path = path.removeprefix(scope.get("root_path", ""))
        for pattern, methods, limit in table:
            if scope["method"] in methods and pattern.match(path):
                return limit
        return default

    return limit_of


def _limit(name: str, files: dict[str, int], max_bytes: int) -> int | None:
    if name in files:
        return files[name]
    return min(BOUNDS[name].max_bytes, max_bytes) if name in BOUNDS else None


def too_complex(bound: Bound) -> Unprocessable:
    """The refusal of a body with more in it than its call can use. The rest of the body is not read."""
    each = "" if bound.values_each is None else f" ({bound.values_each} for each object)"
    return Unprocessable(
        "body_too_complex",
        f"The body of this call has at most {bound.containers:,} objects and lists, {bound.values:,} values"
        f"{each}, and 200 levels.",
    )


def text_too_long() -> Unprocessable:
    """The refusal of a body with a text that no field can hold. The rest of the body is not read."""
    return Unprocessable(
        "body_too_complex", f"No text of a body may have more than {MAX_TEXT // KB // KB} MB."
    )


def fits(bound: Bound, openings: int, commas: int) -> bool:
    """Whether these counts are within the bound. An object's values come after it, so if the whole body is
    within its bound, so is every beginning of it."""
    values = bound.values
    if bound.values_each is not None:
        values = min(values, SOME_VALUES + bound.values_each * openings)
    return openings <= bound.containers and commas < values


class Count:
    """A fast count that is never too low: it also counts what is inside texts, usually little."""

    __slots__ = ("bound", "commas", "openings")

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.openings = 0
        self.commas = 0

    def fits(self, piece: bytes) -> bool:
        """Whether the body so far is certainly within its bound."""
        self.openings += _count(piece, b"{") + _count(piece, b"[")
        self.commas += _count(piece, b",")
        return fits(self.bound, self.openings, self.commas)


_SPARSE: Final = 200
"""After this many in one piece, looking at every byte is quicker than searching for the next one."""


def _count(piece: bytes, character: bytes) -> int:
    """Like `piece.count`, but ten times as fast if there are few, because it searches past hashes."""
    found, at = 0, piece.find(character)
    while at >= 0:
        found += 1
        if found == _SPARSE:
            return found + piece.count(character, at + 1)
        at = piece.find(character, at + 1)
    return found


class Scan:
    """The exact count, without what is inside texts."""

    __slots__ = ("bound", "commas", "escaped", "in_text", "openings", "quotes")

    def __init__(self, bound: Bound) -> None:
        self.bound = bound
        self.openings = self.commas = self.quotes = 0
        self.in_text = False
        self.escaped = False
        """Whether the previous piece ended within an escape."""

    def take(self, piece: bytes) -> None:
        """Raises Unprocessable as soon as the body has more than its bound."""
        outside = self._outside_of_texts(piece)
        self.openings += outside.count(b"{") + outside.count(b"[")
        self.commas += outside.count(b",")
        bound = self.bound
        # Each text is a value or a name. A body with more quotation marks than those need is not JSON.
        many = not fits(bound, self.openings, self.commas)
        if many or self.quotes > 4 * (bound.values + bound.containers):
            raise too_complex(bound)

    def _outside_of_texts(self, piece: bytes) -> bytes:
        if self.escaped:
            piece, self.escaped = piece[1:], not piece
        if b"\\" in piece:
            ending = len(piece) - len(piece.rstrip(b"\\"))
            if ending % 2:
                piece, self.escaped = piece[:-1], True
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.translate(None, _NO_STRUCTURE).split(b'"')
        outside = b"".join(parts[self.in_text :: 2])
        self.quotes += len(parts) - 1
        self.in_text ^= len(parts) % 2 == 0
        return outside


_NO_STRUCTURE: Final = bytes(set(range(256)) - set(b'"{[,'))
