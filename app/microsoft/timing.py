"""Durations and outcomes of calls to Microsoft by operation, for the metrics."""

import time
from dataclasses import dataclass, field

from app.kernel import metrics


@dataclass
class CallTiming:
    """Times one call on the wire, from its start to the first report of its end."""

    operation: str
    _begun: float = field(default_factory=time.monotonic)

    def answered(self, status: int) -> None:
        metrics.call_made(self.operation, status, self._took())

    def failed(self, *, sent: bool) -> None:
        """`sent`: it may have left this machine."""
        metrics.call_made(self.operation, "no_answer" if sent else "not_sent", self._took())

    def _took(self) -> float:
        return time.monotonic() - self._begun
