"""`/metrics` for Prometheus, without a key: for the networks of a setting, and never through a proxy."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from fastapi import FastAPI, Request, Response

from app import metrics
from app.api.problems import problem
from app.services.figures import Gauge

PATH: Final = "/metrics"
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers of proxies. One on this machine would otherwise lend its address to the whole world."""


def install(app: FastAPI, allowed: Iterable[str]) -> None:
    networks = tuple(ip_network(network) for network in allowed)

    async def show_metrics(request: Request) -> Response:
        if not _may_read(request, networks):
            detail = "Prometheus reads this from a network of REGISTRAR_METRICS_ALLOWED_NETWORKS, directly."
            return problem(request, "metrics_not_open", detail, 403)
        await _gauge(app).read()
        body, content_type = metrics.page(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    # No part of the API: it is for operators, and needs no key.
    app.add_route(PATH, show_metrics, methods=["GET"], include_in_schema=False)


def _gauge(app: FastAPI) -> Gauge:
    """Of the runtime that the process has now; tests exchange it."""
    gauge = getattr(app.state, "gauge", None)
    if not isinstance(gauge, Gauge) or gauge.runtime is not app.state.runtime:
        gauge = app.state.gauge = Gauge(app.state.runtime)
    return gauge


def _may_read(request: Request, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
