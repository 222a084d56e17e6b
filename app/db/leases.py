"""Leases: claiming a row for a limited time, renewing the claim, and ending it.

A claim has three columns of the row: an owner, the end of the lease, and the worker. Every write checks the
owner, so a claimant that has lost its claim changes nothing. A claimant renews its lease while it works, and
its last write ends the claim; if it dies, the claim ends with the lease. The worker's name lets others end a
dead worker's claims; a person's claim has none. Each table decides which row is claimed next.
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
    """A table whose rows can be claimed, with the SQL that all such tables share."""

    table: str
    claims: str
    """SQL for the rows `c` that can be claimed; matches a partial index of the table."""
    prefix: str = ""
    """The prefix of the columns' names, in a table whose rows have several kinds of claims."""

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
        """SQL that sets a claim, from the parameters owner, until and worker."""
        return f"{self.owner} = :owner, {self.until} = :until, {self.worker} = CAST(:worker AS text)"

    @property
    def moved(self) -> str:
        """SQL that shortens a lease written by a clock ahead of the parameter `now`."""
        return f"{self.until} = {self.until} - (updated_at - :now)"

    @property
    def given_up(self) -> str:
        """SQL that ends a claim."""
        return ", ".join(f"{name} = NULL" for name in self.ended)

    @property
    def given_up_by_owner(self) -> str:
        """SQL that ends the claim only if the parameter owner still has it."""
        mine = f"CASE WHEN {self.owner} = :owner THEN NULL ELSE"
        return ", ".join(f"{name} = {mine} {name} END" for name in self.ended)

    def kept(self, until: datetime) -> dict[str, datetime]:
        """The values that renew a claim, for an update together with others."""
        return {self.until: until}

    @property
    def ended(self) -> dict[str, None]:
        """The values that end a claim, for an update together with others."""
        return dict.fromkeys((self.owner, self.until, self.worker))

    def free(self, alias: str = "", at: str = "now") -> str:
        """SQL: no lease of the row runs at the time in the parameter `at`."""
        until = f"{alias}.{self.until}" if alias else self.until
        return f"({until} IS NULL OR {until} < :{at})"

    def held(self, alias: str = "") -> str:
        """SQL: a lease of the row runs at the time in the parameter `now`."""
        return f"{alias}.{self.until} >= :now" if alias else f"{self.until} >= :now"


BATCHES: Final = Leased(
    "batches", f"c.state IN ({listed(IN_FLIGHT)}) OR (c.state = 'queued' AND c.lease_until IS NOT NULL)"
)
DELIVERIES: Final = Leased("deliveries", "c.owner IS NOT NULL")
IMPORTS: Final = Leased("imports", "c.due_at IS NOT NULL")
TOKENS: Final = Leased("connections", "c.token_owner IS NOT NULL", "token_")
"""Refresh tokens that are being redeemed, by one process at a time."""
READINGS: Final = Leased("connections", "c.reading_owner IS NOT NULL", "reading_")
"""Customers lists that are being read, by one worker at a time."""


class LostClaim(Exception):
    """Somebody else has claimed the row, or it was deleted: results of the work must not be written."""


class Claimed(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def owner(self) -> UUID: ...


class RowClaim(NamedTuple):
    """A claim without the rest of its row."""

    id: UUID
    owner: UUID


async def renew(tx: PartnerTx, leased: Leased, claim: Claimed, until: datetime) -> bool:
    """Extends the claim. False if it has been lost."""
    return await _set(tx, leased, claim, f"{leased.until} = :until", until=until)


async def give_up(tx: PartnerTx, leased: Leased, claim: Claimed) -> bool:
    """Ends the claim without changing anything else. False if it had been lost."""
    return await _set(tx, leased, claim, leased.given_up)


async def _set(tx: PartnerTx, leased: Leased, claim: Claimed, values: str, **given: datetime) -> bool:
    """Updates the row. False, and nothing is changed, if the owner has changed."""
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
    """Shortens leases that are longer than possible, because a wrong clock wrote them; returns how many."""
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

    The owner stays, as after an expired lease: until another worker claims the row, the worker may still
    finish. Locked rows are skipped: a worker is using them, or a frozen worker's transaction holds them.
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
