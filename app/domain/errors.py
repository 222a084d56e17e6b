"""Refusals that callers can receive, as exceptions. One class per HTTP status of the API's table.

    Refusal
    ├── Unauthenticated   401   no valid key
    ├── Forbidden         403   the key may not do this
    ├── NotFound          404   unknown, or another partner's: the wording does not tell which
    ├── Conflict          409   the present state does not allow it
    ├── TooLarge          413   over a limit
    ├── Unprocessable     422   understood, but cannot be done
    ├── RateLimited       429   too many calls
    └── Busy              503   try again later

Each refusal has a catalogue code; `detail` describes the particular case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.catalogue import lookup


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field: a JSON pointer into the body (or a parameter's name), a code and a message."""

    pointer: str
    code: str
    detail: str
    row: int | None = None
    """The device's number in the order, counted from 1."""


class Refusal(Exception):
    """The base of all refusals; never raised itself."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        errors: Sequence[FieldError] = (),
        *,
        retry_after: int | None = None,
        links: dict[str, str] | None = None,
    ) -> None:
        entry = lookup(code)
        super().__init__(f"{code}: {detail or entry.title}")
        self.code = code
        self.title = entry.title
        self.detail = detail or entry.title
        self.remedy = entry.remedy
        self.errors = tuple(errors)
        self.retry_after = retry_after
        self.links = links or {}


class Unauthenticated(Refusal):
    """No valid API key."""


class Forbidden(Refusal):
    """The key is valid but may not do this."""


class NotFound(Refusal):
    """Unknown, or another partner's."""


class Conflict(Refusal):
    """The present state does not allow it."""


class TooLarge(Refusal):
    """Over a limit."""


class Unprocessable(Refusal):
    """The call is understood but cannot be carried out."""


class RateLimited(Refusal):
    """Too many calls."""


class Busy(Refusal):
    """Cannot be done now; try again later."""
