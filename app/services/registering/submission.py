"""Sends a batch: once if all goes well; the same body and id again if the outcome is unknown.

The intent is stored before the call. On a platform with a ledger of group tags, `tag_ledger` decides what the
call does with its tag.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from app.db import attempts, batches, customers, registrations
from app.db.batches import Claim
from app.db.ids import new_row_id
from app.db.leases import LostClaim
from app.domain import request_id
from app.domain.batch import SMALLEST_SPLIT, BatchState
from app.domain.upstream import (
    NoRelationship,
    NotSent,
    NotUnderstood,
    OutcomeUnknown,
    Refused,
    TagOtherwise,
    UpstreamFailure,
)
from app.kernel.settings import Settings
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.platforms.base import Accepted, CallIds, GroupTags, Submission
from app.runtime import Runtime
from app.services.connections.access import ConnectionAccess, note_trouble, read_access
from app.services.registering import tag_ledger
from app.services.registering.lookup import LOOKUP_PAUSE
from app.services.registering.outcomes import (
    finish_attempt,
    hold_batch,
    refuse_batch,
    release,
    split_batch,
)
from app.services.registering.tag_ledger import TagStep

log = logger("submission")


@dataclass(frozen=True, slots=True)
class _Intent:
    """The call that is about to be made, as it is stored."""

    attempt_id: UUID
    ids: CallIds
    submission: Submission
    rows: Sequence[UUID]
    uncertain: bool
    tag: TagStep


async def submit(runtime: Runtime, claim: Claim) -> None:
    """Raises UpstreamFailure if the call failed and the batch is to be retried later."""
    # A batch found in `submitting` was being sent by a worker that died, so the call may have arrived.
    if claim.state is BatchState.SUBMITTING:
        claim = replace(claim, uncertain=True)
    if claim.uncertain and _is_spent(runtime.settings, claim):
        await _to_lookup(runtime, claim)
        return
    opened = await _open(runtime, claim)
    if opened is None:
        return
    intent, access = opened
    tags = access.abilities.group_tags
    if intent is None:
        assert tags is not None  # without a ledger there is always an intent
        spelling = await tags.find_group_tag(access, claim.entra_tenant_id, claim.group_tag)
        if spelling not in (None, claim.group_tag):
            await tag_ledger.refuse_spelling(runtime, claim, access, str(spelling))
            return
        async with runtime.transaction(claim) as tx:
            step = await tag_ledger.step_after(tx, claim, tags, spelling, runtime.now())
            intent = await _write_intent(runtime, tx, claim, step)
    try:
        accepted = await access.registers.submit(access, intent.ids, intent.submission)
    except UpstreamFailure as failure:
        await _failed(runtime, claim, intent, failure, tags)
    else:
        await _accepted(runtime, claim, intent, accepted)


def _is_spent(settings: Settings, claim: Claim) -> bool:
    """Whether the batch has been sent as often as allowed; each look-up allows one more."""
    return claim.submissions >= settings.max_submissions + claim.lookups


async def _open(runtime: Runtime, claim: Claim) -> tuple[_Intent | None, ConnectionAccess] | None:
    """Decides whether to send, and writes the intent unless the group tag has to be looked for first.

    None: not now, the batch has been put back. No intent: this batch creates the tag, if the platform does
    not have it after all.
    """
    intent: _Intent | None = None
    async with runtime.transaction(claim) as tx:
        unsent = claim.state is BatchState.QUEUED and not claim.uncertain
        held = unsent and bool(await customers.holds_for_share(tx, claim.customer_id))
        if not held:
            access = await read_access(runtime, tx, claim.connection_id)
            if access.abilities.group_tags is None:
                intent = await _write_intent(runtime, tx, claim, tag_ledger.PLAIN)
            elif await tag_ledger.is_known(tx, claim):
                intent = await _write_intent(runtime, tx, claim, tag_ledger.APPEND)
            elif not await tag_ledger.take_creation(tx, claim, runtime.now()):
                return None
    if held:
        await hold_batch(runtime, claim)
        return None
    return intent, access


async def _write_intent(runtime: Runtime, tx: PartnerTx, claim: Claim, tag: TagStep) -> _Intent:
    """Stores what is sent and under which ids, before it is sent."""
    now = runtime.now()
    if claim.uncertain or claim.submissions:
        await attempts.close_open(tx, claim, now)
    rows = await registrations.open_of_batch(tx, claim.id, with_hashes=True)
    with_serial = runtime.settings.send_serial_with_hash
    devices = [row.outgoing(with_serial=with_serial) for row in rows]
    submission = Submission(claim.entra_tenant_id, claim.group_tag, tag.create, devices)
    call_id = _request_id(claim, submission)
    attempt_id = new_row_id()
    held = await attempts.begin(
        tx,
        claim,
        id=attempt_id,
        kind=tag.kind,
        values={
            "state": BatchState.SUBMITTING.value,
            "request_id": call_id,
            "submissions": claim.submissions + 1,
            "uncertain": claim.uncertain,
            "updated_at": now,
        },
        now=now,
    )
    if not held:
        raise LostClaim
    ids = CallIds(call_id, claim.correlation_id)
    return _Intent(attempt_id, ids, submission, [row.id for row in rows], claim.uncertain, tag)


def _request_id(claim: Claim, submission: Submission) -> UUID:
    """Returns the same id while no answer has come and the call is the same, so that a service that remembers
    ids repeats its answer. Another method, path or body is another call with an id of its own."""
    fingerprint = submission.fingerprint()
    if claim.request_id is not None and request_id.belongs_to(claim.request_id, fingerprint):
        return claim.request_id
    return request_id.new(fingerprint, uuid4())


async def _accepted(runtime: Runtime, claim: Claim, intent: _Intent, accepted: Accepted) -> None:
    now = runtime.now()
    if accepted.can_be_followed:
        state = BatchState.SUBMITTED
        due_at = now + timedelta(seconds=runtime.settings.poll_first_s)
    else:
        state = BatchState.UNKNOWN
        due_at = now + timedelta(seconds=runtime.settings.poll_ceiling_s / 10)
    async with runtime.transaction(claim) as tx:
        if intent.tag.proves:
            await tag_ledger.note_accepted(tx, claim, now)
        if accepted.device_ids:
            await registrations.note_device_ids(tx, claim.id, intent.rows, accepted.device_ids)
        await attempts.finish(tx, intent.attempt_id, outcome="accepted", said="", now=now)
        await release(
            tx,
            claim,
            due_at,
            now,
            {
                "state": state.value,
                "tracking_id": accepted.tracking_id,
                "submitted_at": now,
                "request_id": None,
                "polls": 0,
                "troubles": 0,
                "failure_code": None,
                "failure_said": None,
            },
        )
    if accepted.not_understood is not None:
        unread = NotUnderstood(accepted.not_understood)
        began = claim.lease_until - runtime.settings.lease
        await note_trouble(runtime, claim, claim.connection_id, unread, began=began)
    devices = len(intent.submission.devices)
    log.info("batch_submitted", batch_id=str(claim.id), devices=devices, kind=intent.tag.kind)


async def _failed(
    runtime: Runtime,
    claim: Claim,
    intent: _Intent,
    failure: UpstreamFailure,
    tags: GroupTags | None,
) -> None:
    """Sorts a failed call by its effect: none, unknown, or a definite refusal."""
    claim = replace(
        claim,
        uncertain=intent.uncertain,
        state=BatchState.SUBMITTING,
        request_id=intent.ids.request_id,
        submissions=claim.submissions + 1,
    )
    log.info("submission_failed", batch_id=str(claim.id), code=failure.code, said=str(failure.said))
    refused = failure if isinstance(failure, Refused) else None
    surprise = refused and tag_ledger.contradiction(tags, refused, intent.tag)
    match failure:
        case OutcomeUnknown():
            await _unknown(runtime, claim, intent, failure)
        case Refused() if surprise and not _is_spent(runtime.settings, claim):
            await _tag_was_otherwise(runtime, claim, intent, failure, surprise)
        case NoRelationship() if not (intent.uncertain and _is_spent(runtime.settings, claim)):
            await _unsent(runtime, claim, intent, failure)
        case Refused() if failure.divisible and len(intent.submission.devices) > SMALLEST_SPLIT:
            await split_batch(runtime, claim, intent.attempt_id, failure)
        case Refused() if intent.uncertain:
            # An earlier call may have been processed; only Microsoft's listing can show that.
            await finish_attempt(runtime, claim, intent.attempt_id, failure.code, str(failure.said))
            await _to_lookup(runtime, claim, failure)
        case Refused():
            await finish_attempt(runtime, claim, intent.attempt_id, failure.code, str(failure.said))
            await refuse_batch(runtime, claim, code=failure.code, said=str(failure.said))
        case _:
            await _unsent(runtime, claim, intent, failure)


async def _tag_was_otherwise(
    runtime: Runtime, claim: Claim, intent: _Intent, failure: Refused, surprise: str
) -> None:
    """Retries the other way, because the group tag exists, or does not, contrary to our record. A batch that
    was to create the tag keeps that role."""
    if not intent.tag.proves:
        async with runtime.transaction(claim) as tx:
            await tag_ledger.note_unknown(tx, claim, runtime.now())
    await _unsent(runtime, claim, intent, TagOtherwise(failure.code, failure.said), outcome=surprise)


async def _unsent(
    runtime: Runtime, claim: Claim, intent: _Intent, failure: UpstreamFailure, *, outcome: str | None = None
) -> None:
    """Puts the batch back as it was before a call that certainly had no effect, to be retried later.

    An answer uses up its request id; without an answer (no connection) the id is used again. Only an answer
    about the batch itself counts as a submission.
    """
    now = runtime.now()
    answered = failure.said.status is not None or not isinstance(failure, NotSent)
    async with runtime.transaction(claim) as tx:
        await attempts.finish(
            tx,
            intent.attempt_id,
            outcome=outcome or failure.code,
            said=str(failure.said),
            now=now,
        )
        state = BatchState.UNKNOWN if intent.uncertain else BatchState.QUEUED
        await batches.write_claimed(
            tx,
            claim,
            {
                "state": state.value,
                "submissions": claim.submissions - (not isinstance(failure, Refused)),
                "request_id": None if answered else intent.ids.request_id,
                "updated_at": now,
            },
        )
    raise failure


async def _unknown(runtime: Runtime, claim: Claim, intent: _Intent, failure: OutcomeUnknown) -> None:
    """Marks the call as possibly arrived, so that the same body is sent again."""
    now = runtime.now()
    async with runtime.transaction(claim) as tx:
        await attempts.finish(tx, intent.attempt_id, outcome="unknown", said=str(failure.said), now=now)
        await batches.write_claimed(
            tx,
            claim,
            {
                "state": BatchState.UNKNOWN.value,
                "uncertain": True,
                "request_id": None if failure.answered else intent.ids.request_id,
                "updated_at": now,
            },
        )
    raise failure


async def _to_lookup(runtime: Runtime, claim: Claim, failure: UpstreamFailure | None = None) -> None:
    """Lets Microsoft's listing decide, because sending again would show nothing new."""
    now = runtime.now()
    values: dict[str, Any] = {"state": BatchState.UNKNOWN.value, "submitted_at": now, "request_id": None}
    if failure is not None:
        values |= {"failure_code": failure.code, "failure_said": str(failure.said) or None}
    async with runtime.transaction(claim) as tx:
        await release(tx, claim, now + LOOKUP_PAUSE, now, {**values, "uncertain": True, "troubles": 0})
