"""A check that a server can listen on an address, with a sentence that says why it cannot."""

import errno
import socket
from contextlib import closing
from ipaddress import ip_address
from typing import Final

import httpx

from app.cli.outcome import Stop

PATIENCE_S: Final = 2.0
"""Seconds to find out which program has the port."""
FIRST_FREE_TO_ALL: Final = 1024
"""The first port that every user may listen on, usually."""


def require_address(host: str, port: int) -> None:
    """Raises Stop if the API cannot listen there. The server's own message would be less clear, and its exit
    code means something else here."""
    try:
        _try(host, port)
    except OSError as error:
        raise refusal(error, host, port) from None


def is_registrar(host: str, port: int) -> bool:
    """Whether the program that listens there is Registrar's API."""
    url = httpx.URL(scheme="http", host=_reachable(host), port=port, path="/v1/me")
    try:
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            found = client.get(url).json()
    except (httpx.HTTPError, ValueError):
        return False
    # The API's answer to a call without a key.
    return isinstance(found, dict) and found.get("code") == "unauthenticated" and "correlation_id" in found


def _reachable(host: str) -> str:
    """The address at which to reach a server that listens on `host`, which may mean all addresses."""
    try:
        address = ip_address(host)
    except ValueError:
        return host or "localhost"
    return "localhost" if address.is_unspecified else host


def _try(host: str, port: int) -> None:
    """Binds the port as servers do, and closes it again. Raises OSError."""
    flags = socket.AI_PASSIVE
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=flags
    ):
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for quick restarts
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)


def refusal(error: OSError, host: str, port: int) -> Stop:
    if isinstance(error, socket.gaierror):
        return Stop(f"REGISTRAR_API_HOST: no address is known for {host!r}.", _ADDRESSES)
    match error.errno:
        case errno.EADDRINUSE:
            whose = "another Registrar" if is_registrar(host, port) else "another program"
            return Stop(
                f"Port {port} of {host} is taken by {whose}.",
                "Stop that one, or set REGISTRAR_API_PORT to another port.",
            )
        case errno.EACCES | errno.EPERM if port < FIRST_FREE_TO_ALL:
            return Stop(
                f"Port {port} is for the administrator: this user may not listen on it.",
                f"Set REGISTRAR_API_PORT to {FIRST_FREE_TO_ALL} or more; a proxy in front can have {port}.",
            )
        case errno.EADDRNOTAVAIL:
            return Stop(f"REGISTRAR_API_HOST: this machine has no address {host}.", _ADDRESSES)
        case _:
            return Stop(f"The API cannot listen on port {port} of {host}: {error.strerror}.", _ADDRESSES)


_ADDRESSES: Final = (
    "Set it to an address of this machine, to 127.0.0.1 for this machine alone, or to 0.0.0.0 for all of its "
    "addresses."
)
