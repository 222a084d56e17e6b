"""The lease kernel: how a row is claimed for a time, and how a claim ends.

A claim is an owner, the end of a lease, and the worker that made it, in three columns of the row. The owner
fences: who has lost a claim changes nothing. The lease ends a claim whose owner does not come back; it is
kept for as long as the owner renews it, and given up with its last word. By the worker's name others end the
claims of a worker that has died; a person's claim has none. Which row is claimed next is each table's own
matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from app.db.sql import execute, fetch_all, listed
from app.domain.batch import IN_FLIGHT
from app.kernel.transactions import PartnerTx, SystemTx


@dataclass(frozen=True, slots=True)
class Leased:
    """A table whose rows are claimed, with the SQL that is the same for each."""

    table: str
    claims: str
    """Which rows `c` may be claimed: matches a partial index of the table."""
    prefix: str = ""
    """Of the names of the columns, where a row is claimed for several things."""

    @property
    def owner(self) -> str:
        return f"{self.prefix}owner"

    @property
    def until(self) -> str:
        return f"{self.prefix}lease_until"

    @property
    def worker(self) -> str:
        return f"{self.prefix}worker_id"

    @property
    def claimed(self) -> str:
        """What a claim sets, of the parameters owner, until and worker."""
        return f"{self.owner} = :owner, {self.until} = :until, {self.worker} = CAST(:worker AS text)"

    @property
    def moved(self) -> str:
        """What pulls back a lease that a clock ahead of the parameter `now` has written."""
        return f"{self.until} = {self.until} - (updated_at - :now)"

    @property
    def given_up(self) -> str:
        """What the end of a claim sets."""
        return f"{self.owner} = NULL, {self.until} = NULL, {self.worker} = NULL"

    @property
    def given_up_by_owner(self) -> str:
        """As `given_up`, where the claim may be another's: it then stays. Its parameter is owner."""
        mine = f"CASE WHEN {self.owner} = :owner THEN NULL ELSE"
        return ", ".join(f"{name} = {mine} {name} END" for name in self.nobody)

    def kept(self, until: datetime) -> dict[str, datetime]:
        """What renewing a claim sets, for one that is renewed with other values."""
        return {self.until: until}

    @property
    def nobody(self) -> dict[str, None]:
        """As `given_up`, for a claim that ends with other values."""
        return dict.fromkeys((self.owner, self.until, self.worker))

    def free(self, alias: str = "", at: str = "now") -> str:
        """The SQL condition that no lease of the row is running at the time that is the parameter `at`."""
        until = f"{alias}.{self.until}" if alias else self.until
        return f"({until} IS NULL OR {until} < :{at})"

    def held(self, alias: str = "") -> str:
        """The SQL condition that a lease of the row is running at the time that is the parameter `now`."""
        return f"{alias}.{self.until} >= :now" if alias else f"{self.until} >= :now"


BATCHES: Final = Leased(
    "batches", f"c.state IN ({listed(IN_FLIGHT)}) OR (c.state = 'queued' AND c.lease_until IS NOT NULL)"
)
DELIVERIES: Final = Leased("deliveries", "c.owner IS NOT NULL")
IMPORTS: Final = Leased("imports", "c.due_at IS NOT NULL")
TOKENS: Final = Leased("connections", "c.token_owner IS NOT NULL", "token_")
"""Refresh tokens that are being redeemed: one process at a time."""
READINGS: Final = Leased("connections", "c.reading_owner IS NOT NULL", "reading_")
"""Customers lists that are being read: one worker at a time."""
GIVEN_UP: Final = BATCHES.nobody
"""What the end of a claim sets in a table whose rows are claimed for one thing."""


class LostClaim(Exception):
    """Somebody else has the row now, or it has gone: whatever was found out must not be written."""


class Claimed(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def owner(self) -> UUID: ...


class RowClaim(NamedTuple):
    """A claim of a row that is not read as a whole."""

    id: UUID
    owner: UUID


async def renew(tx: PartnerTx, leased: Leased, claim: Claimed, until: datetime) -> bool:
    """Keeps the claim until then. False when it has been lost."""
    return await _set(tx, leased, claim, f"{leased.until} = :until", until=until)


async def give_up(tx: PartnerTx, leased: Leased, claim: Claimed) -> bool:
    """Hands the row over as it is. False when the claim had been lost."""
    return await _set(tx, leased, claim, leased.given_up)


async def _set(tx: PartnerTx, leased: Leased, claim: Claimed, values: str, **given: datetime) -> bool:
    """Fenced: False, and nothing is changed, where the owner is another one by now."""
    return bool(
        await execute(
            tx,
            f"UPDATE {leased.table} SET {values} "
            f"WHERE partner_id = :partner AND id = :id AND {leased.owner} = :owner",
            partner=tx.partner_id,
            id=claim.id,
            owner=claim.owner,
            **given,
        )
    )


async def shorten(tx: SystemTx, leased: Leased, now: datetime, lease: timedelta) -> int:
    """Lets no claim end later than one that begins now, whatever clock wrote it; returns how many."""
    return await execute(
        tx,
        f"UPDATE {leased.table} c SET {leased.until} = :until "
        f"WHERE ({leased.claims}) AND c.{leased.until} > :later",
        until=now + lease,
        later=now + 2 * lease,
    )


async def end_of_workers(
    tx: SystemTx, leased: Leased, worker_ids: Sequence[str], now: datetime, *, lease_before: datetime
) -> list[str]:
    """Ends the leases of these workers' claims, except those that end at `lease_before` or later. Returns the
    worker's name for each claim.

    The owner stays, as where a lease has run out: nobody else having claimed it, the worker may still
    finish. What is locked is left: somebody is at work on it, or a frozen worker's transaction holds it.
    """
    found = await fetch_all(
        tx,
        f"WITH dead AS MATERIALIZED (SELECT c.id, c.{leased.worker} AS worker_id FROM {leased.table} c "
        f"WHERE ({leased.claims}) AND c.{leased.until} >= :now AND c.{leased.until} < :before "
        f"AND c.{leased.worker} = ANY(:workers) FOR NO KEY UPDATE OF c SKIP LOCKED) "
        f"UPDATE {leased.table} SET {leased.until} = NULL FROM dead WHERE {leased.table}.id = dead.id "
        "RETURNING dead.worker_id",
        workers=list(worker_ids),
        now=now,
        before=lease_before,
    )
    return [row["worker_id"] for row in found]
