"""The secrets that webhooks are signed with: made, kept sealed, and changed with an overlap."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_bytes
from uuid import UUID

from app.db import events, webhook_secrets
from app.db.ids import new_row_id
from app.db.sql import Record
from app.domain import signature
from app.domain.errors import Conflict, NotFound
from app.domain.ids import PartnerId
from app.runtime import Runtime, Tx
from app.secrets import SecretError
from app.telemetry import logger

log = logger("webhooks")

SECRET_BYTES = 32
MAX_SECRETS = 4
"""Secrets of one endpoint that sign at the same time: each adds 48 bytes to a header."""


@dataclass(frozen=True, slots=True)
class Rotated:
    endpoint: Record
    secret: str
    """The new one, which is shown this once."""
    previous_until: datetime
    """Until then the secrets of before sign as well."""


def new(runtime: Runtime, partner_id: PartnerId) -> tuple[str, bytes]:
    """A secret as its receiver is shown it, and sealed."""
    secret = signature.new_secret(token_bytes(SECRET_BYTES))
    return secret, runtime.secrets.seal(secret, context=_context(partner_id))


def opened(runtime: Runtime, endpoint: Record, others: Sequence[bytes]) -> list[str]:
    """The endpoint's own secret and those of before; one that does not open is left out and logged."""
    secrets: list[str] = []
    for sealed in (endpoint["secret"], *others):
        try:
            secrets.append(runtime.secrets.open_text(sealed, context=_context(endpoint["partner_id"])))
        except SecretError as error:
            log.error("webhook_secret_not_opened", endpoint_id=str(endpoint["id"]), reason=str(error))
    return secrets


def _context(partner_id: PartnerId) -> str:
    return f"webhook_endpoint.secret:{partner_id}"


async def lock(tx: Tx, partner_id: PartnerId, endpoint_id: UUID) -> Record:
    """The endpoint, held until the transaction ends. Raises NotFound, also for one that has been deleted."""
    endpoint = await events.lock_endpoint(tx.session, partner_id, endpoint_id)
    if endpoint is None or endpoint["is_deleted"]:
        raise no_endpoint(endpoint_id)
    return endpoint


def no_endpoint(endpoint_id: UUID) -> NotFound:
    return NotFound("not_found", f"There is no webhook endpoint {endpoint_id}.")


async def rotate(
    runtime: Runtime,
    partner_id: PartnerId,
    endpoint_id: UUID,
    overlap: timedelta,
    *,
    before_commit: Callable[[Tx, Rotated], Awaitable[None]],
) -> None:
    """Makes a new signing secret. The present one signs beside it during the overlap, no older one longer.

    Raises NotFound, or Conflict when there would be more than MAX_SECRETS.
    """
    now = runtime.now()
    until = now + overlap
    secret, sealed = new(runtime, partner_id)
    async with runtime.transaction(partner_id) as tx:
        endpoint = await lock(tx, partner_id, endpoint_id)
        if overlap:
            await _keep(tx, partner_id, endpoint_id, endpoint["secret"], now=now, until=until)
        else:
            await webhook_secrets.forget(tx.session, partner_id, endpoint_id)
        values = {"secret": sealed, "updated_at": now}
        await events.update_endpoint(tx.session, partner_id, endpoint_id, values)
        record = await events.get_endpoint(tx.session, partner_id, endpoint_id)
        assert record is not None
        await before_commit(tx, Rotated(record, secret, until))


async def _keep(
    tx: Tx, partner_id: PartnerId, endpoint_id: UUID, present: bytes, *, now: datetime, until: datetime
) -> None:
    """The present secret signs until then."""
    others = await webhook_secrets.signing(tx.session, partner_id, endpoint_id, now)
    if len(others) + 2 > MAX_SECRETS:
        words = f"{len(others) + 1} secrets sign already. Wait until one has expired, or rotate with"
        raise Conflict("invalid_state", f"{words} `overlap_seconds` 0, which ends all others at once.")
    await webhook_secrets.end_by(tx.session, partner_id, endpoint_id, until)
    await webhook_secrets.add(
        tx.session, partner_id, endpoint_id, secret_id=new_row_id(), secret=present, expires_at=until
    )
