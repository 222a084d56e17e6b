"""One attempt to deliver a webhook: how it can end, and what a receiver's answer means.

Stands alone and pure because these words are stored as rows and shown in the delivery log; how the answer
came about, with sockets and TLS, is the business of `app.kernel.outbound`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain import retry_after

EXCERPT_BYTES = 1_024
MAX_RETRY_AFTER = timedelta(days=7)
"""The longest Retry-After that is believed; a larger number would only overflow date arithmetic."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    EXHAUSTED = "exhausted"


_D = DeliveryState

# Back to PENDING: a person has it redelivered.
DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    _D.PENDING: frozenset({_D.RETRYING, _D.SUCCEEDED, _D.EXHAUSTED}),
    _D.RETRYING: frozenset({_D.PENDING, _D.SUCCEEDED, _D.EXHAUSTED}),
    _D.SUCCEEDED: frozenset({_D.PENDING}),
    _D.EXHAUSTED: frozenset({_D.PENDING}),
}

OPEN_DELIVERY = (_D.PENDING, _D.RETRYING)
"""The states of a delivery that is still to be made."""


class Kind(StrEnum):
    """What became of one attempt. Everything but `succeeded` is a failure."""

    SUCCEEDED = "succeeded"  # 2xx
    GONE = "gone"  # 410: the receiver asks to be left alone
    REJECTED = "rejected"  # any other status; a redirect too, since none is followed
    TIMEOUT = "timeout"  # no status within the total deadline
    BACKLOG_FULL = "backlog_full"  # not tried: too many deliveries wait for the endpoint already
    UNSIGNED = "unsigned"  # we did not call: the endpoint's signing secret cannot be opened
    INTERNAL = "internal"  # an unexpected exception of our own
    REFUSED_URL = "refused_url"  # we did not call: the URL breaks a rule of check_url
    REFUSED_ADDRESS = "refused_address"  # we did not call: the address is not one for webhooks
    UNRESOLVED = "unresolved"  # the host name has no address
    UNREACHABLE = "unreachable"  # connection refused, reset or without a route
    TLS = "tls"  # certificate or handshake
    PROTOCOL = "protocol"  # connected, but what came back (or did not) is not an HTTP answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt, ready to be stored as a row. Never contains the URL."""

    kind: Kind
    status: int | None
    retry_after: timedelta | None
    """How long from now the receiver asked to wait, at most MAX_RETRY_AFTER."""
    excerpt: str
    """The first EXCERPT_BYTES of the body as text without control characters."""
    detail: str
    """One sentence for a person; empty when the status says it all."""
    duration_ms: int


def meaning(status: int) -> tuple[Kind, str]:
    """What an HTTP status says about the attempt, and a sentence where it does not say it itself."""
    if 200 <= status < 300:
        return Kind.SUCCEEDED, ""
    if status == 410:
        return Kind.GONE, "The receiver answered 410 Gone: it wants no more events at this URL."
    if 300 <= status < 400:
        return (
            Kind.REJECTED,
            "The receiver answered with a redirect, which is not followed; use the final URL.",
        )
    return Kind.REJECTED, ""


def read_retry_after(value: str, *, now: datetime) -> timedelta | None:
    return retry_after.read(value, now=now, longest=MAX_RETRY_AFTER)


def excerpt(body: bytes) -> str:
    """The beginning of a body as a person may be shown it: at most EXCERPT_BYTES, no control characters."""
    # Category C holds controls (PostgreSQL refuses NUL), surrogates, and the invisible and bidirectional
    # marks that would let a receiver rearrange an operator's screen.
    text = body[:EXCERPT_BYTES].decode("utf-8", "ignore")
    spaced = (" " if character in "\t\r\n" else character for character in text)
    return "".join(c for c in spaced if not unicodedata.category(c).startswith("C")).strip()
