"""The protocol of a platform: its capabilities as data, and the abilities that it may have.

A platform is a module or package beside this file that defines `PLATFORM: Platform`; `discover()` finds it.
A platform with an API sets `open`, which makes its `Abilities`: each ability is a small protocol, and None if
the platform lacks it. Each protocol says what services do without it. Abilities keep no state of a partner:
every method takes an `Access`, which knows the caller. They raise the failures of `app.domain.upstream` and
nothing else. A platform with a portal where a person uploads a file sets `file`.
"""

import importlib
import os
import pkgutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Protocol, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from app.domain.identity import IdentityKind, OutgoingDevice
from app.domain.portal_file import FileFormat
from app.domain.registration import Meaning, UpstreamRow
from app.domain.upstream import Refused, Said
from app.kernel.environment import PLATFORM_PREFIX, SettingsRefused
from app.kernel.settings import Settings
from app.microsoft.http import Gate, Microsoft


class Profiles(StrEnum):
    """Whether the platform can assign Autopilot profiles."""

    NONE = "none"
    LIMITED = "limited"
    RECOMMENDED = "recommended"
    RETIRING = "retiring"


class Channel(StrEnum):
    API = "api"
    FILE = "file"


class TagUse(StrEnum):
    """What a group tag is on the platform."""

    GROUP = "group"  # a named group, created before devices are added to it
    DEVICE = "device"  # a value of each device
    NONE = "none"  # unknown to the platform: only the order keeps it


@dataclass(frozen=True, slots=True)
class Capabilities:
    max_devices: int
    """The most devices in one call or file."""
    identities: frozenset[IdentityKind]
    profiles: Profiles
    channel: Channel
    group_tags: TagUse
    retired: bool = False

    @property
    def one_spelling(self) -> bool:
        """Whether it takes one spelling of each group tag: it cannot have two groups of one name."""
        return self.group_tags is TagUse.GROUP


# --- access -------------------------------------------------------------------------------------


class TokenKind(StrEnum):
    APP = "app"
    DELEGATED = "delegated"  # App+User, by refresh token


@dataclass(frozen=True, slots=True)
class TokenFor:
    """The scope of an access token. Equal values share one token."""

    tenant_id: UUID
    """The Entra tenant that issues the token: the connection's own, or a customer's."""
    resource: str
    """The API's name at Entra, such as `https://graph.microsoft.com`. A name, not an address: it is the same
    for a stand-in."""
    kind: TokenKind
    permission: str = ".default"

    @property
    def scope(self) -> str:
        return f"{self.resource}/{self.permission}"


class Access(Protocol):
    """One connection's access to a platform, for one unit of work."""

    @property
    def gate(self) -> Gate:
        """The connection's budget of calls, shared by all workers."""
        ...

    @property
    def entra_tenant_id(self) -> UUID:
        """The partner's tenant."""
        ...

    @property
    def has_delegated(self) -> bool:
        """Whether the connection has a refresh token, so that App+User calls are possible."""
        ...

    async def token(self, wanted: TokenFor) -> str:
        """A valid access token. Raises ConnectionTrouble or NotSent."""
        ...

    def forget_token(self, wanted: TokenFor) -> None:
        """Drops a token that was refused; the next `token` fetches a fresh one."""
        ...


@dataclass(frozen=True, slots=True)
class AccessBearer:
    """`app.microsoft.http.Bearer` for one connection and one kind of token."""

    access: Access
    wanted: TokenFor

    @property
    def gate(self) -> Gate:
        return self.access.gate

    @property
    def delegated(self) -> bool:
        return self.wanted.kind is TokenKind.DELEGATED

    async def token(self) -> str:
        return await self.access.token(self.wanted)

    def forget(self) -> None:
        self.access.forget_token(self.wanted)


# --- registering --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallIds:
    """The ids of one call, its own and its batch's, stored before the call is made."""

    request_id: UUID
    correlation_id: UUID


@dataclass(frozen=True, slots=True)
class Submission:
    customer_tenant_id: UUID
    group_tag: str
    create: bool
    """True: create the group tag with these devices. Only if the platform has `GroupTags`."""
    devices: Sequence[OutgoingDevice]

    def fingerprint(self) -> bytes:
        """Identifies the call: its method, path and body follow from these values."""
        digest = sha256(repr((self.create, self.customer_tenant_id, self.group_tag)).encode())
        for device in self.devices:
            digest.update(repr(tuple(device)).encode())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted call: the job's id, or an id for each device if the platform follows devices."""

    tracking_id: str | None = None
    device_ids: Sequence[str | None] = ()
    """In the order of the devices."""
    not_understood: Said | None = field(default=None, compare=False)
    """Why the answer could not be read; None if it had no body."""

    @property
    def can_be_followed(self) -> bool:
        """False: accepted, but without an id to poll, so the listing has to show the outcome."""
        return self.tracking_id is not None or any(id is not None for id in self.device_ids)


@dataclass(frozen=True, slots=True)
class Progress:
    finished: bool
    """No more answers will come. If devices are followed, each row also has its own `done`."""
    rows: Sequence[UpstreamRow]
    """The devices as the platform lists them, empty until it lists any. If devices are followed: one row for
    each id that was asked for, in the same order."""
    not_understood: Said | None = None
    """The unreadable part of the answer; `rows` has the rest."""


class Registers(Protocol):
    """Registers devices. Every platform with `open` has it."""

    @property
    def follows_devices(self) -> bool:
        """Whether each device has its own id and outcome. False: one job answers for all of them."""
        ...

    def meaning(self, code: str | None, name: str | None) -> Meaning | None:
        """The meaning of the platform's code and name of a device's error; None if it is unknown, which fails
        as `upstream_other` and shows the words."""
        ...

    async def submit(self, access: Access, ids: CallIds, submission: Submission) -> Accepted:
        """Makes one call. It may be repeated with equal `ids` and `submission` until an answer has come."""
        ...

    async def poll(self, access: Access, customer_tenant_id: UUID, sent: Accepted) -> Progress:
        """Asks for progress. `sent` has the open ids, none of them None. Raises Refused if one is unknown."""
        ...


# --- the other abilities ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListedDevice:
    device_id: str | None
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None


class Lists(Protocol):
    """Lists the platform's devices, to find the outcome of a call without an answer.

    Without it such a call is repeated; what stays unclear ends as `outcome_unknown` for an operator.
    """

    @property
    def devices_a_page(self) -> int: ...

    def listed(
        self, access: Access, customer_tenant_id: UUID, group_tag: str, *, max_pages: int
    ) -> AsyncIterator[ListedDevice]:
        """The devices under this tag, at most `max_pages` pages."""
        ...


@dataclass(frozen=True, slots=True)
class ListedCustomer:
    tenant_id: UUID
    name: str
    domain: str | None


class ConsentEvidence(Protocol):
    """Shows which customers have consented, and how to consent. Without it consent is recorded by hand."""

    def customers(self, access: Access) -> AsyncIterator[ListedCustomer]:
        """Every customer who has consented. A list cut short raises: it would look like consent withdrawn."""
        ...

    async def consent_link(self, access: Access) -> str:
        """The link a customer's administrator opens to consent."""
        ...


class GroupTags(Protocol):
    """The platform's own ledger of group tags, each created with its first devices and added to afterwards.

    Without it a batch is sent at once, and no batch waits for another one to create its tag.
    """

    async def find_group_tag(self, access: Access, customer_tenant_id: UUID, group_tag: str) -> str | None:
        """The platform's spelling of this customer's tag, compared without case; None if there is none."""
        ...

    def creates(self, outcomes: Sequence[str | None]) -> bool:
        """Whether to create a tag that was not found. `outcomes` of this batch's earlier calls with devices,
        oldest first, the words of `contradiction` among them."""
        ...

    def contradiction(self, refused: Refused, *, create: bool) -> str | None:
        """The outcome for a refusal because the tag exists, or is missing, unlike the call assumed."""
        ...


class Checks(Protocol):
    """Proves that a connection works. Without it `:check` is refused: the next batch is the proof."""

    async def check(self, access: Access) -> Sequence[str]:
        """Proves tokens and access with read-only calls. Returns what was proved, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a platform can do for a connection. Empty if people do everything at a portal."""

    registers: Registers | None = None
    lists: Lists | None = None
    consent: ConsentEvidence | None = None
    group_tags: GroupTags | None = None
    checks: Checks | None = None


# --- platforms ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Platform:
    name: str
    title: str
    capabilities: Capabilities
    note: str
    """One sentence for `GET /v1/platforms`."""
    barred_roles: frozenset[str] = frozenset()
    """Partner roles that may not use this platform's API."""
    open: Callable[[Settings, Microsoft], Abilities] | None = None
    """Makes its abilities, once for each process. Raises SettingsRefused."""
    file: FileFormat | None = None
    """The file to upload by hand if the API cannot be used."""

    @property
    def automated(self) -> bool:
        return self.open is not None

    def is_driven_for(self, partner_role: str) -> bool:
        """Whether Registrar may drive it for a partner of this role."""
        return self.open is not None and partner_role not in self.barred_roles


PACKAGE = "app.platforms"


def discover(more: Sequence[str] = ()) -> dict[str, Platform]:
    """Returns every platform of this package, and of the packages named in `more`, by name.

    A module without a platform prevents the start. Raises SettingsRefused for a missing package.
    """
    found: dict[str, Platform] = {}
    for module in (module for package in (PACKAGE, *more) for module in _modules(package)):
        platform = getattr(importlib.import_module(module), "PLATFORM", None)
        if not isinstance(platform, Platform):
            raise RuntimeError(f"{module} defines no PLATFORM")
        if platform.name in found:
            raise RuntimeError(f"two platforms are called {platform.name}")
        found[platform.name] = platform
    return found


def _modules(package: str) -> list[str]:
    try:
        path = importlib.import_module(package).__path__
    except (ModuleNotFoundError, AttributeError) as error:
        raise SettingsRefused([f"REGISTRAR_MORE_PLATFORMS: {package!r} is not installed."]) from error
    names = sorted(f"{package}.{info.name}" for info in pkgutil.iter_modules(path))
    return [name for name in names if name != __name__]


def open_all(
    platforms: Mapping[str, Platform], settings: Settings, microsoft: Microsoft
) -> dict[str, Abilities]:
    """The abilities of each platform, empty without an API. Raises SettingsRefused."""
    known = tuple(f"{PLATFORM_PREFIX}{name.upper()}_" for name in platforms)
    strange = [name for name in os.environ if name.startswith(PLATFORM_PREFIX) and not name.startswith(known)]
    if strange:
        raise SettingsRefused(f"{name}: there is no such platform." for name in sorted(strange))
    return {
        name: Abilities() if platform.open is None else platform.open(settings, microsoft)
        for name, platform in platforms.items()
    }


class OwnSettings(BaseModel):
    """A platform's own settings, named `REGISTRAR_PLATFORM_<NAME>_<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, platform: str) -> Self:
        """Raises SettingsRefused for a wrong value, and for a name that is no field."""
        prefix = f"{PLATFORM_PREFIX}{platform.upper()}_"
        given = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
        try:
            return cls(**{name.removeprefix(prefix).lower(): value for name, value in given.items()})
        except ValidationError as error:
            faults = error.errors(include_input=False, include_context=False, include_url=False)
            lines = [f"{prefix}{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in faults]
            raise SettingsRefused(lines) from None
