"""Worker liveness: when one worker may call another one dead.

Only a worker that has been heard all the time itself judges others: after a database outage every worker's
last heartbeat is old, although none has died (ADR 0020).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass
class Presence:
    """The times of a worker's own heartbeats that reached the database."""

    worker_id: str
    silence: timedelta
    """How long a worker may be silent before it counts as dead."""
    _since: datetime | None = field(default=None, init=False)
    """The first heartbeat of the present series without a gap."""
    _last: datetime | None = field(default=None, init=False)

    def note(self, now: datetime) -> None:
        """Notes a heartbeat that was written."""
        if self._last is None or not timedelta() <= now - self._last <= self._gap:
            self._since = now
        self._last = now

    def may_judge(self, now: datetime) -> bool:
        """Whether this worker has been heard for as long as others must be silent to count as dead. Then
        living workers have had the same time to be heard since the last outage."""
        if self._since is None or self._last is None:
            return False
        return now - self._since >= self.silence and now - self._last <= self._gap

    @property
    def _gap(self) -> timedelta:
        return self.silence / 2
