"""Counters and histograms of this process, for Prometheus. The only module that imports OpenTelemetry.

Labels are bounded: values of our own tables, route templates and status codes. No partner, id, serial number
or path of a call becomes one, and a code that is not in the catalogue is `other`. Counters are per process;
gauges of what waits in the database are the same at every process.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.exposition import choose_encoder

from app import __version__
from app.domain.catalogue import CATALOGUE
from app.domain.quota import Quota
from app.domain.registration import RegistrationState

OTHER: Final = "other"
NONE: Final = "none"

CALL_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds of a call to Microsoft; the last is the default time limit of a whole call."""
REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds of a request to the API; an order of 10,000 devices takes about two."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
LOST: Final = frozenset({"not_sent", "no_answer"})
"""Labels in place of a status for a call to Microsoft without an answer."""
_STATES: Final = frozenset(state.value for state in RegistrationState)
UNMATCHED: Final = "unmatched"
"""The route label of a request that matches no route."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work of one kind in one state."""

    kind: str
    state: str
    count: int
    oldest_s: float
    """Age in seconds of the oldest."""
    overdue_s: float
    """Seconds for which the longest overdue has been due; 0 if none is."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of the database and Redis, for all processes together."""

    database: bool
    waiting: Sequence[Waiting] = ()
    workers: int = 0
    troubles: Mapping[str, int] = field(default_factory=dict)
    """Connections in trouble, by code."""
    breakers: Mapping[str, int] = field(default_factory=dict)
    """Connections by their breaker's state; empty if Redis does not answer."""
    endpoints: Mapping[str, int] = field(default_factory=dict)
    """Webhook endpoints by state."""


_registry = CollectorRegistry(auto_describe=False)
_reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=_registry)
_meter = MeterProvider(metric_readers=[_reader], shutdown_on_exit=False).get_meter("registrar", __version__)
ProcessCollector(registry=_registry)

_counted_here: list[tuple[str, int, dict[str, str]]] | None = None
"""Counts for another process to take over; None if this process keeps its own."""


class _Counter:
    """A counter of this process, or of the one that takes over its counts."""

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self._counter = _meter.create_counter(name, description=description)
        _counters[name] = self

    def add(self, count: int, labels: dict[str, str]) -> None:
        if _counted_here is None:
            self._counter.add(count, labels)
        else:
            _counted_here.append((self.name, count, labels))


_counters: dict[str, _Counter] = {}


def count_elsewhere() -> None:
    """Keeps counts from now on for another process, which gets them from `take_counted`."""
    global _counted_here
    _counted_here = []


def take_counted() -> list[tuple[str, int, dict[str, str]]]:
    """Returns the counts since the last call; empty if this process keeps its own."""
    global _counted_here
    if not _counted_here:
        return []
    counted, _counted_here = _counted_here, []
    return counted


def add_counted(counted: Iterable[tuple[str, int, dict[str, str]]]) -> None:
    """Adds what `take_counted` returned in another process."""
    for name, count, labels in counted:
        _counters[name].add(count, labels)


_requests = _meter.create_counter("registrar_http_requests", description="Requests answered by the API.")
_request_seconds = _meter.create_histogram(
    "registrar_http_request_duration",
    unit="s",
    description="Seconds until the API had answered a request.",
    explicit_bucket_boundaries_advisory=REQUEST_BUCKETS,
)
_connections = _meter.create_up_down_counter(
    "registrar_http_connections", description="Connections to the API that are open."
)
_cuts = _meter.create_counter(
    "registrar_http_connections_cut", description="Connections to the API that were refused or cut."
)
_wrong_keys = _meter.create_counter(
    "registrar_wrong_keys", description="Calls with an API key that was refused."
)
_calls = _meter.create_counter("registrar_upstream_calls", description="Calls made to Microsoft.")
_call_seconds = _meter.create_histogram(
    "registrar_upstream_call_duration",
    unit="s",
    description="Seconds a call to Microsoft took.",
    explicit_bucket_boundaries_advisory=CALL_BUCKETS,
)
_outcomes = _meter.create_counter("registrar_outcomes", description="Devices whose outcome was recorded.")
_devices = _Counter("registrar_devices_accepted", "Devices of orders taken.")
_breakers = _meter.create_counter(
    "registrar_breaker_changes", description="Breakers that opened or closed between calls of a connection."
)
_deliveries = _meter.create_counter(
    "registrar_delivery_attempts", description="Attempts to deliver a webhook."
)
_imports = _meter.create_counter("registrar_imports", description="Imports that reached a state.")
_leases = _meter.create_counter(
    "registrar_leases_ended", description="Claims that ended without their owner giving them back."
)
_quota_refusals = _Counter(
    "registrar_quota_refusals", "What was refused because a partner's quota was used up, by quota."
)


# --- counting ---------------------------------------------------------------------------------------


def request_answered(method: str, route: str | None, status: int, seconds: float) -> None:
    """`route` is the template, such as `/v1/orders/{order_id}`; None if the path matched no route."""
    labels = {"method": _one_of(method, METHODS), "route": route or UNMATCHED}
    _requests.add(1, {**labels, "status": _status(status)})
    _request_seconds.record(seconds, labels)


def connections_open(change: int) -> None:
    _connections.add(change)


def connection_cut(reason: StrEnum) -> None:
    _cuts.add(1, {"reason": reason.value})


def key_refused(reason: StrEnum) -> None:
    _wrong_keys.add(1, {"reason": reason.value})


def call_made(operation: str, status: int | str, seconds: float) -> None:
    """Counts a call to Microsoft: its status, or `not_sent` or `no_answer` without one. `operation` is one of
    our own few names for calls."""
    _calls.add(1, {"operation": operation, "status": _status(status)})
    _call_seconds.record(seconds, {"operation": operation})


def outcomes_recorded(outcomes: Iterable[tuple[str, str | None]]) -> None:
    """Counts devices by state and code."""
    counts: dict[tuple[str, str], int] = {}
    for state, code in outcomes:
        label = (_one_of(state, _STATES), code_label(code))
        counts[label] = counts.get(label, 0) + 1
    for (state, code), count in counts.items():
        _outcomes.add(count, {"state": state, "code": code})


def devices_accepted(*, valid: int, invalid: int) -> None:
    """Counts the devices of an accepted order; the invalid ones are never sent."""
    for validity, count in (("valid", valid), ("invalid", invalid)):
        if count:
            _devices.add(count, {"validity": validity})


def breaker_changed(*, opened: bool) -> None:
    _breakers.add(1, {"change": "opened" if opened else "closed"})


def delivery_attempted(kind: StrEnum) -> None:
    _deliveries.add(1, {"kind": kind.value})


def import_reached(state: StrEnum) -> None:
    _imports.add(1, {"state": state.value})


class LeaseEnd(StrEnum):
    WORKER_SILENT = "worker_silent"  # the sweep ended the claims of a worker without heartbeats
    CLAIM_LOST = "claim_lost"  # it had expired, and another worker had claimed the work


def leases_ended(reason: LeaseEnd, count: int = 1) -> None:
    if count:
        _leases.add(count, {"reason": reason.value})


def quota_refused(quota: Quota) -> None:
    _quota_refusals.add(1, {"quota": quota.value})


# From the start, so that Prometheus sees the first refusal as an increase.
for _quota in Quota:
    _quota_refusals.add(0, {"quota": _quota.value})
for _reason in LeaseEnd:
    _leases.add(0, {"reason": _reason.value})
for _change in ("opened", "closed"):
    _breakers.add(0, {"change": _change})


def code_label(code: str | None) -> str:
    if not code:
        return NONE
    return code if code in CATALOGUE else OTHER


def _status(status: int | str) -> str:
    if isinstance(status, int):
        return str(status) if 100 <= status <= 599 else NONE
    return _one_of(status, LOST)


def _one_of(value: str, known: frozenset[str]) -> str:
    return value if value in known else OTHER


# --- gauges, read when Prometheus asks ----------------------------------------------------------------

_figures: Figures | None = None


def observe(figures: Figures) -> None:
    """Sets the gauges of the next page from these figures."""
    global _figures
    _figures = figures


def _gauge(name: str, words: str, read: Callable[[Figures], Iterable[Observation]], unit: str = "") -> None:
    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return read(_figures) if _figures is not None else ()

    _meter.create_observable_gauge(name, callbacks=[callback], unit=unit, description=words)


def _by(label: str, counts: Mapping[str, int]) -> Iterable[Observation]:
    return [Observation(count, {label: value}) for value, count in counts.items()]


def _of_waiting(value: Callable[[Waiting], float]) -> Callable[[Figures], Iterable[Observation]]:
    return lambda figures: [
        Observation(value(work), {"kind": work.kind, "state": work.state}) for work in figures.waiting
    ]


def _troubles(figures: Figures) -> Iterable[Observation]:
    counts: dict[str, int] = {}
    for code, count in figures.troubles.items():
        counts[code_label(code)] = counts.get(code_label(code), 0) + count
    return _by("code", counts)


_gauge("registrar_work_waiting", "Work that is open, by kind and state.", _of_waiting(lambda w: w.count))
_gauge(
    "registrar_work_oldest_age",
    "Seconds since the oldest work of this kind and state was made.",
    _of_waiting(lambda w: w.oldest_s),
    "s",
)
_gauge(
    "registrar_work_overdue",
    "Seconds that work of this kind and state has been due without being taken.",
    _of_waiting(lambda w: w.overdue_s),
    "s",
)
_gauge(
    "registrar_database_up",
    "Whether the database answered this process: 1 or 0.",
    lambda figures: [Observation(int(figures.database))],
)
_gauge(
    "registrar_workers_alive",
    "Workers whose last heartbeat is recent.",
    lambda figures: [Observation(figures.workers)] if figures.database else [],
)
_gauge("registrar_connections_in_trouble", "Connections that need a person, by code.", _troubles)
_gauge(
    "registrar_breakers",
    "Connections by the state of their breaker.",
    lambda figures: _by("state", figures.breakers),
)
_gauge(
    "registrar_webhook_endpoints",
    "Webhook endpoints by state.",
    lambda figures: _by("state", figures.endpoints),
)
_meter.create_observable_gauge(
    "registrar_build_info",
    callbacks=[lambda _: [Observation(1, {"version": __version__})]],
    description="The version of this process.",
)


def watch_intake(pid: Callable[[], int], restarts: Callable[[], int]) -> None:
    """Adds gauges of the intake process: memory, processor time, and restarts."""
    ProcessCollector(namespace="registrar_intake", pid=pid, registry=_registry)
    _meter.create_observable_counter(
        "registrar_intake_restarts",
        callbacks=[lambda _: [Observation(restarts())]],
        description="How often the intake process ended and was started again.",
    )


# --- showing ------------------------------------------------------------------------------------------


def page(accept: str = "") -> tuple[bytes, str]:
    """The page that Prometheus reads, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_registry), content_type


def serve(host: str, port: int) -> Callable[[], None]:
    """Serves the page on a port of its own, from a thread. Returns what stops it. Raises OSError."""
    server, thread = start_http_server(port, addr=host, registry=_registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
