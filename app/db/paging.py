"""Pages by key: the token carries the last row's sort value, so pages neither skip nor repeat rows
while others are inserted, and page 1,000 costs what page 1 costs.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

Item = TypeVar("Item")


class InvalidPageToken(ValueError):
    """The token was not made by `next_token`."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    size: int = DEFAULT_PAGE_SIZE
    after: str | None = None
    """The decoded sort value of the last row already seen."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: Sequence[Item]
    next_token: str | None


def request(size: int | None, token: str | None) -> PageRequest:
    """What a caller asks for, its size brought into bounds. Raises InvalidPageToken."""
    size = DEFAULT_PAGE_SIZE if size is None else max(1, min(size, MAX_PAGE_SIZE))
    if not token:
        return PageRequest(size)
    try:
        after = base64.urlsafe_b64decode(token.encode() + b"==").decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidPageToken from error
    # Decoding forgives much; only what we write ourselves is a token.
    if _token(after) != token:
        raise InvalidPageToken
    return PageRequest(size, after)


def cut(rows: Sequence[Item], page: PageRequest, key: Callable[[Item], object]) -> Page[Item]:
    """`rows` were asked for with `size + 1`: the surplus row says that there is more."""
    if len(rows) <= page.size:
        return Page(rows, None)
    kept = rows[: page.size]
    return Page(kept, _token(str(key(kept[-1]))))


def token_after(value: object) -> str:
    """The token of the page that begins after this sort value."""
    return _token(str(value))


def _token(value: str) -> str:
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")
