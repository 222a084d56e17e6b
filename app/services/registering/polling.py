"""Polls a submitted batch until the platform has answered for every device.

The batch's own status proves nothing about devices: it says "finished" over failed ones. If the platform
follows devices one by one, each outcome is stored when it comes.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from app.db import batches, registrations
from app.db.batches import Claim
from app.db.registrations import Outcome, SendableRow
from app.domain import schedule
from app.domain.batch import BatchState, Match, match_answers
from app.domain.registration import Means, RegistrationState, UpstreamRow, interpret
from app.domain.schedule import PollPolicy
from app.domain.upstream import NoRelationship, NotUnderstood, OutcomeUnknown, Refused, UpstreamFailure
from app.kernel.settings import Settings
from app.kernel.telemetry import logger
from app.platforms.base import Accepted, Progress, Registers
from app.runtime import Runtime
from app.services.connections.access import note_trouble, read_access
from app.services.registering.lookup import LOOKUP_PAUSE
from app.services.registering.outcomes import Next, outcome_of, record, release

log = logger("polling")

CHECKING = "Microsoft's answer is being checked"


def poll_policy(settings: Settings) -> PollPolicy:
    return PollPolicy(
        first=timedelta(seconds=settings.poll_first_s),
        factor=settings.poll_factor,
        ceiling=timedelta(seconds=settings.poll_ceiling_s),
        deadline=timedelta(seconds=settings.poll_deadline_s),
    )


async def poll(runtime: Runtime, claim: Claim) -> None:
    async with runtime.transaction(claim) as tx:
        rows = await registrations.open_of_batch(tx, claim.id, with_hashes=False)
        access = await read_access(runtime, tx, claim.connection_id)
        registers, sent = access.registers, Accepted(claim.tracking_id)
        followed: Sequence[UUID] = ()
        if registers.follows_devices:
            ids = await registrations.device_ids_of_batch(tx, claim.id)
            followed = [row.id for row in rows if row.id in ids]
            sent = Accepted(claim.tracking_id, [ids[id] for id in followed])
    if claim.submitted_at is None or not sent.can_be_followed:
        raise LookupError("a submitted batch lacks its time or an id to poll")
    policy = poll_policy(runtime.settings)
    overdue = schedule.is_past_deadline(claim.submitted_at, runtime.now(), policy)
    began = runtime.now()
    try:
        progress = await registers.poll(access, claim.entra_tenant_id, sent)
        if followed and progress.rows:
            progress = replace(progress, rows=_of_each(rows, followed, progress.rows))
    except (Refused, OutcomeUnknown) as failure:
        if isinstance(failure, NoRelationship) and not overdue:
            # This says nothing about the job, which continues once the customer has consented again.
            raise
        if _is_not_yet(runtime, claim, failure) and not overdue:
            await _wait(runtime, claim, policy)
            return
        if isinstance(failure, OutcomeUnknown) and not overdue:
            raise
        # The platform does not know the job (any more), or never answers: look in the listing.
        log.warning("job_unknown_upstream", batch_id=str(claim.id), said=str(failure.said))
        progress, overdue = Progress(finished=False, rows=()), True
    doubt = progress.not_understood
    if not progress.finished and not overdue:
        if doubt is not None:
            raise NotUnderstood(doubt)
        done: Sequence[Outcome] = ()
        if registers.follows_devices:
            done, _ = await _judged(runtime, claim, rows, progress, registers)
        await _wait(runtime, claim, policy, rows, done)
        return
    if doubt is not None:
        # The readable part is stored; the listing shows the rest.
        await note_trouble(runtime, claim, claim.connection_id, NotUnderstood(doubt), began=began)
    await _settle(runtime, claim, rows, progress, registers)


def _of_each(
    rows: Sequence[SendableRow], followed: Sequence[UUID], answers: Sequence[UpstreamRow]
) -> list[UpstreamRow]:
    """One for each row. A device to which the platform gave no id cannot be asked for: it stays open."""
    of = dict(zip(followed, answers, strict=True))
    return [of.get(row.id, UpstreamRow(False, None, None)) for row in rows]


def _is_not_yet(runtime: Runtime, claim: Claim, failure: UpstreamFailure) -> bool:
    """Whether Microsoft does not know the job because it was accepted only a moment ago."""
    patience = timedelta(seconds=runtime.settings.job_appears_s)
    assert claim.submitted_at is not None
    return failure.said.status == 404 and runtime.now() - claim.submitted_at < patience


async def _wait(
    runtime: Runtime,
    claim: Claim,
    policy: PollPolicy,
    rows: Sequence[SendableRow] = (),
    done: Sequence[Outcome] = (),
) -> None:
    """Polls again later. `done`: outcomes of some of the rows, stored before the others are known."""
    now = runtime.now()
    due_at = schedule.next_poll(claim.polls + 1, now, runtime.random(), policy)
    values = {"polls": claim.polls + 1, "troubles": 0, "failure_code": None, "failure_said": None}
    if done:
        await record(runtime, claim, rows, done, Next(BatchState.SUBMITTED, due_at, values))
        return
    async with runtime.transaction(claim) as tx:
        await release(tx, claim, due_at, now, values)


async def _settle(
    runtime: Runtime, claim: Claim, rows: Sequence[SendableRow], progress: Progress, registers: Registers
) -> None:
    outcomes, unclear = await _judged(runtime, claim, rows, progress, registers)
    if not unclear:
        await record(runtime, claim, rows, outcomes, Next(BatchState.SETTLED))
        return
    log.warning("outcomes_unclear", batch_id=str(claim.id), rows=len(unclear), of=len(rows))
    await record(
        runtime,
        claim,
        rows,
        outcomes,
        Next(BatchState.UNKNOWN, due_at=runtime.now() + LOOKUP_PAUSE),
        unclear=unclear,
    )


async def _judged(
    runtime: Runtime, claim: Claim, rows: Sequence[SendableRow], progress: Progress, registers: Registers
) -> tuple[list[Outcome], list[Outcome]]:
    """The clear outcomes, and the unclear ones."""
    doubtful = await _sent_in_doubt(runtime, claim, rows)
    outcomes: list[Outcome] = []
    unclear: list[Outcome] = []
    for row, match in zip(rows, _matches(rows, progress, registers), strict=True):
        outcome = _outcome(row, match, registers.meaning, was_uncertain=row.id in doubtful)
        if outcome is None:
            unclear.append(Outcome(row.id, RegistrationState.UNKNOWN, "outcome_unknown", CHECKING))
        elif outcome.state is RegistrationState.UNKNOWN:
            unclear.append(replace(outcome, error_detail=CHECKING))
        else:
            outcomes.append(outcome)
    return outcomes, unclear


def _matches(rows: Sequence[SendableRow], progress: Progress, registers: Registers) -> Sequence[Match]:
    if registers.follows_devices and progress.rows:
        return [Match(answer, certain=True) for answer in progress.rows]
    # `send_serial_with_hash` may have changed since. An answer with the PKID alone, or without any key, is
    # matched anyway.
    sent = [row.outgoing(with_serial=True).as_sent() for row in rows]
    return match_answers(sent, progress.rows)


async def _sent_in_doubt(runtime: Runtime, claim: Claim, rows: Sequence[SendableRow]) -> frozenset[UUID]:
    """The rows that an earlier call may have sent to Microsoft: with this batch or, for retried rows, with
    their previous batch."""
    if claim.uncertain:
        return frozenset(row.id for row in rows)
    again = frozenset(row.id for row in rows if row.attempt > 1)
    if not again:
        return again
    async with runtime.transaction(claim) as tx:
        doubts = await batches.left_doubts(tx, claim.order_id)
    return again if doubts else frozenset()


def _outcome(row: SendableRow, match: Match, means: Means, *, was_uncertain: bool) -> Outcome | None:
    """The row's outcome; None if the answer is missing, unfinished, or matched only by an uncertain position.

    For a device without any key the position counts, because it cannot be looked up either.
    """
    if match.answer is None:
        return None
    if not match.certain and (row.serial_number or row.product_key):
        return None
    meaning = interpret(match.answer, means, was_uncertain=was_uncertain)
    return None if meaning is None else outcome_of(row, meaning, match.answer)
