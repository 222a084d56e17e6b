"""Signs webhooks as the Standard Webhooks specification defines, so that its public libraries verify them.

The signature covers id, time and body, so none of them can be changed or replayed separately. Signatures are
symmetric (`v1`, HMAC-SHA256), with `whsec_` secrets, and with several secrets during a rotation. Receivers'
code depends on exactly this.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime

SECRET_PREFIX = "whsec_"  # noqa: S105 - a public marker, not a secret
MIN_SECRET_BYTES = 24
MAX_SECRET_BYTES = 64
"""Both bounds are the specification's."""

# The signed parts are joined by full stops, so an id with a full stop could be read in two ways.
_MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


def new_secret(random: bytes) -> str:
    """The secret made of 24 to 64 bytes from a cryptographic source, in the form that receivers get."""
    _check_length(random)
    return SECRET_PREFIX + base64.b64encode(random).decode("ascii")


def sign(secrets: Sequence[str], message_id: str, timestamp: datetime | int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt; `body` must be the exact bytes that are sent.

    One signature per secret, in the given order: put the new secret first while the old one is still valid.
    `timestamp` is the time of this attempt, not of the event, because receivers reject timestamps that are
    minutes old.

    Raises:
        ValueError: no secret, one that `new_secret` would not make, an id with other characters than
            letters, digits, "_" and "-", or a time without a zone. Never quotes a secret.
    """
    if not secrets:
        raise ValueError("at least one secret is needed")
    if _MESSAGE_ID.fullmatch(message_id) is None:
        raise ValueError("a message id has 1 to 255 letters, digits, underscores or hyphens")
    seconds = _unix_seconds(timestamp)
    signed = f"{message_id}.{seconds}.".encode("ascii") + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(_signature(_key(secret), signed) for secret in secrets),
    }


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")


def _key(secret: str) -> bytes:
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret begins with {SECRET_PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"a secret is Base64 after {SECRET_PREFIX}") from None
    _check_length(key)
    return key


def _check_length(key: bytes) -> None:
    if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(f"a secret has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, not {len(key)}")


def _unix_seconds(timestamp: datetime | int) -> int:
    if isinstance(timestamp, int):
        return timestamp
    if timestamp.tzinfo is None:
        raise ValueError("times must carry their zone")
    return int(timestamp.astimezone(UTC).timestamp())
