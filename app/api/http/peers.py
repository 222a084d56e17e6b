"""Client addresses, also behind a proxy, and what counts as one client."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from starlette.types import Scope

from app.domain.address import Address, Network

Networks = tuple[Network, ...]

FORWARDED_FOR: Final = b"x-forwarded-for"
MAX_HOPS: Final = 20
"""Addresses of `X-Forwarded-For` that are read, from the right."""


def networks_of(texts: Iterable[str]) -> Networks:
    return tuple(ip_network(text) for text in texts)


def is_within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def address_of(text: str) -> Address | None:
    """Parses an IPv4 or IPv6 address, with or without a port. None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))  # without a zone, which the sender can choose
    return address


def peer_of(scope: Scope) -> Address | None:
    """The other end of the connection itself. None for a Unix socket."""
    client = scope.get("client")
    return address_of(client[0]) if client else None


def client_of(scope: Scope, trusted: Networks) -> Address | None:
    """The client's address. `X-Forwarded-For` is read only where the connection comes from a trusted proxy.

    Each proxy appends the address it was called from, so the list is reliable from the right up to the first
    address that is not a trusted proxy. Anything to its left, or to the left of a value that is not an
    address, may be invented by the client.
    """
    client = peer_of(scope)
    if client is None or not is_within(client, trusted):
        return client
    for hop in reversed(_hops(scope["headers"])):
        address = address_of(hop)
        if address is None:
            break
        client = address
        if not is_within(address, trusted):
            break
    return client


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Sequence[str]:
    given = [value.decode("latin-1") for name, value in headers if name == FORWARDED_FOR]
    return ",".join(given).rsplit(",", MAX_HOPS)[-MAX_HOPS:] if given else ()


def client_name(address: Address) -> str:
    """The name of what counts as one client: an IPv4 address, or the IPv6 /64 that one subscriber has."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((int(address) >> 64 << 64, 64)))
