"""Idempotency keys: the answer to a key is stored in the very transaction it tells of.

So there is no moment at which an order exists and its key does not know it. Refusals are not
stored: nothing happened, and the corrected request may use the same key.
"""

from dataclasses import dataclass
from datetime import timedelta

from app.db import idempotency
from app.domain.errors import Conflict, Unprocessable
from app.domain.ids import PartnerId
from app.runtime import Runtime, Tx

MAX_KEY = 255
PATIENCE = timedelta(minutes=5)
"""How long a first request may run before its key is given to a repetition of the same request."""
RETRY_AFTER = 2


@dataclass(frozen=True, slots=True)
class Replay:
    """What was answered the first time."""

    status: int
    location: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Once:
    """A key that is ours until completed or given up."""

    runtime: Runtime
    partner_id: PartnerId
    key: str

    async def complete(self, tx: Tx, status: int, location: str | None, body: bytes) -> None:
        sealed = self.runtime.secrets.seal(body, context=_context(self.partner_id, self.key))
        await idempotency.complete(
            tx.session, self.partner_id, self.key, status=status, location=location, body=sealed
        )

    async def give_up(self) -> None:
        async with self.runtime.transaction(self.partner_id) as tx:
            await idempotency.give_up(tx.session, self.partner_id, self.key)


def _context(partner_id: PartnerId, key: str) -> str:
    return f"idempotency:{partner_id}:{key}"


async def begin(runtime: Runtime, partner_id: PartnerId, key: str, fingerprint: bytes) -> Once | Replay:
    """Takes the key, or finds what came of it. Raises Unprocessable (other body), Conflict (running)."""
    if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise Unprocessable("idempotency_key_invalid")
    async with runtime.transaction(partner_id) as tx:
        row = await idempotency.begin(
            tx.session,
            partner_id,
            key,
            fingerprint=fingerprint,
            now=runtime.now(),
            patience=PATIENCE,
            remembered_for=timedelta(hours=runtime.settings.idempotency_hours),
        )
    if row is None:
        return Once(runtime, partner_id, key)
    if row["fingerprint"] != fingerprint:
        raise Unprocessable("idempotency_key_reused")
    if row["status"] is None:
        raise Conflict("idempotency_in_progress", retry_after=RETRY_AFTER)
    body = runtime.secrets.open(row["body"], context=_context(partner_id, key))
    return Replay(row["status"], row["location"], body)
