"""Compares orders, Microsoft's ledger, Registrar's records and its webhooks.

Pure, so that tests can show that each number that must be zero can become non-zero. What callers sent is the
reference for both sides; the database is believed only if the ledger agrees.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Fate(StrEnum):
    """The expected outcome of a device, decided when it was made."""

    FRESH = "fresh"
    HELD_HERE = "held by its customer before"
    HELD_ELSEWHERE = "held by another organisation"
    INVALID = "refused by our own checks"


@dataclass(frozen=True, slots=True)
class Sent:
    """A device as a caller sent it. `line_ref` and `key` are unique over the whole run."""

    line_ref: str
    reference: str
    tenant: str
    tag: str
    key: str
    """The serial number, or the PKID if only that was sent."""
    fate: Fate


@dataclass(frozen=True, slots=True)
class Row:
    """A registration in the database."""

    id: str
    line_ref: str
    tenant: str
    tag: str
    state: str
    error_code: str | None
    batch_id: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Times are seconds since 1970."""

    id: str
    state: str
    uncertain: bool
    settled_at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call of a batch as the database has it. `kind`: create, append, look_up."""

    batch_id: str
    kind: str
    request_id: str | None
    started_at: float
    outcome: str | None


@dataclass(frozen=True, slots=True)
class Held:
    """A device in the ledger. `call`: number of the call that registered it, 0 for one held before."""

    keys: tuple[str, ...]
    tenant: str
    tag: str
    call: int
    submissions: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A create or append in the ledger. `counted`: it was processed, and not answered from memory."""

    number: int
    request_id: str
    at: float
    counted: bool


@dataclass(frozen=True, slots=True)
class Event:
    """An event in the database that at least one endpoint asked for."""

    id: str
    type: str
    reference: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What receivers got, each event once."""

    ids: frozenset[str]
    states: Mapping[str, tuple[str, ...]]
    """By registration id: the reported states, in order of arrival."""
    orders: Mapping[str, tuple[str, ...]]
    """By reference: the types of the order's own events."""
    repeated: int
    refused: int


@dataclass(frozen=True, slots=True)
class Evidence:
    sent: Sequence[Sent]
    accepted: frozenset[str]
    """References of the orders whose caller got a 201."""
    rows: Sequence[Row]
    batches: Sequence[Batch]
    attempts: Sequence[Attempt]
    held: Sequence[Held]
    uploads: Sequence[Upload]
    events: Sequence[Event]
    told: Told
    accidents: Sequence[tuple[str, float]]
    """What happened to processes, and when."""
    longest_intake_outage: float = 0.0


FINAL = frozenset({"registered", "already_registered", "conflict", "failed", "unknown", "invalid"})
CLOSED = frozenset({"settled", "cancelled"})
ORDER_ENDS = frozenset({"order.completed", "order.completed_with_errors", "order.failed"})
CLEAN = "accepted"
EXAMPLES = 5

ZEROS = {
    "lost": "devices lost",
    "doubled": "devices ordered once and taken twice",
    "misplaced": "devices registered for a wrong customer or tag",
    "false": "devices whose reported outcome differs from the ledger",
    "silent": "unknown outcomes without an event",
    "needless": "devices submitted again without need",
    "untold": "webhooks missing",
    "contradicted": "webhooks that contradict each other",
    "forged": "webhooks whose signature did not verify",
}
"""What must be zero, with its words. `needless`: sent again although a clean answer had been recorded."""


@dataclass(slots=True)
class Verdict:
    zeros: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    registered: int = 0
    unknown: int = 0
    repeated_uploads: int = 0
    repeated_webhooks: int = 0
    recovery: float = 0.0
    """Seconds from an accident, or a failed call, until the affected batches were settled."""
    recovery_of: str = ""

    @property
    def good(self) -> bool:
        return not any(self.zeros[name] for name in ZEROS)

    def note(self, zero: str, example: str) -> None:
        self.zeros[zero] += 1
        if len(self.examples[zero]) < EXAMPLES:
            self.examples[zero].append(example)


def judge(evidence: Evidence) -> Verdict:
    verdict = Verdict()
    batches = {batch.id: batch for batch in evidence.batches}
    held = {key: device for device in evidence.held for key in device.keys}
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.rows:
        rows[row.line_ref].append(row)
    for sent in evidence.sent:
        _judge_device(verdict, evidence, sent, rows.get(sent.line_ref, []), held.get(sent.key), batches)
    _judge_places(verdict, evidence)
    _judge_webhooks(verdict, evidence)
    _count_repetitions(verdict, evidence, held)
    _find_recovery(verdict, evidence)
    return verdict


def _judge_device(
    verdict: Verdict,
    evidence: Evidence,
    sent: Sent,
    rows: Sequence[Row],
    held: Held | None,
    batches: Mapping[str, Batch],
) -> None:
    if not rows or sent.reference not in evidence.accepted:
        verdict.note("lost", f"{sent.line_ref}: its order was not taken")
        return
    if len(rows) > 1:
        verdict.note("doubled", f"{sent.line_ref}: {len(rows)} rows")
    row = rows[0]
    batch = batches.get(row.batch_id or "")
    where = f"{sent.line_ref} ({sent.fate}, registration {row.id}, batch {row.batch_id})"
    if row.state not in FINAL or (batch is not None and batch.state not in CLOSED):
        state = None if batch is None else batch.state
        verdict.note("lost", f"{where}: still {row.state} at the end, batch {state}")
        return
    if row.state == "unknown":
        verdict.unknown += 1
        if "unknown" not in evidence.told.states.get(row.id, ()):
            verdict.note("silent", where)
        return
    ours = held is not None and held.call > 0 and held.tenant == sent.tenant
    verdict.registered += ours
    if sent.fate is Fate.FRESH and row.state == "failed" and not ours:
        verdict.note("lost", f"{where}: failed with {row.error_code}, though nothing is wrong with it")
    elif (row.tenant, row.tag) != (sent.tenant, sent.tag) and row.state != "invalid":
        verdict.note("false", f"{where}: reported for another customer or under another tag")
    elif row.state not in _truths(sent.fate, ours):
        seen = "nobody" if held is None else f"{held.tenant} since call {held.call}"
        verdict.note("false", f"{where}: reported as {row.state}, the ledger says: held by {seen}")


def _truths(fate: Fate, ours: bool) -> frozenset[str]:
    """The states that may be reported."""
    match fate:
        case Fate.FRESH:
            return frozenset({"registered"} if ours else ())
        case Fate.HELD_HERE:
            # After an upload of unknown effect too: the listing of its tag does not show it.
            return frozenset({"already_registered"})
        case Fate.HELD_ELSEWHERE:
            return frozenset({"conflict"})
        case Fate.INVALID:
            return frozenset({"invalid"})


def _judge_places(verdict: Verdict, evidence: Evidence) -> None:
    wanted = {sent.key: sent for sent in evidence.sent}
    for device in evidence.held:
        if not device.call:
            continue
        sent = next((wanted[key] for key in device.keys if key in wanted), None)
        if sent is None:
            verdict.note("misplaced", f"call {device.call} registered a device nobody ordered")
        elif (device.tenant, device.tag) != (sent.tenant, sent.tag):
            verdict.note(
                "misplaced",
                f"{sent.line_ref}: for {device.tenant} under {device.tag!r}, "
                f"ordered for {sent.tenant} under {sent.tag!r}",
            )
        elif sent.fate is Fate.INVALID:
            verdict.note("misplaced", f"{sent.line_ref}: registered though it is invalid")


def _judge_webhooks(verdict: Verdict, evidence: Evidence) -> None:
    told = evidence.told
    for event in evidence.events:
        if event.id not in told.ids:
            verdict.note("untold", f"event {event.id} ({event.type}) was not received")
    for row in evidence.rows:
        if row.state == "invalid" or row.state not in FINAL:
            continue
        states = told.states.get(row.id, ())
        if row.state not in states:
            verdict.note("untold", f"{row.line_ref}: nobody was told that it is {row.state}")
        elif len(set(states)) > 1:
            verdict.note("contradicted", f"{row.line_ref}: told as {' and '.join(states)}")
    for reference in sorted(evidence.accepted):
        types = told.orders.get(reference, ())
        ends = [type for type in types if type in ORDER_ENDS]
        if "order.accepted" not in types or not ends:
            verdict.note("untold", f"order {reference}: only {', '.join(types) or 'nothing'} was told")
        elif len(ends) > 1:
            verdict.note("contradicted", f"order {reference}: told as {' and '.join(ends)}")
    verdict.zeros["forged"] += told.refused
    verdict.repeated_webhooks = told.repeated


def _count_repetitions(verdict: Verdict, evidence: Evidence, held: Mapping[str, Held]) -> None:
    """Each upload without a recorded clean answer allows one more; beyond that it was not needed."""
    uploads = _uploads_of_batches(evidence)
    verdict.repeated_uploads = sum(max(len(made) - 1, 0) for made in uploads.values())
    batch_of = {row.line_ref: row.batch_id for row in evidence.rows}
    for sent in evidence.sent:
        device = held.get(sent.key)
        if device is None or sent.fate is not Fate.FRESH:
            continue
        made = uploads.get(batch_of.get(sent.line_ref) or "", ())
        unclear = sum(outcome != CLEAN for _, outcome in made)
        if device.submissions - 1 > unclear:
            verdict.note(
                "needless", f"{sent.line_ref}: {device.submissions} times, {unclear} unclear answers"
            )


def _uploads_of_batches(evidence: Evidence) -> dict[str, list[tuple[Upload, str | None]]]:
    """The uploads that had an effect, with what was recorded of the attempt they belong to."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(evidence.attempts, key=lambda attempt: attempt.started_at):
        if attempt.request_id is not None:
            attempts[attempt.request_id].append(attempt)
    found: dict[str, list[tuple[Upload, str | None]]] = defaultdict(list)
    for upload in evidence.uploads:
        before = [a for a in attempts.get(upload.request_id, ()) if a.started_at <= upload.at]
        if upload.counted and before:
            found[before[-1].batch_id].append((upload, before[-1].outcome))
    return found


def _find_recovery(verdict: Verdict, evidence: Evidence) -> None:
    """From each accident to the end of all batches under way then; from a failed call to its batch's end."""
    begun: dict[str, float] = {}
    troubled: dict[str, float] = {}
    for attempt in evidence.attempts:
        at, batch_id = attempt.started_at, attempt.batch_id
        begun[batch_id] = min(at, begun.get(batch_id, at))
        if attempt.kind != "look_up" and attempt.outcome != CLEAN:
            troubled[batch_id] = min(at, troubled.get(batch_id, at))
    spans: list[tuple[float, str]] = [(evidence.longest_intake_outage, "intake")]
    for batch in evidence.batches:
        settled = batch.settled_at
        if settled is None or batch.id not in begun:
            continue
        if batch.id in troubled:
            spans.append((settled - troubled[batch.id], f"a failed call of batch {batch.id}"))
        spans += _spans_over(evidence.accidents, begun[batch.id], settled)
    verdict.recovery, verdict.recovery_of = max(spans)


def _spans_over(
    accidents: Iterable[tuple[str, float]], begun: float, settled: float
) -> list[tuple[float, str]]:
    return [(settled - at, what) for what, at in accidents if begun <= at <= settled]
