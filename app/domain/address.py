"""The addresses that a webhook may call, and why the others are refused.

A partner writes a webhook's URL, and Registrar calls it from inside the operator's network. So private,
loopback, link-local and metadata addresses are refused, however they are written. The table is pure: it can
be compared with the IANA registries and tested without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_HOST_NAME = re.compile(r"(?=.{1,253}\.?$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?")


def _table(rows: Mapping[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(network), meaning) for network, meaning in rows.items())


# Our own table, because ipaddress.is_global differs between Python's patch releases.
# Source: IANA special-purpose address registries. The first match decides, and gives the word.
_SPECIAL = _table(
    {
        "0.0.0.0/8": "an unspecified address",
        "10.0.0.0/8": "a private address",
        "100.64.0.0/10": "a carrier-grade NAT address",
        "127.0.0.0/8": "a loopback address",
        "169.254.0.0/16": "a link-local address",
        "172.16.0.0/12": "a private address",
        "192.0.0.0/24": "a reserved address",
        "192.0.2.0/24": "a documentation address",
        "192.88.99.0/24": "a 6to4 relay address",
        "192.168.0.0/16": "a private address",
        "198.18.0.0/15": "a benchmarking address",
        "198.51.100.0/24": "a documentation address",
        "203.0.113.0/24": "a documentation address",
        "224.0.0.0/4": "a multicast address",
        "240.0.0.0/4": "a reserved address",
        "::/128": "an unspecified address",
        "::1/128": "a loopback address",
        "::ffff:0:0/96": "an IPv4 address in IPv6 form",
        "2001::/23": "a reserved or tunnelled (Teredo) address",
        "2001:db8::/32": "a documentation address",
        "2002::/16": "a tunnelled (6to4) address",
        "3fff::/20": "a documentation address",
        "fc00::/7": "a private address",
        "fe80::/10": "a link-local address",
        "fec0::/10": "a private address",
        "ff00::/8": "a multicast address",
    }
)
# These hand out the machine's own cloud credentials, so no allow-list opens them. Azure's is a public
# address, so checking for private addresses is not enough.
_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Azure, Google, DigitalOcean, OpenStack
            "169.254.170.2",  # AWS ECS task roles
            "169.254.170.23",  # AWS EKS pod identity
            "168.63.129.16",  # Azure host agent
            "100.100.100.200",  # Alibaba Cloud
            "192.0.0.192",  # Oracle Cloud
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS pod identity
            "fd20:ce::254",  # Google
        ),
    )
)
# No operator means to open these: the machine itself, its link, and other spellings of such addresses.
_INWARD = _table(
    {
        "0.0.0.0/8": "addresses of the machine itself",
        "127.0.0.0/8": "loopback addresses of the machine itself",
        "169.254.0.0/16": "link-local addresses, where clouds give out credentials",
        "224.0.0.0/3": "multicast and reserved addresses",
        "::/127": "loopback addresses of the machine itself",
        "::ffff:0:0/96": "IPv4 addresses in IPv6 form",
        "64:ff9b::/96": "IPv4 addresses in IPv6 form",
        "2001::/32": "tunnelled (Teredo) addresses",
        "2002::/16": "tunnelled (6to4) addresses",
        "fe80::/10": "link-local addresses",
        "ff00::/8": "multicast addresses",
    }
)
_WIDE = {4: 16, 6: 48}
"""A shorter prefix usually covers more than one site."""
_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


class UrlRefused(ValueError):
    """This URL cannot be used for a webhook endpoint. The message says what to change."""


class AddressRefused(UrlRefused):
    """The host is, or resolves to, an address that webhooks may not reach."""


_ALLOWANCE = re.compile(
    r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<bare>[^\[\]]+?))(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
)
LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Allowance:
    """A network that webhooks may call although it is not public, with the allowed ports."""

    network: Network
    first_port: int = 1
    last_port: int = LAST_PORT

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """Reads `10.1.0.0/16`, `10.1.0.0/16:8443`, `10.1.0.0/16:8000-8099`, `fd00::/8` and `[fd00::/8]:8443`.

        Raises:
            ValueError: with a message for the person who wrote the text.
        """
        text = text.strip()
        network, first, last = text, None, None
        try:
            plain = ip_network(text)
        except ValueError:
            match = _ALLOWANCE.fullmatch(text)
            if match is None or (match["bare"] and ":" in match["bare"]):
                raise ValueError(_not_an_allowance(text)) from None
            network, first, last = match["bracketed"] or match["bare"], match["first"], match["last"]
            try:
                plain = ip_network(network)
            except ValueError as error:
                raise ValueError(f"{_not_an_allowance(text)} {error}.") from None
        if plain.num_addresses == 1 and plain.network_address in _METADATA:
            raise ValueError(
                f"'{text}' gives out the machine's own cloud credentials: no webhook goes there."
            )
        low = int(first or 1)
        high = int(last or first or LAST_PORT)
        if not 1 <= low <= high <= LAST_PORT:
            raise ValueError(f"'{text}': ports are numbers from 1 to {LAST_PORT}, the lower one first.")
        return cls(plain, low, high)

    @property
    def inward(self) -> str | None:
        """The part of this network that no webhook may ever reach; None if there is none."""
        network = self.network
        for closed, meaning in _INWARD:
            if network.version == closed.version and network.overlaps(closed):
                return f"{meaning} ({closed})"
        return None

    @property
    def is_wide(self) -> bool:
        return self.network.prefixlen < _WIDE[self.network.version]

    def opens(self, address: Address, port: int) -> bool:
        return self.first_port <= port <= self.last_port and address in self.network

    def __str__(self) -> str:
        if (self.first_port, self.last_port) == (1, LAST_PORT):
            return str(self.network)
        host = f"[{self.network}]" if self.network.version == 6 else str(self.network)
        ports = (
            str(self.first_port)
            if self.first_port == self.last_port
            else f"{self.first_port}-{self.last_port}"
        )
        return f"{host}:{ports}"


def for_one_partner(text: str) -> Allowance:
    """Parses a network that is opened to one partner. Raises ValueError with a message for the operator."""
    found = Allowance.parse(text)
    if found.inward is not None:
        raise ValueError(
            f"{found} has {found.inward} in it, which no webhook may reach. Name a smaller network."
        )
    return found


def _not_an_allowance(text: str) -> str:
    return (
        f"'{text}' is no network. Write it as 10.1.0.0/16, with a port as 10.1.0.0/16:8443, or for IPv6 as "
        "[fd00::/8]:8443."
    )


def refusal(address: Address, port: int, allowed: Iterable[Allowance] = ()) -> str | None:
    """The reason why webhooks may not reach `address` at this port ("a private address"); None if they may.

    On IPv6-only networks DNS64 turns every IPv4 host into a NAT64 address, so that form is checked by its
    IPv4 address. The other transition forms have no legitimate use in a webhook and are refused.
    """
    inner = IPv4Address(int(address) & 0xFFFF_FFFF) if address in _NAT64 else None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if not _METADATA.isdisjoint({address, inner, mapped}):
        return "a cloud metadata address"
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "an address with a zone"
    allowed = tuple(allowed)
    if any(allowance.opens(address, port) for allowance in allowed):
        return None
    if inner is not None:
        return refusal(inner, port, allowed)
    for network, meaning in _SPECIAL:
        if address in network:
            return meaning
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "a reserved address"
    return None


def check_host(host: str, port: int, allowed: Iterable[Allowance]) -> None:
    """Raises UrlRefused if no webhook may go to this host (ASCII, without brackets).

    Does not resolve names.
    """
    if not host:
        raise UrlRefused("The URL has no host name.")
    try:
        address = ip_address(host.rstrip("."))
    except ValueError:
        pass
    else:
        if (meaning := refusal(address, port, allowed)) is not None:
            raise AddressRefused(explain("is", meaning))
        return
    if _HOST_NAME.fullmatch(host) is None:
        raise UrlRefused("The URL's host name is not valid.")
    # Resolvers read 127.1, 2130706433 and 0x7f.1 as 127.0.0.1. A public name never ends in a number.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rstrip(".").rpartition(".")[2]):
        raise UrlRefused("The URL's host is a number; write a host name, or an IPv4 address as 192.0.2.1.")


def explain(verb: str, meaning: str) -> str:
    """The message for the URL's owner; `verb` is "is" or "resolves to"."""
    return (
        f"The URL's host {verb} {meaning}, which webhooks may not reach. Use a public address, or ask the "
        "operator to allow the network and port for you (`registrar partner networks`)."
    )
