"""Pages by key: a page token contains the sort value of the page's last row.

So pages neither skip nor repeat rows while others are inserted, and page 1,000 costs the same as page 1.

A token belongs to its list: it begins with a digest of the partner, the list and its filters. With another
list or other filters it would silently skip rows, so it is refused there. The digest is no secret: a forged
token shows its maker nothing but its own rows.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000

_DIGEST_BYTES = 8

Item = TypeVar("Item")


class InvalidPageToken(ValueError):
    """The token was not made by `cut`, or was made for another list or other filters."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    size: int = DEFAULT_PAGE_SIZE
    after: str | None = None
    """The decoded sort value of the last row already seen."""
    binding: bytes = bytes(_DIGEST_BYTES)
    """The digest that the tokens of this list begin with: see `bind`."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: Sequence[Item]
    next_token: str | None


def bind(owner: str, path: str, filters: Iterable[tuple[str, str]]) -> bytes:
    """The digest of a list: its owner, its path, and its filters in any order."""
    parts = [owner, path, *(part for pair in sorted(filters) for part in pair)]
    # Each part has its length in front, so that different parts cannot give the same text.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]


def request(size: int | None, token: str | None, binding: bytes = bytes(_DIGEST_BYTES)) -> PageRequest:
    """The requested page, its size limited to the maximum. Raises InvalidPageToken."""
    size = DEFAULT_PAGE_SIZE if size is None else max(1, min(size, MAX_PAGE_SIZE))
    if not token:
        return PageRequest(size, None, binding)
    try:
        found = base64.urlsafe_b64decode(token.encode() + b"==")
        after = found[_DIGEST_BYTES:].decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidPageToken from error
    # The decoder also accepts other texts; only what we wrote ourselves is a token.
    if not after or _token(after, binding) != token:
        raise InvalidPageToken
    return PageRequest(size, after, binding)


def cut(
    rows: Sequence[Item],
    page: PageRequest,
    key: Callable[[Item], object],
    *,
    searched_to: object | None = None,
) -> Page[Item]:
    """Makes a page of `rows`, which were fetched with `size + 1`: a surplus row means that there are more.

    `searched_to`: the sort value up to which rows were searched. The next page begins after it, even if this
    one has few rows or none. None: all were searched.
    """
    if len(rows) <= page.size:
        return Page(rows, None if searched_to is None else _token(str(searched_to), page.binding))
    kept = rows[: page.size]
    return Page(kept, _token(str(key(kept[-1])), page.binding))


def _token(value: str, binding: bytes) -> str:
    return base64.urlsafe_b64encode(binding + value.encode()).decode().rstrip("=")
