"""What people did at a portal, written down: a file was uploaded, and what became of its devices.

A person takes a batch as a worker does, with a claim, so that locks, fencing, events and the fate of hashes
are those of every other outcome (`settlement.record`), and of two people at once one is told to look again.
An outcome that is there is overwritten only by who says that it is to be corrected; what could not be matched
stays open and is told.
"""

import io
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import InitVar, dataclass, field, replace
from itertools import islice
from uuid import UUID, uuid4

from anyio import to_thread

from app.db import attempts, batches, connections, group_tags, registrations
from app.db.batches import Claim
from app.db.ids import new_row_id
from app.db.registrations import Outcome, SendableRow
from app.domain.batch import BatchState, SentRow, match_answers
from app.domain.errors import Conflict, NotFound, Unprocessable
from app.domain.registration import (
    MAX_TRANSIENT_ATTEMPTS,
    MOVING_WITH_BATCH,
    TRANSIENT_CODES,
    RegistrationState,
    UpstreamRow,
    interpret,
)
from app.intake.rows import UnreadableFile, read
from app.intake.table import Row
from app.platforms.base import FileFormat, PortalAnswer, UnreadableResult
from app.runtime import Runtime, Tx
from app.services.identities import Caller
from app.services.portal_entries import SPOKEN, Entry, Index, agree, answer_of
from app.services.portal_files import NO_CONSENT, format_of, has_consent
from app.services.settlement import LostClaim, Next, outcome_of, record
from app.telemetry import logger

log = logger("portal")

MAX_RESULT_ROWS = 10_000
"""Lines of a result file that are read: ten times what any portal takes."""


@dataclass(frozen=True, slots=True)
class Untouched:
    """An entry, or a line of a file, from which nothing was recorded, and why."""

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    recorded: int
    """Devices whose outcome was written."""
    corrected: int
    """Of those, devices that had another outcome before."""
    again: int
    """Of those, devices with a passing trouble: they are in a new file."""
    open: int
    """Devices of the batch that have no outcome yet."""
    untouched: Sequence[Untouched]


async def mark_uploaded(runtime: Runtime, caller: Caller, batch_id: UUID) -> None:
    """The batch is with the portal now. Raises NotFound, Unprocessable, Conflict."""
    now = runtime.now()
    async with runtime.transaction(caller.partner_id) as tx:
        claim, format = await _claim(runtime, tx, caller, batch_id)
        if claim.state is not BatchState.QUEUED:
            raise Conflict(
                "invalid_state", f"It was marked as uploaded already, at {claim.submitted_at:%F %R} UTC."
            )
        await _upload(runtime, tx, caller, claim, format)
        await batches.update_claimed(
            tx.session, claim, {"owner": None, "lease_until": None, "updated_at": now}
        )
    log.info("portal_file_uploaded", batch_id=str(batch_id))


async def record_all(
    runtime: Runtime, caller: Caller, batch_id: UUID, outcome: RegistrationState, *, correct: bool = False
) -> Report:
    """The same outcome for every device of the batch that has none yet; with `correct`, for every device."""
    async with _recording(runtime, caller, batch_id, "outcome", correct=correct) as recording:
        if recording.claim.state is BatchState.QUEUED:
            # It names no device, so nothing shows that it is the right batch; and it ends the hashes.
            raise Conflict("invalid_state", NOT_UPLOADED)
        meaning = SPOKEN[outcome]
        for row in recording.rows if correct else recording.open.values():
            recording.add(0, row, Outcome(row.id, meaning.state, error_code=meaning.code))
        return recording.report()


async def record_rows(
    runtime: Runtime, caller: Caller, batch_id: UUID, entries: Sequence[Entry], *, correct: bool = False
) -> Report:
    """Outcomes device by device."""
    async with _recording(runtime, caller, batch_id, "outcome", correct=correct) as recording:
        index = Index(recording.rows)
        for place, entry in enumerate(entries, start=1):
            found = index.find(entry)
            if len(found) != 1:
                words = (
                    "More than one device of this batch fits." if found else "No device of this batch fits."
                )
                recording.untouched.append(Untouched(place, words))
                continue
            answer = answer_of(entry)
            meaning = SPOKEN[entry.outcome] if answer is None else interpret(answer, was_uncertain=False)
            if meaning is None or (answer is not None and not agree(entry, meaning)):
                words = f"Microsoft's {entry.code} does not mean {entry.outcome.value}."
                recording.untouched.append(Untouched(place, words))
                continue
            outcome = outcome_of(found[0], meaning, answer or UpstreamRow(True, None, None))
            recording.add(place, found[0], replace(outcome, error_detail=entry.detail))
        return recording.report()


async def record_result(
    runtime: Runtime, caller: Caller, batch_id: UUID, content: bytes, *, correct: bool = False
) -> Report:
    """What the portal's own file of results says. Raises Unprocessable where it can not be read."""
    async with _recording(runtime, caller, batch_id, "result_file", correct=correct) as recording:
        lines, answers = await to_thread.run_sync(_read, recording.format, content)
        # A row that names no device is never taken for one: it may be a line of totals.
        named = {
            id(said.answer): (line, said)
            for line, said in zip(lines, answers, strict=True)
            if said.answer.serial_number or said.answer.product_key
        }
        sent = [SentRow(row.serial_number, row.product_key) for row in recording.rows]
        matches = match_answers(sent, [said.answer for _, said in named.values()])
        left = set(lines)
        for row, match in zip(recording.rows, matches, strict=True):
            if match.answer is None:
                continue
            line, said = named[id(match.answer)]
            left.discard(line)
            meaning = interpret(match.answer, was_uncertain=False)
            if said.doubt is not None or meaning is None:
                recording.untouched.append(Untouched(line, said.doubt or "It does not say how it went."))
            elif not match.certain:
                words = "Several devices of this batch have these values, and their outcomes differ."
                recording.untouched.append(Untouched(line, words))
            else:
                recording.add(line, row, outcome_of(row, meaning, match.answer))
        words = "It names no device of this batch by serial number or PKID, or more than one."
        recording.untouched += [Untouched(line, words) for line in left]
        return recording.report()


def _read(format: FileFormat, content: bytes) -> tuple[list[int], Sequence[PortalAnswer]]:
    """The physical line of each row, and what it says."""
    try:
        _, found = read(io.BytesIO(content))
        rows: list[Row] = list(islice(found, MAX_RESULT_ROWS + 1))
        if len(rows) > MAX_RESULT_ROWS:
            words = f"The file has more than {MAX_RESULT_ROWS:,} rows."
            raise Unprocessable("result_not_readable", words)
        return [row.line for row in rows], format.read_results([{**row.extra, **row.fields} for row in rows])
    except UnreadableFile as error:
        raise Unprocessable("result_not_readable", error.words) from error
    except UnreadableResult as error:
        raise Unprocessable("result_not_readable", str(error)) from error


# --- the batch --------------------------------------------------------------------------------


@dataclass
class _Recording:
    """A batch in one person's hands."""

    claim: Claim
    format: FileFormat
    found: InitVar[Sequence[tuple[SendableRow, RegistrationState]]]
    before: Mapping[UUID, Outcome]
    """Outcomes that may be replaced; none, unless the person has said so."""
    rows: Sequence[SendableRow] = ()
    open: dict[UUID, SendableRow] = field(default_factory=dict)
    outcomes: dict[UUID, Outcome] = field(default_factory=dict)
    corrections: dict[UUID, Outcome] = field(default_factory=dict)
    untouched: list[Untouched] = field(default_factory=list)

    def __post_init__(self, found: Sequence[tuple[SendableRow, RegistrationState]]) -> None:
        self.rows = [row for row, _ in found]
        self.open = {row.id: row for row, state in found if state in MOVING_WITH_BATCH}
        self._states = {row.id: state for row, state in found}
        self._named: set[UUID] = set()

    def add(self, place: int, row: SendableRow, outcome: Outcome) -> None:
        if row.id in self._named:
            self.untouched.append(Untouched(place, "The same device was named before."))
            return
        before = self.before.get(row.id)
        if row.id in self.open:
            self.outcomes[row.id] = outcome
        elif before is None:
            words = f"It has its outcome already ({self._states[row.id].value}); nothing was changed."
            self.untouched.append(Untouched(place, words))
            return
        elif before != replace(outcome, upstream_device_id=None):
            self.corrections[row.id] = outcome
        self._named.add(row.id)

    def report(self) -> Report:
        again = sum(
            outcome.error_code in TRANSIENT_CODES and self.open[id].attempt < MAX_TRANSIENT_ATTEMPTS
            for id, outcome in self.outcomes.items()
        )
        corrected = len(self.corrections)
        untouched = sorted(self.untouched, key=lambda entry: entry.place)
        left = len(self.open) - len(self.outcomes)
        return Report(len(self.outcomes) + corrected, corrected, again, left, untouched)


@asynccontextmanager
async def _recording(
    runtime: Runtime, caller: Caller, batch_id: UUID, kind: str, *, correct: bool
) -> AsyncIterator[_Recording]:
    """Takes the batch; what was gathered is written at the end. An upload nobody marked is marked with it.

    Raises Conflict when somebody else has it, or had it and was quicker.
    """
    attempt_id = new_row_id()
    async with runtime.transaction(caller.partner_id) as tx:
        claim, format = await _claim(runtime, tx, caller, batch_id, settled=correct)
        await attempts.close_open(tx.session, claim, runtime.now())
        await _add_attempt(runtime, tx, caller, claim, attempt_id, kind)
        rows = await registrations.of_batch(tx.session, claim.partner_id, claim.id, with_hashes=False)
        before = (
            await registrations.recorded_of_batch(tx.session, claim.partner_id, claim.id) if correct else {}
        )
    recording = _Recording(claim, format, rows, before)
    try:
        yield recording
        await _write(runtime, caller, recording)
    except LostClaim as lost:
        await _give_back(runtime, claim)
        await _finish(runtime, claim, attempt_id, "not_recorded", "")
        raise Conflict("invalid_state", "The batch has changed meanwhile: nothing was recorded.") from lost
    except BaseException:
        await _give_back(runtime, claim)
        await _finish(runtime, claim, attempt_id, "not_recorded", "")
        raise
    await _finish(runtime, claim, attempt_id, "recorded", _summary(recording))


async def _write(runtime: Runtime, caller: Caller, recording: _Recording) -> None:
    outcomes, corrections = list(recording.outcomes.values()), list(recording.corrections.values())
    if not outcomes and not corrections:
        await _give_back(runtime, recording.claim)
        return
    claim = recording.claim
    if claim.state is BatchState.QUEUED:
        # Only now: a file of results that fits no device says nothing of this batch.
        async with runtime.transaction(claim.partner_id) as tx:
            if await batches.lock_claimed(tx.session, claim) is None:
                raise LostClaim
            claim = await _upload(runtime, tx, caller, claim, recording.format)
    done = len(outcomes) == len(recording.open)
    following = Next(BatchState.SETTLED) if done else Next(BatchState.SUBMITTED, due_at=runtime.now())
    await record(
        runtime,
        claim,
        list(recording.open.values()),
        outcomes,
        following,
        corrections=corrections,
        was={row.id: recording.before[row.id].state for row in corrections},
    )


def _summary(recording: _Recording) -> str:
    counted: dict[str, int] = defaultdict(int)
    for outcome in recording.outcomes.values():
        counted[outcome.state.value] += 1
    for id, outcome in recording.corrections.items():
        counted[f"{recording.before[id].state.value} corrected to {outcome.state.value}"] += 1
    said = [f"{state}: {n}" for state, n in sorted(counted.items())]
    if recording.untouched:
        said.append(f"not matched: {len(recording.untouched)}")
    return ", ".join(said)


async def _claim(
    runtime: Runtime, tx: Tx, caller: Caller, batch_id: UUID, *, settled: bool = False
) -> tuple[Claim, FileFormat]:
    partner_id, now = caller.partner_id, runtime.now()
    batch = await batches.get(tx.session, partner_id, batch_id)
    if batch is None:
        raise NotFound("not_found", f"There is no batch {batch_id}.")
    connection = await connections.get(tx.session, partner_id, batch["connection_id"])
    assert connection is not None  # a foreign key holds it
    format = format_of(runtime, connection)
    consented = await has_consent(tx, partner_id, batch)
    claim = await batches.claim_by_hand(
        tx.session,
        partner_id,
        batch_id,
        owner=uuid4(),
        now=now,
        lease=runtime.settings.lease,
        settled=settled,
    )
    if claim is None:
        # As it is now, after the wait for whoever held it.
        batch = await batches.get(tx.session, partner_id, batch_id)
        assert batch is not None
        state = BatchState(batch["state"])
        # Who corrects may take a settled batch: it is somebody else who has it at this moment.
        raise Conflict("invalid_state", _BUSY if settled and state is BatchState.SETTLED else _WHY_NOT[state])
    if claim.state is BatchState.QUEUED and not consented:
        raise Conflict("invalid_state", NO_CONSENT)
    return claim, format


NOT_UPLOADED = (
    "Nobody has marked this file as uploaded. If it is the right batch, mark it as uploaded, then record."
)
_BUSY = "Somebody else is recording this batch at this moment: read it again before you go on."
_WHY_NOT = defaultdict(
    lambda: _BUSY,
    {
        BatchState.HELD: NO_CONSENT,
        BatchState.CANCELLED: "The batch was cancelled.",
        BatchState.SETTLED: "Every device of this batch has its outcome already; nothing was changed. To "
        "replace what was recorded by mistake, say so with `correct`.",
    },
)


async def _upload(runtime: Runtime, tx: Tx, caller: Caller, claim: Claim, format: FileFormat) -> Claim:
    """Batch and rows as after a call that was accepted, with who said so and when."""
    now, attempt_id = runtime.now(), new_row_id()
    await _add_attempt(runtime, tx, caller, claim, attempt_id, "upload")
    await attempts.finish(tx.session, claim, attempt_id, outcome="uploaded", said="", now=now)
    changed = {"state": BatchState.SUBMITTED.value, "submitted_at": now, "submissions": claim.submissions + 1}
    await batches.update_claimed(tx.session, claim, {**changed, "updated_at": now})
    if format.tag_is_the_lists_name:
        at = (claim.partner_id, claim.customer_id, claim.group_tag)
        await group_tags.lock(tx.session, *at, now)
        await group_tags.set_known(tx.session, *at, known=True, now=now)
    return replace(claim, state=BatchState.SUBMITTED, submitted_at=now, submissions=claim.submissions + 1)


async def _add_attempt(
    runtime: Runtime, tx: Tx, caller: Caller, claim: Claim, attempt_id: UUID, kind: str
) -> None:
    await attempts.add(
        tx.session,
        claim,
        id=attempt_id,
        kind=kind,
        request_id=None,
        correlation_id=claim.correlation_id,
        now=runtime.now(),
        made_by=caller.key_id,
    )


async def _finish(runtime: Runtime, claim: Claim, attempt_id: UUID, outcome: str, said: str) -> None:
    async with runtime.transaction(claim.partner_id) as tx:
        await attempts.finish(tx.session, claim, attempt_id, outcome=outcome, said=said, now=runtime.now())


async def _give_back(runtime: Runtime, claim: Claim) -> None:
    """Without effect if somebody else has the batch meanwhile."""
    async with runtime.transaction(claim.partner_id) as tx:
        values = {"owner": None, "lease_until": None, "updated_at": runtime.now()}
        await batches.update_claimed(tx.session, claim, values)
