"""`/metrics` for Prometheus, without a key: for the networks of a setting, and never through a proxy."""

from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI, Request, Response

from app.api.contract.problems import problem
from app.api.http.peers import Networks, is_within, networks_of, peer_of
from app.kernel import metrics
from app.services.operations.figures import Gauge

PATH: Final = "/metrics"
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers of proxies. Through a proxy on this machine, every caller would seem to be local."""


def install(app: FastAPI, allowed: Iterable[str]) -> None:
    networks = networks_of(allowed)

    async def show_metrics(request: Request) -> Response:
        if not _may_read(request, networks):
            detail = "Prometheus reads this from a network of REGISTRAR_METRICS_ALLOWED_NETWORKS, directly."
            return problem(request, "metrics_not_open", detail, 403)
        await _gauge(app).read()
        body, content_type = metrics.page(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    # Not part of the API: it is for operators, and needs no key.
    app.add_route(PATH, show_metrics, methods=["GET"], include_in_schema=False)


def _gauge(app: FastAPI) -> Gauge:
    """The metrics of the process's current runtime; tests replace it."""
    gauge = getattr(app.state, "gauge", None)
    if not isinstance(gauge, Gauge) or gauge.runtime is not app.state.runtime:
        gauge = app.state.gauge = Gauge(app.state.runtime)
    return gauge


def _may_read(request: Request, networks: Networks) -> bool:
    """Goes by the connection's own peer address. What a proxy says about the client does not count here."""
    peer = peer_of(request.scope)
    if peer is None or any(name in request.headers for name in FORWARDED):
        return False
    return is_within(peer, networks)
