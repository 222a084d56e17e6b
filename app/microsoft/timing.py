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


def operation_of(method: str, path: str) -> str:
    """The operation of a call to Partner Center, derived from its path without any id."""
    posts = method == "POST"
    match path.partition("?")[0].strip("/").lower().split("/"):
        case [_, "customers"]:
            return "list_customers"
        case [_, "customers", "relationshiprequests"]:
            return "consent_link"
        case [_, "customers", _, "devicebatches"]:
            return "create_batch" if posts else "list_batches"
        case [_, "customers", _, "devicebatches", _, "devices"]:
            return "append_devices" if posts else "list_devices"
        case [_, "customers", _, "batchjobstatus", _]:
            return "job_status"
        case _:
            return metrics.OTHER
