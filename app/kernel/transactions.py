"""Transactions: whose rows they see, who acts in them, and what follows their commit.

A query takes a `PartnerTx` or a `SystemTx` first. So a query for one partner's rows cannot run without a
partner, and mypy refuses to run one over all partners by mistake: the types differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.actor import Actor
from app.domain.ids import PartnerId
from app.domain.quota import Quota
from app.kernel.wakeups import WakeKind, WakeUp


@dataclass(kw_only=True)
class Tx:
    """One database transaction. Only `Runtime` opens one, as a `PartnerTx` or a `SystemTx`."""

    session: AsyncConnection
    now: datetime
    """When it began."""
    quotas: Mapping[Quota, int]
    """Each quota's limit for a partner for whom the operator has set none."""
    wake_ups: list[WakeUp] = field(default_factory=list)
    """Sent after the commit."""
    committed: list[Callable[[], None]] = field(default_factory=list)
    """Called after the commit: what is counted must have happened."""

    def wake(self, kind: WakeKind, *, lanes: int = 1, at: datetime | None = None) -> None:
        for index, known in enumerate(self.wake_ups):
            if known.kind is kind and known.at == at:
                self.wake_ups[index] = replace(known, lanes=max(known.lanes, lanes))
                return
        self.wake_ups.append(WakeUp(kind, lanes, at))


@dataclass(kw_only=True)
class PartnerTx(Tx):
    """A transaction on one partner's rows: row-level security shows no others."""

    partner_id: PartnerId
    actor: Actor


@dataclass(kw_only=True)
class SystemTx(Tx):
    """A transaction over all partners: for claims, sweeps, authentication and the operator."""
