"""Idempotency keys: the answer to a key is stored in the same transaction as the change it reports.

So an order never exists without its key knowing it. Refusals are not stored: nothing happened, and
the corrected request may use the same key.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.db import idempotency, partners
from app.domain.actor import Principal
from app.domain.errors import Conflict, Unprocessable
from app.domain.ids import PartnerId
from app.domain.quota import Quota
from app.kernel.secrets import Place, SecretError
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx, SystemTx
from app.runtime import Runtime
from app.services.access import quotas

log = logger("idempotency")

MAX_KEY = 255
PATIENCE = timedelta(seconds=15)
"""How long after its last heartbeat a first request counts as dead, so that a repetition of it may take
the key. An order system that lost an answer waits no longer than that."""
RENEWAL = timedelta(seconds=4)
"""The time between two heartbeats of a running request."""
MAX_ANSWER = 1_000_000
"""The largest answer that is stored, in bytes. Of a larger one only the status and the location are stored;
its content is read again when the request is repeated."""
SECRET_REPEATED_FOR = timedelta(hours=1)
"""How long an answer that shows a secret is repeated: enough for a lost answer."""
DIGEST_BYTES = 32
RETRY_AFTER = 2


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer to the first request."""

    status: int
    location: str | None
    body: bytes
    """Empty if it was too large to be stored."""


@dataclass(frozen=True, slots=True)
class Once:
    """A key that this request holds until it completes or gives up."""

    runtime: Runtime
    principal: Principal
    key: str
    begun_at: datetime

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Sends heartbeats for the request while the block runs."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL.total_seconds())
            try:
                async with self.runtime.transaction(self.principal) as tx:
                    until = self.runtime.now() + PATIENCE
                    await idempotency.renew(tx, self.key, begun_at=self.begun_at, until=until)
            except (SQLAlchemyError, OSError) as error:
                # If this continues, the key is lost and `complete` raises; nothing is done twice.
                log.warning("key_not_renewed", error=type(error).__name__)

    async def complete(self, tx: PartnerTx, status: int, location: str | None, body: bytes) -> None:
        """Raises Conflict when the key has been given to a repetition: this transaction must not commit."""
        kept = body if len(body) <= MAX_ANSWER else b""
        sealed = self.runtime.secrets.seal(kept, body_place(self.principal.partner_id, self.key))
        completed = await idempotency.complete(
            tx, self.key, status=status, location=location, body=sealed, begun_at=self.begun_at
        )
        if not completed:
            raise Conflict("idempotency_in_progress", retry_after=RETRY_AFTER)

    async def give_up(self) -> None:
        async with self.runtime.transaction(self.principal) as tx:
            await idempotency.give_up(tx, self.key, begun_at=self.begun_at)


def body_place(partner_id: PartnerId, key: str) -> Place:
    return Place("idempotency_keys", "body", partner_id, key, f"idempotency:{partner_id}:{key}")


def _used_before(stored: bytes, digest: bytes) -> Unprocessable:
    if stored[:DIGEST_BYTES] != digest:
        return Unprocessable("idempotency_key_reused")
    return Unprocessable(
        "idempotency_key_reused",
        "Another API key made this call with the same Idempotency-Key. The answer shows a secret, so it is "
        "repeated only for that API key and for one that has replaced it.",
    )


async def forget_secrets(tx: SystemTx, now: datetime) -> int:
    """Deletes secrets from answers that are no longer repeated; returns how many."""
    return await idempotency.empty_bodies(
        tx,
        longer_than=DIGEST_BYTES,
        created_after=now - 2 * SECRET_REPEATED_FOR,
        created_before=now - SECRET_REPEATED_FOR,
    )


async def knows(runtime: Runtime, principal: Principal, key: str) -> bool:
    """Whether a request with this key has been answered. Takes no key and compares no requests."""
    async with runtime.transaction(principal) as tx:
        return await idempotency.is_answered(tx, key)


async def lineage(runtime: Runtime, principal: Principal, key_id: UUID) -> UUID:
    """Returns the first key of the rotations that led to this API key. All keys of a chain share it."""
    async with runtime.transaction(principal) as tx:
        return await partners.first_predecessor(tx, key_id) or key_id


async def begin(
    runtime: Runtime, principal: Principal, key: str, digest: bytes, shown_to: UUID | None = None
) -> Once | Replay:
    """Takes the key, or returns the stored answer.

    Raises Unprocessable for another body, and Conflict while the first request runs or if the stored answer
    does not open.

    `shown_to`: for an answer that shows a secret. It is repeated only for a while, and only to callers with
    the same id.

    Only new keys can raise `quota_exceeded`: a known key is answered, however many there are.
    """
    if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise Unprocessable("idempotency_key_invalid")
    now = runtime.now()
    fingerprint = digest if shown_to is None else digest + shown_to.bytes
    async with runtime.transaction(principal) as tx:
        row = await idempotency.begin(
            tx,
            key,
            fingerprint=fingerprint,
            now=now,
            patience=PATIENCE,
            remembered_for=timedelta(hours=runtime.settings.idempotency_hours),
        )
        if row is None:
            await quotas.require_room(tx, Quota.IDEMPOTENCY_ANSWERS)
    if row is None:
        return Once(runtime, principal, key, begun_at=now)
    if row.fingerprint != fingerprint:
        raise _used_before(row.fingerprint, digest)
    if row.status is None:
        raise Conflict("idempotency_in_progress", retry_after=RETRY_AFTER)
    if shown_to is not None and now - row.created_at > SECRET_REPEATED_FOR:
        raise Conflict("idempotency_secret_gone")
    try:
        body = runtime.secrets.open(row.body or b"", body_place(principal.partner_id, key))
    except SecretError as error:
        log.error("stored_answer_not_opened", partner_id=str(principal.partner_id), reason=str(error))
        raise Conflict("idempotency_answer_lost", f"The stored answer does not open: {error}.") from error
    return Replay(row.status, row.location, body)
