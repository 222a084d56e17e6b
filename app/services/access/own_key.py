"""A caller's own API key: rotation and revocation.

The new key has the scopes and the expiry of the old one, so rotation gives its holder neither rights nor
time. The old key works during an overlap, so that no call fails.
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
    """When the old key stops working."""


@asynccontextmanager
async def rotate(
    runtime: Runtime, caller: Caller, overlap: timedelta
) -> AsyncIterator[tuple[PartnerTx, RotatedKey]]:
    """Makes the caller's next key, in a transaction that commits when the block ends.

    A repetition replaces a new key that has never been used, so that a lost answer costs nothing.

    Raises Conflict once the new key has been used or revoked: then only the new key can be rotated.
    """
    now = runtime.now()
    async with runtime.transaction(caller) as tx:
        held = await partners.hold_key(tx, caller.key_id)
        if held is None or held.revoked_at is not None:
            raise Unauthenticated("unauthenticated", identities.REFUSED_KEY)  # revoked since authentication
        expires_at = held.expires_at
        before = await partners.successor_of(tx, caller.key_id)
        if before is not None:
            if before.last_used_at is not None or before.revoked_at is not None:
                words = f"This key was replaced by the key {before.prefix}, which has been used or revoked."
                raise Conflict("key_rotated_already", words)
            expires_at = before.expires_at  # the held key's own is the end of its overlap by now
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
    """Revokes the key from the next call on. Keys it was rotated to or from are not affected."""
    async with runtime.transaction(caller) as tx:
        await partners.revoke_key(tx, caller.key_prefix, runtime.now())
    log.info("key_revoked", prefix=caller.key_prefix, partner_id=str(caller.partner_id))
