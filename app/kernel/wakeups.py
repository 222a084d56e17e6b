"""Wake-ups: requests to the workers that follow a commit. `app.kernel.queue` sends them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class WakeKind(StrEnum):
    """The names of the worker's functions."""

    BATCHES = "advance_batches"
    DELIVERIES = "deliver_webhooks"
    CONSENT = "read_customers"
    IMPORTS = "advance_imports"


@dataclass(frozen=True, slots=True)
class WakeUp:
    kind: WakeKind
    lanes: int = 1
    """How many workers' lanes may be useful; each is one arq job."""
    at: datetime | None = None
