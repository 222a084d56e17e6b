"""One attempt to deliver a webhook: its possible outcomes, and what the receiver's status means.

The outcomes are stored in rows and shown in the delivery log. The HTTP call itself is made by
`app.kernel.outbound`.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.domain import retry_after

EXCERPT_BYTES = 1_024
MAX_RETRY_AFTER = timedelta(days=7)
"""Longer Retry-After values are cut to this; a larger number would overflow date arithmetic."""


class DeliveryState(StrEnum):
    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    EXHAUSTED = "exhausted"


_D = DeliveryState

# Back to PENDING: somebody has it redelivered.
DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    _D.PENDING: frozenset({_D.RETRYING, _D.SUCCEEDED, _D.EXHAUSTED}),
    _D.RETRYING: frozenset({_D.PENDING, _D.SUCCEEDED, _D.EXHAUSTED}),
    _D.SUCCEEDED: frozenset({_D.PENDING}),
    _D.EXHAUSTED: frozenset({_D.PENDING}),
}

OPEN_DELIVERY = (_D.PENDING, _D.RETRYING)
"""States in which a delivery is still to be made."""


class Kind(StrEnum):
    """The outcome of one attempt. Everything but `succeeded` is a failure."""

    SUCCEEDED = "succeeded"  # 2xx
    GONE = "gone"  # 410: the receiver wants no more deliveries
    REJECTED = "rejected"  # any other status, including redirects, which are not followed
    TIMEOUT = "timeout"  # no status within the total deadline
    BACKLOG_FULL = "backlog_full"  # not tried: too many deliveries already wait for the endpoint
    UNSIGNED = "unsigned"  # not called: the endpoint's signing secret cannot be opened
    INTERNAL = "internal"  # an unexpected exception in Registrar
    REFUSED_URL = "refused_url"  # not called: the URL breaks a rule of check_url
    REFUSED_ADDRESS = "refused_address"  # not called: webhooks may not go to this address
    UNRESOLVED = "unresolved"  # the host name has no address
    UNREACHABLE = "unreachable"  # connection refused, reset or without a route
    TLS = "tls"  # certificate or handshake
    PROTOCOL = "protocol"  # connected, but the response is not HTTP, or there is none


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt, ready to be stored as a row. Never contains the URL."""

    kind: Kind
    status: int | None
    retry_after: timedelta | None
    """The receiver's Retry-After from now, at most MAX_RETRY_AFTER."""
    excerpt: str
    """The first EXCERPT_BYTES of the body as text without control characters."""
    detail: str
    """One sentence for people; empty if the status says enough."""
    duration_ms: int


def meaning(status: int) -> tuple[Kind, str]:
    """The outcome that an HTTP status means, with a sentence if the status needs explaining."""
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
    """The beginning of a body, safe to show: at most EXCERPT_BYTES, no control characters."""
    # Category C is controls (PostgreSQL refuses NUL), surrogates, and the invisible and bidirectional
    # marks with which a receiver could rearrange an operator's screen.
    text = body[:EXCERPT_BYTES].decode("utf-8", "ignore")
    spaced = (" " if character in "\t\r\n" else character for character in text)
    return "".join(c for c in spaced if not unicodedata.category(c).startswith("C")).strip()
