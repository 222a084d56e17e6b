"""Worker liveness: when one worker may call another one dead.

Who is silent is judged only by a worker that has been heard itself all the time: after a moment
without the database everybody's last heartbeat is old, and nobody is dead (ADR 0020).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta


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
