"""Records what people did at a portal: that a file was uploaded, and the outcomes of its devices.

Recording claims a batch as a worker does, so that locks, fencing, events and the deletion of hashes are the
same as for every other outcome (`outcomes.record`), and the second of two people is told to read the batch
again. An existing outcome is replaced only if the caller says that it is a correction; what cannot be matched
stays open and is reported.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import InitVar, dataclass, field, replace
from uuid import UUID, uuid4

from anyio import to_thread

from app.db import attempts, batches, connections, customers, group_tags, orders, registrations
from app.db.batches import Claim
from app.db.ids import new_row_id
from app.db.leases import BATCHES, LostClaim
from app.db.registrations import Outcome, SendableRow
from app.domain.batch import BatchState
from app.domain.errors import Conflict, NotFound, Unprocessable
from app.domain.portal_file import FileFormat
from app.domain.registration import (
    MAX_TRANSIENT_ATTEMPTS,
    MOVING_WITH_BATCH,
    TRANSIENT_CODES,
    RegistrationState,
    UpstreamRow,
)
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access.identities import Caller
from app.services.portal.entries import Entry, Index, answer_of, meaning_of
from app.services.portal.files import NO_CONSENT, format_of
from app.services.portal.matching import match, read_result
from app.services.registering.outcomes import Next, finish_attempt, outcome_of, record

log = logger("portal")


@dataclass(frozen=True, slots=True)
class Untouched:
    """An entry, or a line of a file, that was not recorded, and why."""

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    reference: str
    """The order's reference; with the customer's name it shows what the outcomes were written to."""
    customer_name: str
    recorded: int
    """Devices whose outcome was written."""
    corrected: int
    """Those of them that had another outcome before."""
    again: int
    """Those of them with a temporary failure, which are now in a new file."""
    open: int
    """Devices of the batch that still have no outcome."""
    untouched: Sequence[Untouched]
    outcomes: Mapping[RegistrationState, int] = field(default_factory=dict)
    """Recorded devices by outcome."""
    devices: Sequence["Recorded"] = ()
    unread: Sequence[str] = ()
    """Columns of the file that were not read."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A device whose outcome was written."""

    row: SendableRow
    file_row: int
    """Its row in the uploaded file, from 1 without the header."""
    outcome: Outcome


async def mark_uploaded(runtime: Runtime, caller: Caller, batch_id: UUID) -> None:
    """Records that the batch's file was uploaded. Raises NotFound, Unprocessable, Conflict."""
    now = runtime.now()
    async with runtime.transaction(caller) as tx:
        claim, format = await _claim(runtime, tx, batch_id)
        if claim.state is not BatchState.QUEUED:
            raise Conflict(
                "invalid_state", f"It was marked as uploaded already, at {claim.submitted_at:%F %R} UTC."
            )
        await _upload(runtime, tx, claim, format)
        await batches.write_claimed(tx, claim, {**BATCHES.ended, "updated_at": now})
    log.info("portal_file_uploaded", batch_id=str(batch_id))


async def undo_upload(runtime: Runtime, caller: Caller, batch_id: UUID, refusal: str | None) -> None:
    """Undoes an upload that did not happen, or that the portal refused as a whole (`refusal`: its words).

    Neither says anything about the devices, so they wait for an upload again. Raises NotFound, Unprocessable,
    and Conflict if the file is not marked as uploaded or a device has an outcome.
    """
    now, attempt_id = runtime.now(), new_row_id()
    async with runtime.transaction(caller) as tx:
        claim, _ = await _claim(runtime, tx, batch_id)
        if claim.state is not BatchState.SUBMITTED:
            raise Conflict("invalid_state", "The file is not marked as uploaded: there is nothing to undo.")
        rows = await registrations.of_batch(tx, claim.id, with_hashes=False)
        batch = await batches.get(tx, claim.id)
        assert batch is not None  # it is claimed
        # A device with a temporary failure has an outcome too, and has moved to a new file.
        moved_on = len(rows) < batch.device_count
        if moved_on or any(state not in MOVING_WITH_BATCH for _, state in rows):
            raise Conflict("invalid_state", _HAS_OUTCOMES)
        await attempts.close_open(tx, claim, now)
        await _add_attempt(runtime, tx, claim, attempt_id, "undo_upload")
        outcome = "not_uploaded" if refusal is None else "refused"
        await attempts.finish(tx, attempt_id, outcome=outcome, said=refusal or "", now=now)
        values = {
            "state": BatchState.QUEUED.value,
            "submitted_at": None,
            "due_at": now,
            "failure_code": None if refusal is None else "file_refused_at_portal",
            "failure_said": refusal,
            **BATCHES.ended,
            "updated_at": now,
        }
        await batches.write_claimed(tx, claim, values)
    log.info("portal_upload_undone", batch_id=str(batch_id), refused=refusal is not None)


async def record_all(
    runtime: Runtime,
    caller: Caller,
    batch_id: UUID,
    outcome: RegistrationState,
    *,
    code: str | None = None,
    detail: str | None = None,
    correct: bool = False,
) -> Report:
    """Records one outcome for every device of the batch without one; with `correct`, for every device.

    Raises Unprocessable if Microsoft's code does not mean the outcome.
    """
    said = Entry(outcome, code=code, detail=detail)
    meaning = meaning_of(said)
    if meaning is None:
        raise Unprocessable("validation_failed", f"Microsoft's {code} does not mean {outcome.value}.")
    answer = answer_of(said) or UpstreamRow(True, None, None)
    async with _recording(runtime, caller, batch_id, "outcome", correct=correct) as recording:
        if recording.claim.state is BatchState.QUEUED:
            # No entry names a device that would prove the batch right, and recording deletes the hashes.
            raise Conflict("invalid_state", NOT_UPLOADED)
        for row in recording.rows if correct else recording.open.values():
            recording.add(0, row, replace(outcome_of(row, meaning, answer), error_detail=detail))
        return recording.report()


async def record_rows(
    runtime: Runtime, caller: Caller, batch_id: UUID, entries: Sequence[Entry], *, correct: bool = False
) -> Report:
    """Records outcomes of single devices."""
    async with _recording(runtime, caller, batch_id, "outcome", correct=correct) as recording:
        index = Index(recording.rows, whole=recording.whole)
        for place, entry in enumerate(entries, start=1):
            found = index.find(entry)
            if len(found) != 1:
                words = (
                    "More than one device of this batch fits." if found else "No device of this batch fits."
                )
                recording.untouched.append(Untouched(place, words))
                continue
            meaning = meaning_of(entry)
            if meaning is None:
                words = f"Microsoft's {entry.code} does not mean {entry.outcome.value}."
                recording.untouched.append(Untouched(place, words))
                continue
            outcome = outcome_of(found[0], meaning, answer_of(entry) or UpstreamRow(True, None, None))
            recording.add(place, found[0], replace(outcome, error_detail=entry.detail))
        return recording.report()


async def record_result(
    runtime: Runtime, caller: Caller, batch_id: UUID, content: bytes, *, correct: bool = False
) -> Report:
    """Records the portal's own result list, or a text that names rows of the uploaded file.

    Raises Unprocessable if it cannot be read.
    """
    async with _recording(runtime, caller, batch_id, "result_file", correct=correct) as recording:
        file = await to_thread.run_sync(read_result, content)
        matches = match(recording.rows, file.said, whole=recording.whole)
        for line, row, meaning, said in matches.found:
            outcome = outcome_of(row, meaning, said.answer)
            recording.add(line, row, replace(outcome, error_detail=said.detail))
        recording.untouched += [Untouched(line, words) for line, words in matches.untouched]
        return replace(recording.report(), unread=file.unread)


# --- the batch --------------------------------------------------------------------------------


@dataclass
class _Recording:
    """A batch that one caller has claimed to record its outcomes."""

    claim: Claim
    format: FileFormat
    found: InitVar[Sequence[tuple[SendableRow, RegistrationState]]]
    before: Mapping[UUID, Outcome]
    """Outcomes that may be replaced; none without `correct`."""
    device_count: int
    """Devices in the uploaded file."""
    reference: str
    customer_name: str
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

    @property
    def whole(self) -> bool:
        """Whether every device of the uploaded file is still in the batch, in the file's order."""
        return len(self.rows) == self.device_count

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
        written = self.outcomes | self.corrections
        return Report(
            self.reference,
            self.customer_name,
            len(written),
            corrected,
            again,
            left,
            untouched,
            outcomes=Counter(outcome.state for outcome in written.values()),
            devices=[
                Recorded(row, place, written[row.id])
                for place, row in enumerate(self.rows, start=1)
                if row.id in written
            ],
        )


@asynccontextmanager
async def _recording(
    runtime: Runtime, caller: Caller, batch_id: UUID, kind: str, *, correct: bool
) -> AsyncIterator[_Recording]:
    """Claims the batch, and writes the outcomes at the end. Also marks the file as uploaded if it is not yet.

    Raises Conflict if somebody else has claimed the batch, or has changed it meanwhile.
    """
    attempt_id = new_row_id()
    async with runtime.transaction(caller) as tx:
        claim, format = await _claim(runtime, tx, batch_id, settled=correct)
        await attempts.close_open(tx, claim, runtime.now())
        await _add_attempt(runtime, tx, claim, attempt_id, kind)
        rows = await registrations.of_batch(tx, claim.id, with_hashes=False)
        before = await registrations.recorded_of_batch(tx, claim.id) if correct else {}
        batch = await batches.get(tx, claim.id)
        order = await orders.get(tx, claim.order_id)
        customer = await customers.get(tx, claim.customer_id)
    assert batch is not None  # it is claimed
    assert order is not None  # a foreign key holds it
    assert customer is not None
    names = (order.reference, customer.name)
    recording = _Recording(claim, format, rows, before, batch.device_count, *names)
    try:
        yield recording
        await _write(runtime, caller, recording)
    except LostClaim as lost:
        await _give_back(runtime, caller, claim)
        await finish_attempt(runtime, caller, attempt_id, "not_recorded", "")
        raise Conflict("invalid_state", "The batch has changed meanwhile: nothing was recorded.") from lost
    except BaseException:
        await _give_back(runtime, caller, claim)
        await finish_attempt(runtime, caller, attempt_id, "not_recorded", "")
        raise
    await finish_attempt(runtime, caller, attempt_id, "recorded", _summary(recording))


async def _write(runtime: Runtime, caller: Caller, recording: _Recording) -> None:
    outcomes, corrections = list(recording.outcomes.values()), list(recording.corrections.values())
    if not outcomes and not corrections:
        await _give_back(runtime, caller, recording.claim)
        return
    claim = recording.claim
    if claim.state is BatchState.QUEUED:
        # Only now: result files without a device of this batch do not prove that its file was uploaded.
        async with runtime.transaction(caller) as tx:
            if await batches.lock_claimed(tx, claim) is None:
                raise LostClaim
            claim = await _upload(runtime, tx, claim, recording.format)
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
    runtime: Runtime, tx: PartnerTx, batch_id: UUID, *, settled: bool = False
) -> tuple[Claim, FileFormat]:
    now = runtime.now()
    batch = await batches.get(tx, batch_id)
    if batch is None:
        raise NotFound("not_found", f"There is no batch {batch_id}.")
    connection = await connections.get(tx, batch.connection_id)
    assert connection is not None  # a foreign key holds it
    format = format_of(runtime, connection)
    holds = await customers.holds_for_share(tx, batch.customer_id)
    claim = await batches.claim_by_hand(
        tx, batch_id, owner=uuid4(), now=now, lease=runtime.settings.lease, settled=settled
    )
    if claim is None:
        # The current state, after waiting for the transaction that held the batch.
        batch = await batches.get(tx, batch_id)
        assert batch is not None
        state = batch.state
        # A correction may claim a settled batch, so if it could not, somebody else has the batch.
        raise Conflict("invalid_state", _BUSY if settled and state is BatchState.SETTLED else _WHY_NOT[state])
    if claim.state is BatchState.QUEUED and holds:
        raise Conflict("invalid_state", NO_CONSENT)
    return claim, format


NOT_UPLOADED = (
    "Nobody has marked this file as uploaded. If it is the right batch, mark it as uploaded, then record."
)
_HAS_OUTCOMES = (
    "Outcomes of this file are recorded, so it was uploaded. "
    "Replace what was recorded by mistake with `correct`."
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


async def _upload(runtime: Runtime, tx: PartnerTx, claim: Claim, format: FileFormat) -> Claim:
    """Changes batch and rows as an accepted call would, and records who uploaded the file and when."""
    now, attempt_id = runtime.now(), new_row_id()
    await _add_attempt(runtime, tx, claim, attempt_id, "upload")
    await attempts.finish(tx, attempt_id, outcome="uploaded", said="", now=now)
    changed = {
        "state": BatchState.SUBMITTED.value,
        "submitted_at": now,
        "submissions": claim.submissions + 1,
        "failure_code": None,
        "failure_said": None,
    }
    await batches.write_claimed(tx, claim, {**changed, "updated_at": now})
    if format.tag_is_the_lists_name:
        at = (claim.customer_id, claim.group_tag)
        await group_tags.lock(tx, *at, now)
        await group_tags.set_known(tx, *at, known=True, now=now)
    return replace(claim, state=BatchState.SUBMITTED, submitted_at=now, submissions=claim.submissions + 1)


async def _add_attempt(runtime: Runtime, tx: PartnerTx, claim: Claim, attempt_id: UUID, kind: str) -> None:
    await attempts.add(
        tx,
        claim,
        id=attempt_id,
        kind=kind,
        request_id=None,
        correlation_id=claim.correlation_id,
        now=runtime.now(),
        made_by=tx.actor.key_id,
    )


async def _give_back(runtime: Runtime, caller: Caller, claim: Claim) -> None:
    """Releases the claim. No effect if somebody else has claimed the batch meanwhile."""
    async with runtime.transaction(caller) as tx:
        values = {**BATCHES.ended, "updated_at": runtime.now()}
        await batches.update_claimed(tx, claim, values)
