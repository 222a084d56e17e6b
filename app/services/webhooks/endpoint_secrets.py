"""Signing secrets of webhooks: made, stored sealed, and rotated with an overlap."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_bytes
from uuid import UUID

from app.db import events, webhook_secrets
from app.db.ids import new_row_id
from app.domain import signature
from app.domain.actor import Principal
from app.domain.errors import Conflict, NotFound
from app.domain.ids import PartnerId
from app.domain.webhook import Endpoint, HeldEndpoint, SigningSecret
from app.kernel.secrets import Place, SecretError
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime

log = logger("webhooks")

SECRET_BYTES = 32
MAX_SECRETS = 4
"""The most secrets that sign at the same time for one endpoint: each adds 48 bytes to a header."""


@dataclass(frozen=True, slots=True)
class Rotated:
    endpoint: Endpoint
    secret: str
    """The new secret, which is shown only now."""
    previous_until: datetime
    """When the previous secrets stop signing."""


def new(runtime: Runtime, principal: Principal, endpoint_id: UUID) -> tuple[str, bytes]:
    """Returns a new secret: as the receiver is shown it, and sealed."""
    secret = signature.new_secret(token_bytes(SECRET_BYTES))
    return secret, runtime.secrets.seal(secret, present_place(principal.partner_id, endpoint_id))


def opened(runtime: Runtime, endpoint: Endpoint, others: Sequence[SigningSecret]) -> list[str]:
    """The endpoint's current and previous secrets. One that does not open is left out and logged."""
    partner_id, endpoint_id = endpoint.partner_id, endpoint.id
    places = [(endpoint.secret, present_place(partner_id, endpoint_id))]
    places += [(other.secret, previous_place(partner_id, other.id)) for other in others]
    found = (_open(runtime, endpoint_id, sealed, place) for sealed, place in places)
    return [secret for secret in found if secret is not None]


def _open(runtime: Runtime, endpoint_id: UUID, sealed: bytes, place: Place) -> str | None:
    try:
        return runtime.secrets.open_text(sealed, place)
    except SecretError as error:
        log.error("webhook_secret_not_opened", endpoint_id=str(endpoint_id), reason=str(error))
        return None


def present_place(partner_id: PartnerId, endpoint_id: UUID) -> Place:
    return Place("webhook_endpoints", "secret", partner_id, str(endpoint_id), _former(partner_id))


def previous_place(partner_id: PartnerId, secret_id: UUID) -> Place:
    return Place("webhook_secrets", "secret", partner_id, str(secret_id), _former(partner_id))


def _former(partner_id: PartnerId) -> str:
    return f"webhook_endpoint.secret:{partner_id}"


async def lock(tx: PartnerTx, endpoint_id: UUID) -> HeldEndpoint:
    """Locks the endpoint until the transaction ends. Raises NotFound, also for a deleted endpoint."""
    endpoint = await events.lock_endpoint(tx, endpoint_id)
    if endpoint is None or endpoint.is_deleted:
        raise no_endpoint(endpoint_id)
    return endpoint


def no_endpoint(endpoint_id: UUID) -> NotFound:
    return NotFound("not_found", f"There is no webhook endpoint {endpoint_id}.")


@asynccontextmanager
async def rotate(
    runtime: Runtime, principal: Principal, endpoint_id: UUID, overlap: timedelta
) -> AsyncIterator[tuple[PartnerTx, Rotated]]:
    """Makes a new signing secret, in a transaction that commits when the block ends.

    During the overlap the present secret signs too, and older ones no longer than that.
    Raises NotFound, or Conflict when there would be more than MAX_SECRETS.
    """
    now = runtime.now()
    until = now + overlap
    secret, sealed = new(runtime, principal, endpoint_id)
    async with runtime.transaction(principal) as tx:
        endpoint = await lock(tx, endpoint_id)
        if overlap:
            present = _open(
                runtime, endpoint_id, endpoint.secret, present_place(principal.partner_id, endpoint_id)
            )
            if present is None:  # it signs nothing, so there is nothing to keep
                await webhook_secrets.end_by(tx, endpoint_id, until)
            else:
                await _keep(runtime, tx, endpoint_id, present, now=now, until=until)
        else:
            await webhook_secrets.forget(tx, endpoint_id)
        values = {"secret": sealed, "updated_at": now}
        await events.update_endpoint(tx, endpoint_id, values)
        record = await events.get_endpoint(tx, endpoint_id)
        assert record is not None
        yield tx, Rotated(record, secret, until)


async def _keep(
    runtime: Runtime,
    tx: PartnerTx,
    endpoint_id: UUID,
    present: str,
    *,
    now: datetime,
    until: datetime,
) -> None:
    """Keeps the present secret signing until then, sealed for its new row."""
    others = await webhook_secrets.signing(tx, endpoint_id, now)
    if len(others) + 2 > MAX_SECRETS:
        words = f"{len(others) + 1} secrets sign already. Wait until one has expired, or rotate with"
        raise Conflict("invalid_state", f"{words} `overlap_seconds` 0, which ends all others at once.")
    await webhook_secrets.end_by(tx, endpoint_id, until)
    secret_id = new_row_id()
    sealed = runtime.secrets.seal(present, previous_place(tx.partner_id, secret_id))
    await webhook_secrets.add(tx, endpoint_id, secret_id=secret_id, secret=sealed, expires_at=until)
