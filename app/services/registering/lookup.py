"""Finds the outcomes of devices whose answer was lost, in the platform's own listing.

Bounded: a few look-ups of so many pages. A device that the listing does not show is sent once more, which
does no harm (registering is idempotent per device and tenant) and gives a definite answer. If that stays
unclear too, the row ends visibly as `unknown`, with the next step for an operator. A device that the customer
has according to the platform is not sent again: the listing only tells whether this order registered it.
Without `Lists` there is only the one repetition.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from app.db import attempts, registrations
from app.db.batches import Claim
from app.db.ids import new_row_id
from app.db.registrations import Outcome, SendableRow
from app.domain import schedule
from app.domain.batch import BatchState
from app.domain.registration import RegistrationState, is_with_customer
from app.domain.same_device import Named, is_same
from app.domain.upstream import OutcomeUnknown, Said, UpstreamFailure
from app.kernel.telemetry import logger
from app.platforms.base import ListedDevice, Lists
from app.runtime import Runtime
from app.services.connections.access import ConnectionAccess, read_access
from app.services.registering.outcomes import Next, finish_attempt, had_before, record

log = logger("lookup")

LOOKUP_PAUSE = timedelta(seconds=2)
"""A device appears in the listing a moment after its job is done."""
READING_SHARE = 0.6
"""The part of a step's time for reading the listing; the rest is for storing the outcomes."""
ROUNDS = 2
"""Look-ups, one repetition of the missing devices, look-ups again."""


@dataclass
class _Listing:
    """The devices that the platform has under the group tag, by each of their identities."""

    whole: bool = True
    """False if it has more devices than were read, so a missing one may be there."""
    exists: bool = True
    """False if the platform has no listing, so looking again is useless."""
    devices: int = 0
    by_name: dict[tuple[str, str], list[ListedDevice]] = field(default_factory=dict)
    """By PKID and by serial number."""

    def add(self, device: ListedDevice) -> None:
        self.devices += 1
        for name in _names(device):
            self.by_name.setdefault(name, []).append(device)

    def find(self, row: SendableRow) -> ListedDevice | None:
        found = (device for name in _names(row) for device in self.by_name.get(name, ()))
        return next((device for device in found if is_same(row, device)), None)


def _names(device: Named) -> list[tuple[str, str]]:
    given = (("pkid", device.product_key), ("serial", device.serial_number))
    return [(kind, name) for kind, name in given if name]


async def look_up(runtime: Runtime, claim: Claim) -> None:
    async with runtime.transaction(claim) as tx:
        rows = await registrations.open_of_batch(tx, claim.id, with_hashes=False)
        said = await registrations.said_of_batch(tx, claim.id)
        await attempts.close_open(tx, claim, runtime.now())
        access = await read_access(runtime, tx, claim.connection_id)
    means = access.registers.meaning
    with_customer = {id: words for id, words in said.items() if is_with_customer(means(*words))}
    lists = access.abilities.lists
    if lists is None:
        listing = _Listing(whole=False, exists=False)
    else:
        listing = await _read_as_attempt(runtime, claim, access, lists)
    await _conclude(runtime, claim, rows, with_customer, listing)


async def _read_as_attempt(
    runtime: Runtime, claim: Claim, access: ConnectionAccess, lists: Lists
) -> _Listing:
    """Reads the listing, and stores this as an attempt."""
    attempt_id = new_row_id()
    async with runtime.transaction(claim) as tx:
        await attempts.add(
            tx,
            claim,
            id=attempt_id,
            kind="look_up",
            request_id=None,
            correlation_id=claim.correlation_id,
            now=runtime.now(),
        )
    try:
        listing = await _read(runtime, claim, access, lists)
    except UpstreamFailure as failure:
        await finish_attempt(runtime, claim, attempt_id, failure.code, str(failure.said))
        raise
    await finish_attempt(runtime, claim, attempt_id, "read", "")
    return listing


async def _read(runtime: Runtime, claim: Claim, access: ConnectionAccess, lists: Lists) -> _Listing:
    """Raises UpstreamFailure, also if time ran out before the first page."""
    listing = _Listing()
    pages = runtime.settings.lookup_pages
    try:
        async with asyncio.timeout(runtime.settings.step_timeout_s * READING_SHARE):
            async for device in lists.listed(access, claim.entra_tenant_id, claim.group_tag, max_pages=pages):
                listing.add(device)
    except TimeoutError as error:
        if not listing.devices:  # not even a page, which says nothing about any device
            unread = Said(description="The platform's list of devices could not be read in time.")
            raise OutcomeUnknown(unread, answered=False) from error
        listing.whole = False
    if listing.devices >= pages * lists.devices_a_page:
        listing.whole = False
    return listing


async def _conclude(
    runtime: Runtime,
    claim: Claim,
    rows: Sequence[SendableRow],
    with_customer: Mapping[UUID, tuple[str | None, str | None]],
    listing: _Listing,
) -> None:
    """Records what the listing shows, and decides whether to look again, send again or give up.
    `with_customer`: the platform's words, by row, if they say that the customer has the device."""
    found: list[Outcome] = []
    missing: list[SendableRow] = []
    theirs: list[Outcome] = []
    for row in rows:
        device = listing.find(row)
        if device is not None:
            found.append(Outcome(row.id, RegistrationState.REGISTERED, upstream_device_id=device.device_id))
        elif row.id in with_customer:
            theirs.append(had_before(row.id, with_customer[row.id], _why_unclear(claim, listing)))
        else:
            missing.append(row)
    log.info(
        "looked_up",
        batch_id=str(claim.id),
        found=len(found),
        missing=len(missing),
        had_before=len(theirs),
        whole=listing.whole,
    )
    per_round = runtime.settings.lookup_attempts
    looks = claim.lookups + (1 if listing.exists else per_round)
    values: dict[str, Any] = {"lookups": looks, "troubles": 0, "failure_code": None, "failure_said": None}
    # Devices appear a moment late, so one look proves nothing. A listing too long to read is no better the
    # next time, so it is read again only for rows that would otherwise end as unknown.
    may_help = listing.whole or (bool(missing) and looks > per_round)
    if (missing or theirs) and looks % per_round and may_help:
        following = Next(
            BatchState.UNKNOWN, schedule.next_attempt(looks, runtime.now(), runtime.random()), values
        )
        await record(runtime, claim, rows, found, following)
        return
    found += theirs
    if not missing:
        following = Next(BatchState.SETTLED, values=values)
    elif looks < ROUNDS * per_round:
        values["lookups"] = per_round
        again = {"submitted_at": None, "tracking_id": None, "request_id": None, "uncertain": True}
        following = Next(BatchState.UNKNOWN, runtime.now(), values | again)
    else:
        given_up = [
            Outcome(row.id, RegistrationState.UNKNOWN, error_code="outcome_unknown") for row in missing
        ]
        log.error("outcome_unknown", batch_id=str(claim.id), rows=len(given_up))
        found += given_up
        following = Next(BatchState.SETTLED, values=values | {"failure_code": "outcome_unknown"})
    await record(runtime, claim, rows, found, following)


def _why_unclear(claim: Claim, listing: _Listing) -> str | None:
    """Detail for a device that the customer has, if the listing cannot show who registered it."""
    if listing.whole:
        return None
    why = "the platform has no list of devices that shows it."
    if listing.exists:
        read = f"{listing.devices:,} that were read"
        why = f"the group tag {claim.group_tag!r} holds more devices than the {read}."
    return f"The customer has the device. A call of this order may have registered it: {why}"
