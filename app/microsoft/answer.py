"""Interprets answers as far as they mean the same at all of Microsoft's APIs.

Pure functions of the answer, so that every odd shape of it is a row in a test. The platform decides what a
refusal means beyond its status. Microsoft's words are kept in `Said`.
"""

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import orjson

from app.domain import retry_after
from app.domain.upstream import (
    ConnectionTrouble,
    NotUnderstood,
    OutcomeUnknown,
    Said,
    Throttled,
    UpstreamFailure,
)

MAX_RETRY_AFTER = timedelta(days=1)
"""The longest Retry-After that is accepted; a larger number would overflow date arithmetic."""
MAX_DESCRIPTION = 300

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")
_LONG_SECRET = re.compile(r"[A-Za-z0-9+/=_\-.]{80,}")  # a hash or a token; GUIDs and links are shorter
_WAIT_IN_WORDS = re.compile(r"\bin (\d{1,9}) ?s", re.IGNORECASE)
_MFA_WORDS = re.compile(r"\bmfa\b|multi-?factor", re.IGNORECASE)
_INVALID_TOKEN = re.compile(r"\bbearer\b.*\binvalid_token\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete answer. Header names are in lower case."""

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    reason: str = ""
    """The status line's phrase: Microsoft may say only here that MFA is needed."""

    def header(self, name: str) -> str | None:
        return self.headers.get(name.lower())

    def json(self) -> Any:
        """The body's value with all property names folded. Raises NotUnderstood if it is not JSON."""
        try:
            return read_json(self.body)
        except ValueError:
            raise NotUnderstood(
                Said(self.status, None, f"the answer is not JSON ({self._media_type})")
            ) from None

    @property
    def _media_type(self) -> str:
        return tidy((self.header("content-type") or "no content type").partition(";")[0], limit=60)


def without_mark(body: bytes) -> bytes:
    """The body without the UTF-8 byte order mark that Partner Center's hosts write before their JSON.

    Only one mark: RFC 8259 lets a reader ignore it, but a second one is part of the text.
    """
    return body.removeprefix(codecs.BOM_UTF8)


def read_json(body: bytes) -> Any:
    """Parses Microsoft's JSON and folds all property names. Raises ValueError if it is not JSON."""
    try:
        return fold(orjson.loads(without_mark(body)))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def fold(value: Any) -> Any:
    """The value with all property names in lower case and without blanks around them.

    Microsoft's documentation differs in case from page to page, and one page has `" attributes"`.
    """
    if isinstance(value, dict):
        return {_folded_name(name): fold(item) for name, item in value.items()}
    if isinstance(value, list):
        return [fold(item) for item in value]
    return value


@lru_cache(maxsize=512)
def _folded_name(name: str) -> str:
    """Cached, because a thousand devices have the same dozen names."""
    return name.strip().lower()


def tidy(text: str, *, limit: int) -> str:
    """Makes Microsoft's words safe for a log: one line, truncated, without anything as long as a hash."""
    head = _LONG_SECRET.sub("[removed]", text[: limit * 40])
    return _UNPRINTABLE.sub(" ", head).strip()[:limit]


def read_retry_after(value: str | None, *, now: datetime) -> timedelta | None:
    return retry_after.read(value, now=now, longest=MAX_RETRY_AFTER)


def failure(
    reply: Reply,
    refusal: Callable[[Said, bool], UpstreamFailure],
    *,
    of_customer: bool,
    delegated: bool,
    now: datetime,
) -> UpstreamFailure | None:
    """Returns the failure that an answer means; None for a success.

    `refusal`: the meaning of the platform's other answers. `of_customer`: the path names a customer, so the
    refusal may concern only this customer. `delegated`: the call had an App+User token. A 401 is judged as
    the answer to a fresh token, because the caller has retried with one.
    """
    status = reply.status
    if 200 <= status < 300:
        return None
    error = _ErrorBody.read(reply)
    said = Said(status, error.code, error.description)
    if status == 429:
        wait = read_retry_after(reply.header("retry-after"), now=_their_time(reply) or now)
        return Throttled(wait if wait is not None else _wait_in_words(error), said)
    if status == 401:
        needs_mfa = delegated and _asks_for_mfa(reply, error)
        return ConnectionTrouble("mfa_required" if needs_mfa else "credential_refused", said)
    if status < 400:
        # Not an answer of this API: something in between has answered.
        return NotUnderstood(said)
    if status >= 500 or status == 408:  # 408: a gateway's timeout
        return OutcomeUnknown(said, answered=True)
    return refusal(said, of_customer)


@dataclass(frozen=True, slots=True)
class _ErrorBody:
    """Microsoft's code and words, from any of the known forms."""

    code: str | None
    description: str | None

    @classmethod
    def read(cls, reply: Reply) -> "_ErrorBody":
        try:
            body = read_json(reply.body)
        except ValueError:
            return cls(None, _plain_words(reply))
        if isinstance(body, str):
            return cls(None, tidy(body, limit=MAX_DESCRIPTION) or None)
        if not isinstance(body, dict):
            return cls(None, tidy(reply.reason, limit=MAX_DESCRIPTION) or None)
        if isinstance(body.get("error"), dict):  # a gateway's {"error": {"code", "message"}}
            body = body["error"]
        return cls(
            _first(body, ("code", "errorcode", "error"), limit=60),
            _first(body, ("description", "message", "error_description", "errordescription"))
            or tidy(reply.reason, limit=MAX_DESCRIPTION)
            or None,
        )


def _first(body: dict[str, Any], names: tuple[str, ...], *, limit: int = MAX_DESCRIPTION) -> str | None:
    for name in names:
        value = body.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            text = tidy(str(value), limit=limit)
            if text:
                return text
    return None


def _plain_words(reply: Reply) -> str | None:
    """The body if it is a plain sentence, otherwise the status line's phrase: a gateway's page says less."""
    media_type = (reply.header("content-type") or "text/plain").lower()
    body = without_mark(reply.body[:4_096]) if media_type.startswith("text/plain") else b""
    text = body.decode("utf-8", "replace")
    return tidy(text, limit=MAX_DESCRIPTION) or tidy(reply.reason, limit=MAX_DESCRIPTION) or None


def _their_time(reply: Reply) -> datetime | None:
    """Microsoft's time, which its dates refer to."""
    try:
        then = parsedate_to_datetime(reply.header("date") or "")
    except (ValueError, TypeError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def _wait_in_words(error: _ErrorBody) -> timedelta | None:
    found = _WAIT_IN_WORDS.search(error.description or "")
    return min(timedelta(seconds=int(found[1])), MAX_RETRY_AFTER) if found else None


def _asks_for_mfa(reply: Reply, error: _ErrorBody) -> bool:
    """Whether MFA is required. Microsoft says so in one of three ways: code 900421, the reason phrase, or a
    bare Bearer challenge."""
    challenge = reply.header("www-authenticate") or ""
    if error.code == "900421" or _MFA_WORDS.search(f"{reply.reason} {challenge} {error.description or ''}"):
        return True
    return error.code is None and _INVALID_TOKEN.search(challenge) is not None
