"""Our record of a platform's group tags: one batch creates a tag, the others wait and then add to it.

Only for platforms with `GroupTags`; on any other, a batch needs only `PLAIN`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db import attempts, batches, customers, group_tags
from app.db.batches import Claim
from app.db.leases import LostClaim
from app.domain.upstream import Refused
from app.kernel.transactions import PartnerTx
from app.platforms.base import GroupTags
from app.runtime import Runtime
from app.services.connections.access import ConnectionAccess
from app.services.registering.outcomes import hasten_waiting, refuse_batch, release

TAG_PATIENCE = timedelta(seconds=1)
LONGEST_TAG_PATIENCE = timedelta(seconds=30)
"""Bounds of a batch's wait for its group tag. It checks again when its creator is next due, within these. The
creator also wakes it when it ends, well or badly."""


@dataclass(frozen=True, slots=True)
class TagStep:
    """What a call does with its group tag."""

    kind: str
    """The kind of the attempt."""
    create: bool = False
    proves: bool = False
    """The tag may not exist: only an accepted call proves that it does."""


PLAIN = TagStep("register")
APPEND = TagStep("append")


async def is_known(tx: PartnerTx, claim: Claim) -> bool:
    return await group_tags.is_known(tx, claim.customer_id, claim.group_tag)


async def take_creation(tx: PartnerTx, claim: Claim, now: datetime) -> bool:
    """Makes this batch the tag's creator, unless another one is; otherwise puts it back to wait."""
    if await batches.lock_claimed(tx, claim) is None:
        raise LostClaim
    tag = await group_tags.lock(tx, claim.customer_id, claim.group_tag, now)
    became_known = tag.known and tag.tag == claim.group_tag
    if became_known or tag.creating_batch_id not in (None, claim.id):
        await customers.give_turn_back(tx, claim.customer_id, claim.id, now)
        # After the creator is due, not at the same time: the creator has to act first.
        wait = max((tag.creator_due_at or now) - now + TAG_PATIENCE, TAG_PATIENCE)
        due_at = now if became_known else now + min(wait, LONGEST_TAG_PATIENCE)
        await release(tx, claim, due_at, now)
        return False
    await group_tags.set_creating(tx, claim.customer_id, claim.group_tag, claim.id, now)
    return True


async def step_after(
    tx: PartnerTx, claim: Claim, tags: GroupTags, spelling: str | None, now: datetime
) -> TagStep:
    """What to do with the tag after the platform was asked for it."""
    if spelling is not None:
        await note_known(tx, claim, now)
        return APPEND
    create = tags.creates(await attempts.upload_outcomes(tx, claim))
    return TagStep("create" if create else "append", create, proves=True)


async def note_accepted(tx: PartnerTx, claim: Claim, now: datetime) -> None:
    """Records an accepted call that proves that the tag exists. Raises LostClaim."""
    if await batches.lock_claimed(tx, claim) is None:
        raise LostClaim
    await note_known(tx, claim, now)


async def note_known(tx: PartnerTx, claim: Claim, now: datetime) -> None:
    tag = await group_tags.lock(tx, claim.customer_id, claim.group_tag, now)
    if tag.known and tag.tag == claim.group_tag:
        return
    await group_tags.set_known(tx, claim.customer_id, claim.group_tag, known=True, now=now)
    await hasten_waiting(tx, claim, now)


async def note_unknown(tx: PartnerTx, claim: Claim, now: datetime) -> None:
    """Marks the tag as unknown: the next attempt looks for it at the platform, spelling included."""
    await group_tags.set_known(tx, claim.customer_id, claim.group_tag, known=False, now=now)


def contradiction(tags: GroupTags | None, refused: Refused, step: TagStep) -> str | None:
    """The outcome for a refusal that contradicts our record of the tag."""
    return None if tags is None else tags.contradiction(refused, create=step.create)


async def refuse_spelling(runtime: Runtime, claim: Claim, access: ConnectionAccess, spelling: str) -> None:
    """Refuses the batch because the platform spells the tag differently, as the customer's admins see it."""
    said = f"{access.platform.title} has the group tag {spelling!r}; the order says {claim.group_tag!r}"
    await refuse_batch(runtime, claim, code="group_tag_case_conflict", said=said)
