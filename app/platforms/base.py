"""What a platform is: its capabilities as data, and the few calls the services make of it.

A platform is one file in this package that defines `PLATFORM: Platform`, found by `discover()`.
A platform that Registrar can drive by API sets `driver`, a factory of a `Driver`; the others are
data only (their orders are files for a person). Drivers hold no state of a partner: who calls is
in the `Access` that every method takes. They raise the failures of `app.domain.upstream` and
nothing else.
"""

import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from app.domain.batch import SentRow
from app.domain.identity import IdentityKind
from app.domain.registration import UpstreamRow
from app.microsoft.http import Gate, Microsoft
from app.settings import Settings


class Profiles(StrEnum):
    """Whether the platform can assign Autopilot profiles."""

    NONE = "none"
    LIMITED = "limited"
    RECOMMENDED = "recommended"
    RETIRING = "retiring"


class Channel(StrEnum):
    API = "api"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Capabilities:
    max_devices: int
    """Devices in one upload at most."""
    identities: frozenset[IdentityKind]
    profiles: Profiles
    channel: Channel
    retired: bool = False


class TokenKind(StrEnum):
    APP = "app"
    DELEGATED = "delegated"  # App+User, by refresh token


class Access(Protocol):
    """One connection's way to Microsoft, for one unit of work."""

    @property
    def connection_id(self) -> UUID: ...
    @property
    def gate(self) -> Gate:
        """The connection's budget of calls, shared by all workers."""
        ...

    @property
    def entra_tenant_id(self) -> UUID: ...
    @property
    def partner_role(self) -> str: ...
    @property
    def has_delegated(self) -> bool:
        """Whether a refresh token is there, so that App+User calls are possible."""
        ...

    async def token(self, kind: TokenKind) -> str:
        """A valid access token. Raises ConnectionTrouble, Unreachable or OutcomeUnknown(login)."""
        ...

    def forget_token(self, kind: TokenKind) -> None:
        """Microsoft has refused the token: the next `token` fetches a fresh one."""
        ...


@dataclass(frozen=True, slots=True)
class CallIds:
    """MS-RequestId and MS-CorrelationId of one call, written to the database before it is made."""

    request_id: UUID
    correlation_id: UUID


class OutgoingDevice(NamedTuple):
    """One device as it is sent: exactly one legal identity, the other fields None.

    A tuple, as a worker makes tens of thousands a second.
    """

    serial_number: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    product_key: str | None = None
    hash_data: bytes | None = None
    """The hash without its zero fill (`HardwareHash.data`)."""

    def as_sent(self) -> SentRow:
        return SentRow(self.serial_number, self.product_key)


@dataclass(frozen=True, slots=True)
class Submission:
    customer_tenant_id: UUID
    group_tag: str
    create: bool
    """True: make the group tag with these devices; False: add to the existing one."""
    devices: Sequence[OutgoingDevice]


@dataclass(frozen=True, slots=True)
class Accepted:
    tracking_id: str | None
    """None: accepted, but Microsoft named no job; the listing has to tell the outcome."""


@dataclass(frozen=True, slots=True)
class Progress:
    finished: bool
    rows: Sequence[UpstreamRow]
    """As Microsoft lists them; empty while it says nothing yet."""


@dataclass(frozen=True, slots=True)
class ListedDevice:
    device_id: str | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None


@dataclass(frozen=True, slots=True)
class ListedCustomer:
    tenant_id: UUID
    name: str
    domain: str | None


class Driver(Protocol):
    """The calls that registering needs. Every one may raise the failures of app.domain.upstream."""

    async def check(self, access: Access) -> Sequence[str]:
        """Proves tokens and reach with read-only calls. Returns what was proved, in words."""
        ...

    def customers(self, access: Access) -> AsyncIterator[ListedCustomer]:
        """Every customer with a reseller relationship: the evidence of consent."""
        ...

    async def consent_link(self, access: Access) -> str:
        """The link a customer's administrator opens to accept the relationship."""
        ...

    async def find_group_tag(self, access: Access, customer_tenant_id: UUID, group_tag: str) -> str | None:
        """The platform's spelling of this tag for this customer, compared without case; None if absent."""
        ...

    async def submit(self, access: Access, ids: CallIds, submission: Submission) -> Accepted: ...

    async def poll(self, access: Access, customer_tenant_id: UUID, tracking_id: str) -> Progress:
        """The job's state. Raises Refused where Microsoft does not know the job."""
        ...

    def listed(
        self, access: Access, customer_tenant_id: UUID, group_tag: str, *, max_pages: int
    ) -> AsyncIterator[ListedDevice]:
        """The devices Microsoft holds under this tag, 100 a page, at most `max_pages` pages."""
        ...


@dataclass(frozen=True, slots=True)
class Platform:
    name: str
    title: str
    capabilities: Capabilities
    note: str
    """One sentence for `GET /v1/platforms`."""
    barred_roles: frozenset[str] = frozenset()
    """Partner roles to which Microsoft does not offer this platform's API."""
    driver: Callable[[Settings, Microsoft], Driver] | None = None

    @property
    def automated(self) -> bool:
        return self.driver is not None


def discover() -> dict[str, Platform]:
    """Every platform of this package by name. A file without a platform is a start-up failure."""
    package = importlib.import_module("app.platforms")
    found: dict[str, Platform] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
        if module == "base":
            continue
        platform = getattr(importlib.import_module(f"app.platforms.{module}"), "PLATFORM", None)
        if not isinstance(platform, Platform):
            raise RuntimeError(f"app/platforms/{module}.py defines no PLATFORM")
        if platform.name in found:
            raise RuntimeError(f"two platforms are called {platform.name}")
        found[platform.name] = platform
    return found
