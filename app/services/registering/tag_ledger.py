"""Our note of a platform's group tags: one batch creates a tag, the others wait and add to it.

Only for a platform with `GroupTags`; a batch of any other one needs nothing but `PLAIN`.
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
"""How long a batch waits until it looks again whether its group tag has been created: as long as the
creator does, within these. The creator wakes it when it has ended, well or badly."""


@dataclass(frozen=True, slots=True)
class TagStep:
    """What a call does with its group tag."""

    kind: str
    """The attempt's word for it."""
    create: bool = False
    proves: bool = False
    """The tag is not known to be there: that the call is accepted tells so."""


PLAIN = TagStep("register")
APPEND = TagStep("append")


async def is_known(tx: PartnerTx, claim: Claim) -> bool:
    return await group_tags.is_known(tx, claim.customer_id, claim.group_tag)


async def take_creation(tx: PartnerTx, claim: Claim, now: datetime) -> bool:
    """Makes this batch the tag's creator, if no other one is; otherwise it has been put back and waits."""
    if await batches.lock_claimed(tx, claim) is None:
        raise LostClaim
    tag = await group_tags.lock(tx, claim.customer_id, claim.group_tag, now)
    became_known = tag.known and tag.tag == claim.group_tag
    if became_known or tag.creating_batch_id not in (None, claim.id):
        await customers.give_turn_back(tx, claim.customer_id, claim.id, now)
        # After the creator, not beside it: it is the creator that has something to do.
        wait = max((tag.creator_due_at or now) - now + TAG_PATIENCE, TAG_PATIENCE)
        due_at = now if became_known else now + min(wait, LONGEST_TAG_PATIENCE)
        await release(tx, claim, due_at, now)
        return False
    await group_tags.set_creating(tx, claim.customer_id, claim.group_tag, claim.id, now)
    return True


async def step_after(
    tx: PartnerTx, claim: Claim, tags: GroupTags, spelling: str | None, now: datetime
) -> TagStep:
    """What to do with the tag once the platform has been asked for it."""
    if spelling is not None:
        await note_known(tx, claim, now)
        return APPEND
    create = tags.creates(await attempts.upload_outcomes(tx, claim))
    return TagStep("create" if create else "append", create, proves=True)


async def note_accepted(tx: PartnerTx, claim: Claim, now: datetime) -> None:
    """A call that proves the tag has been accepted. Raises LostClaim."""
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
    """The next attempt looks for the tag at the platform, spelling included."""
    await group_tags.set_known(tx, claim.customer_id, claim.group_tag, known=False, now=now)


def contradiction(tags: GroupTags | None, refused: Refused, step: TagStep) -> str | None:
    """The word for a refusal that contradicts our note of the tag."""
    return None if tags is None else tags.contradiction(refused, create=step.create)


async def refuse_spelling(runtime: Runtime, claim: Claim, access: ConnectionAccess, spelling: str) -> None:
    """The platform has the tag in another spelling, which the customer's administrators see."""
    said = f"{access.platform.title} has the group tag {spelling!r}; the order says {claim.group_tag!r}"
    await refuse_batch(runtime, claim, code="group_tag_case_conflict", said=said)
