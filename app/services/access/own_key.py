"""Actions on one's own API key: replace it with a new one, or revoke it.

The new key has the scopes and the expiry of the old one: its holder gains neither rights nor
time. The old one works beside it for a while, so that no call fails meanwhile.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db import partners
from app.domain.errors import Conflict, Unauthenticated
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import identities
from app.services.access.identities import Caller, NewKey

log = logger("identities")


@dataclass(frozen=True, slots=True)
class RotatedKey:
    key: NewKey
    name: str
    scopes: Sequence[str]
    expires_at: datetime | None
    previous_until: datetime
    """Until then the key that was used for the call works as well."""


@asynccontextmanager
async def rotate(
    runtime: Runtime, caller: Caller, overlap: timedelta
) -> AsyncIterator[tuple[PartnerTx, RotatedKey]]:
    """Makes the caller's next key, in a transaction that commits when the block ends.

    A repetition replaces a new key that has never been used, so that a lost answer costs nothing.

    Raises Conflict once the new key has been used or revoked: from then on it is the one to rotate.
    """
    now = runtime.now()
    async with runtime.transaction(caller) as tx:
        held = await partners.hold_key(tx, caller.key_id)
        if held is None or held.revoked_at is not None:
            raise Unauthenticated("unauthenticated", identities.REFUSED_KEY)  # meanwhile
        expires_at = held.expires_at
        before = await partners.successor_of(tx, caller.key_id)
        if before is not None:
            if before.last_used_at is not None or before.revoked_at is not None:
                words = f"This key was replaced by the key {before.prefix}, which has been used or revoked."
                raise Conflict("key_rotated_already", words)
            expires_at = before.expires_at  # the held one's has become the end of its overlap
            await partners.delete_key(tx, before.id)
        key = identities.mint()
        scopes = held.scopes
        new_id = await identities.store_key(tx, key, held.name, scopes, expires_at, now)
        await partners.note_successor(tx, caller.key_id, new_id, now)
        await partners.end_key_by(tx, caller.key_id, now + overlap)
        ends = min(now + overlap, held.expires_at or now + overlap)
        yield tx, RotatedKey(key, held.name, scopes, expires_at, ends)
    log.info("key_rotated", prefix=caller.key_prefix, successor=key.prefix, partner_id=str(caller.partner_id))


async def revoke(runtime: Runtime, caller: Caller) -> None:
    """Takes effect with the next call. Another key that came of a rotation stays as it is."""
    async with runtime.transaction(caller) as tx:
        await partners.revoke_key(tx, caller.key_prefix, runtime.now())
    log.info("key_revoked", prefix=caller.key_prefix, partner_id=str(caller.partner_id))
