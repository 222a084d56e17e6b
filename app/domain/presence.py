"""Workers as they see each other: whose a claim is, and when one may call another one dead.

The fencing token of a claim begins with the name of the worker that made it. So the claims of a dead
worker are found by the tokens that are there anyway, and those of a release that named nobody by none.
Who is silent is judged only by a worker that has been heard itself all the time: after a moment
without the database everybody's last heartbeat is old, and nobody is dead (ADR 0020).
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

NAME_BYTES = 8
"""Bytes of a token's sixteen that name the worker; the others differ from claim to claim."""


def claim_token(worker_id: str, chance: UUID) -> UUID:
    """The owner of one claim of this worker; `chance` is a random UUID."""
    return UUID(bytes=_name(worker_id) + chance.bytes[NAME_BYTES:])


def claim_tokens(worker_id: str) -> tuple[UUID, UUID]:
    """The first and the last of all tokens this worker's claims can have."""
    rest = 16 - NAME_BYTES
    return UUID(bytes=_name(worker_id) + b"\x00" * rest), UUID(bytes=_name(worker_id) + b"\xff" * rest)


def _name(worker_id: str) -> bytes:
    return hashlib.sha256(worker_id.encode()).digest()[:NAME_BYTES]


@dataclass
class Presence:
    """A worker's own heartbeats that reached the database."""

    worker_id: str
    silence: timedelta
    """How long a worker may be silent before it counts as dead."""
    _since: datetime | None = field(default=None, init=False)
    """The first of those that have followed each other without a gap."""
    _last: datetime | None = field(default=None, init=False)

    def note(self, now: datetime) -> None:
        """One has been written."""
        if self._last is None or not timedelta() <= now - self._last <= self._gap:
            self._since = now
        self._last = now

    def may_judge(self, now: datetime) -> bool:
        """Whether it has been heard for as long as another one would have to be silent: who lives has had
        as much time to be heard since the database, or the judge itself, was last away."""
        if self._since is None or self._last is None:
            return False
        return now - self._since >= self.silence and now - self._last <= self._gap

    @property
    def _gap(self) -> timedelta:
        return self.silence / 2
