"""Quotas: limits on how much one partner may have at a time, checked before more is made.

`require` comes first in the transaction that makes the thing. It locks this quota of this partner until the
transaction ends, so that concurrent callers cannot exceed the limit together. Other partners and other quotas
do not wait.
"""

from dataclasses import replace

from app.db import quotas as table
from app.domain.actor import Principal
from app.domain.errors import RateLimited, Refusal, Unprocessable
from app.domain.ids import PartnerId
from app.domain.quota import LARGEST, QUOTAS, SMALLEST, Quota, Use, refusal
from app.kernel import metrics
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime

log = logger("quotas")


async def limit_of(tx: PartnerTx, quota: Quota) -> int:
    """Returns the partner's limit: the operator's, or the default."""
    amount = await table.amount(tx, tx.partner_id, quota)
    return tx.quotas[quota] if amount is None else amount


async def require(tx: PartnerTx, quota: Quota, *, adding: int = 1) -> None:
    """Allows `adding` more in this transaction, or raises `quota_exceeded`.

    Raises Unprocessable if somebody has to act first, RateLimited if waiting is enough."""
    await table.lock(tx, quota)
    # A separate statement, so that its snapshot is newer than the lock.
    await look_ahead(tx, quota, adding=adding)


async def look_ahead(tx: PartnerTx, quota: Quota, *, adding: int = 1) -> None:
    """Refuses early what `require` would refuse later, without a lock: before work that takes seconds."""
    use = await _use(tx, quota)
    if use.used + adding > use.limit:
        raise _refused(tx.partner_id, use, adding)


async def require_room(tx: PartnerTx, quota: Quota) -> None:
    """Checks what this transaction has just written, if a trigger counts it and locks the count until commit.

    Raises like `require`, and takes no lock of its own.
    """
    use = await _use(tx, quota)
    if use.used > use.limit:
        raise _refused(tx.partner_id, replace(use, used=min(use.used - 1, use.limit)), 1)


async def room_of(tx: PartnerTx, quota: Quota) -> int:
    """Returns how many more fit at this moment. Takes no lock."""
    use = await _use(tx, quota)
    return max(use.limit - use.used, 0)


async def look(tx: PartnerTx) -> list[Use]:
    """Returns every quota and its use at this moment. Takes no lock."""
    set_by_hand = await table.amounts(tx)
    used = await table.all_used(tx, tx.now)
    return [
        Use(
            quota,
            set_by_hand.get(quota.value, tx.quotas[quota]),
            used[quota],
            is_own=quota.value in set_by_hand,
        )
        for quota in Quota
    ]


async def _use(tx: PartnerTx, quota: Quota) -> Use:
    amount, used = await table.amount_and_used(tx, quota, tx.now)
    return Use(quota, tx.quotas[quota] if amount is None else amount, used, is_own=amount is not None)


def _refused(partner_id: PartnerId, use: Use, adding: int) -> Refusal:
    metrics.quota_refused(use.quota)
    log.info(
        "quota_exceeded", partner_id=str(partner_id), quota=use.quota.value, limit=use.limit, used=use.used
    )
    words, retry_after = refusal(use, adding), QUOTAS[use.quota].retry_after
    if retry_after is None:
        return Unprocessable("quota_exceeded", words)
    return RateLimited("quota_exceeded", words, retry_after=retry_after)


async def look_at(runtime: Runtime, principal: Principal) -> list[Use]:
    """`look` for the operator, who has no transaction of the partner."""
    async with runtime.reading(principal) as tx:
        return await look(tx)


async def change(runtime: Runtime, partner_id: PartnerId, quota: Quota, amount: int | None) -> None:
    """Sets one quota of one partner for the operator; None restores the default.

    What exceeds a lower quota stays; nothing is added until there is room. Raises Unprocessable.
    """
    if amount is not None and not SMALLEST <= amount <= LARGEST:
        raise Unprocessable("invalid_parameter", f"A quota is a number from {SMALLEST} to {LARGEST:,}.")
    async with runtime.system_transaction() as tx:
        before = await table.amount(tx, partner_id, quota)
        if amount is None:
            await table.forget_amount(tx, partner_id, quota)
        else:
            await table.set_amount(tx, partner_id, quota, amount, tx.now)
    was, limit = (tx.quotas[quota] if each is None else each for each in (before, amount))
    log.warning("quota_changed", partner_id=str(partner_id), quota=quota.value, was=was, limit=limit)
