"""The page for Prometheus: its names, its buckets, and labels that nothing from outside can widen."""

from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.domain.budget import Breaker
from app.domain.catalogue import CATALOGUE
from app.kernel import metrics
from app.kernel.metrics import CALL_BUCKETS, METHODS, REQUEST_BUCKETS, Figures, LeaseEnd


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    yield
    metrics.observe(Figures(database=False))


def families() -> dict[str, Metric]:
    body, content_type = metrics.page()
    assert content_type.startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def value(name: str, **labels: str) -> float:
    """The value of one sample; 0 if it has never been counted."""
    for family in families().values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def labels_of(name: str, label: str) -> set[str]:
    return {
        sample.labels[label]
        for family in families().values()
        for sample in family.samples
        if sample.name == name
    }


def test_requests_are_counted_by_route_method_and_status() -> None:
    labels = {"method": "GET", "route": "/v1/orders/{order_id}", "status": "200"}
    before = value("registrar_http_requests_total", **labels)
    metrics.request_answered("GET", "/v1/orders/{order_id}", 200, 0.02)
    assert value("registrar_http_requests_total", **labels) == before + 1


def test_methods_routes_and_statuses_of_nobodys_invention_become_labels() -> None:
    for number in range(50):
        metrics.request_answered(f"SPY{number}", None, 404, 0.001)
    metrics.request_answered("GET", None, 0, 0.001)
    assert labels_of("registrar_http_requests_total", "method") <= METHODS | {"other"}
    assert "unmatched" in labels_of("registrar_http_requests_total", "route")
    assert labels_of("registrar_http_requests_total", "status") <= {
        "none",
        *(str(status) for status in range(100, 600)),
    }


@pytest.mark.parametrize(
    ("name", "buckets", "labels"),
    [
        (
            "registrar_http_request_duration_seconds",
            REQUEST_BUCKETS,
            {"method": "GET", "route": "/v1/me"},
        ),
        ("registrar_upstream_call_duration_seconds", CALL_BUCKETS, {"operation": "job_status"}),
    ],
)
def test_histograms_have_the_buckets_that_we_chose(
    name: str, buckets: tuple[float, ...], labels: dict[str, str]
) -> None:
    metrics.request_answered("GET", "/v1/me", 200, 0.02)
    metrics.call_made("job_status", 200, 0.3)
    found = [
        float(sample.labels["le"])
        for sample in families()[name].samples
        if sample.name == f"{name}_bucket" and labels.items() <= sample.labels.items()
    ]
    assert found == [*buckets, float("inf")]


def test_calls_are_counted_by_operation_and_status_and_lost_ones_by_whether_they_left() -> None:
    for status in (202, "no_answer", "spied"):
        metrics.call_made("create_batch", status, 0.1)
    assert value("registrar_upstream_calls_total", operation="create_batch", status="no_answer") >= 1
    assert value("registrar_upstream_calls_total", operation="create_batch", status="other") >= 1


def test_outcomes_are_counted_by_code_and_unknown_ones_are_other() -> None:
    before = value("registrar_outcomes_total", state="failed", code="other")
    metrics.outcomes_recorded(
        [("failed", f"ZtdUnknown{number}") for number in range(30)] + [("registered", None)]
    )
    assert value("registrar_outcomes_total", state="failed", code="other") == before + 30
    assert value("registrar_outcomes_total", state="registered", code="none") >= 1
    assert labels_of("registrar_outcomes_total", "code") <= {*CATALOGUE, "other", "none"}


def test_codes_of_trouble_are_folded_too() -> None:
    troubles = {"credential_refused": 2, "code_of_tomorrow": 1, "another": 1}
    metrics.observe(Figures(database=True, troubles=troubles))
    assert value("registrar_connections_in_trouble", code="credential_refused") == 2
    assert value("registrar_connections_in_trouble", code="other") == 2


def test_what_can_be_alarmed_on_is_there_before_it_happens() -> None:
    assert labels_of("registrar_leases_ended_total", "reason") == {reason.value for reason in LeaseEnd}
    assert labels_of("registrar_breaker_changes_total", "change") == {"opened", "closed"}


def test_without_a_database_the_page_says_so_and_shows_no_old_figures() -> None:
    metrics.observe(Figures(database=True, workers=3, breakers={Breaker.OPEN.value: 1}))
    assert value("registrar_workers_alive") == 3
    metrics.observe(Figures(database=False))
    found = families()
    assert found["registrar_database_up"].samples[0].value == 0
    assert "registrar_workers_alive" not in found
    assert "registrar_breakers" not in found
    assert "registrar_work_waiting" not in found


def test_prometheus_gets_the_format_that_it_asks_for() -> None:
    metrics.call_made("job_status", 200, 0.3)
    body, content_type = metrics.page("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
