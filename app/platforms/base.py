"""The protocol of a platform: its capabilities as data, and the abilities that it may have.

A platform is a module or package beside this file that defines `PLATFORM: Platform`, found by `discover()`.
One that Registrar drives by API sets `open`, which makes its `Abilities`: each is a small protocol of its
own, and None where the platform does not have it. What services do then is said at each protocol. Abilities
keep no state of a partner: who calls is in the `Access` that every method takes. They raise the failures of
`app.domain.upstream` and nothing else. A platform with a portal where a person uploads a file sets `file`.
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
    """What a group tag is at the platform."""

    GROUP = "group"  # a group of devices with this name, made before devices are added to it
    DEVICE = "device"  # a value of each device
    NONE = "none"  # there is none: the order keeps it, and the platform does not get it


@dataclass(frozen=True, slots=True)
class Capabilities:
    max_devices: int
    """The most devices in one call or file."""
    identities: frozenset[IdentityKind]
    profiles: Profiles
    channel: Channel
    group_tags: TagUse
    retired: bool = False


# --- access -------------------------------------------------------------------------------------


class TokenKind(StrEnum):
    APP = "app"
    DELEGATED = "delegated"  # App+User, by refresh token


@dataclass(frozen=True, slots=True)
class TokenFor:
    """What an access token is good for. Equal values share one token."""

    tenant_id: UUID
    """The Entra tenant that issues it: the connection's own, or a customer's."""
    resource: str
    """The API's name at Entra, such as `https://graph.microsoft.com`. A name, not an address: a stand-in is
    asked for the same."""
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
        """Whether a refresh token is there, so that App+User calls are possible."""
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
    """The ids of one call, written to the database before it is made: the call's own, and its batch's."""

    request_id: UUID
    correlation_id: UUID


@dataclass(frozen=True, slots=True)
class Submission:
    customer_tenant_id: UUID
    group_tag: str
    create: bool
    """True: make the group tag with these devices. Only where the platform has `GroupTags`."""
    devices: Sequence[OutgoingDevice]

    def fingerprint(self) -> bytes:
        """A fingerprint of the call: its method, path and body follow from these values."""
        digest = sha256(repr((self.create, self.customer_tenant_id, self.group_tag)).encode())
        for device in self.devices:
            digest.update(repr(tuple(device)).encode())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted call: the job's id, or an id for each device where the platform follows devices."""

    tracking_id: str | None = None
    device_ids: Sequence[str | None] = ()
    """In the order of the devices."""
    not_understood: Said | None = field(default=None, compare=False)
    """Why the answer that came instead could not be read; None for one without a body."""

    @property
    def can_be_followed(self) -> bool:
        """False: accepted, but there is nothing to ask for; the listing has to tell the outcome."""
        return self.tracking_id is not None or any(id is not None for id in self.device_ids)


@dataclass(frozen=True, slots=True)
class Progress:
    finished: bool
    """Nothing more is to come. Where devices are followed: each row given has its own `done` besides."""
    rows: Sequence[UpstreamRow]
    """The devices as the platform lists them, empty until it lists any. Where devices are followed: one row
    for each id that was asked for, in their order."""
    not_understood: Said | None = None
    """The unreadable part of the answer; `rows` has the rest."""


class Registers(Protocol):
    """Registers devices. Every platform with `open` has it."""

    @property
    def follows_devices(self) -> bool:
        """Whether each device has an id and an outcome of its own. False: one job tells of all of them."""
        ...

    def meaning(self, code: str | None, name: str | None) -> Meaning | None:
        """What the platform's own code and name of a device's error mean; None for one not known, which
        fails as `upstream_other` with the words shown."""
        ...

    async def submit(self, access: Access, ids: CallIds, submission: Submission) -> Accepted:
        """One call. It may be repeated with equal `ids` and `submission` until an answer has come."""
        ...

    async def poll(self, access: Access, customer_tenant_id: UUID, sent: Accepted) -> Progress:
        """How far it is. `sent` has the ids of what is still open, none of them None. Raises Refused where
        one is not known."""
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
    """Lists the devices that the platform holds, to find out what became of a call without an answer.

    Without it such a call is repeated, and what that does not settle ends as `outcome_unknown` for a person.
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
    """Shows which customers have consented, and how one does. Without it consent is recorded by hand."""

    def customers(self, access: Access) -> AsyncIterator[ListedCustomer]:
        """Every customer who has consented. A list cut short raises: it would look like consent withdrawn."""
        ...

    async def consent_link(self, access: Access) -> str:
        """The link a customer's administrator opens to consent."""
        ...


class GroupTags(Protocol):
    """The platform's own ledger of group tags, each made with the first devices and added to afterwards.

    Without it a batch is sent at once, and no batch waits for another one to make its tag.
    """

    async def find_group_tag(self, access: Access, customer_tenant_id: UUID, group_tag: str) -> str | None:
        """The platform's spelling of this tag for this customer, compared without case; None if absent."""
        ...

    def creates(self, outcomes: Sequence[str | None]) -> bool:
        """Whether to make a tag that was not found. `outcomes`: how this batch's earlier calls with devices
        ended, oldest first, with the words of `contradiction` among them."""
        ...

    def contradiction(self, refused: Refused, *, create: bool) -> str | None:
        """The word for a refusal that says that the tag is there, or is not, other than the call assumed."""
        ...


class Checks(Protocol):
    """Proves that a connection works. Without it `:check` is refused: the next batch is the proof."""

    async def check(self, access: Access) -> Sequence[str]:
        """Proves tokens and reach with read-only calls. Returns what was proved, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a platform can do for a connection. Nothing, where a person does it at a portal."""

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
    """Partner roles to which this platform's API is not offered."""
    open: Callable[[Settings, Microsoft], Abilities] | None = None
    """Makes its abilities, once a process. Raises SettingsRefused."""
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
    """Every platform of this package, and of the packages named in `more`, by name.

    A module without a platform is a start-up failure. Raises SettingsRefused for a package that is not there.
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
        raise SettingsRefused([f"REGISTRAR_MORE_PLATFORMS: {package!r} is no package here."]) from error
    names = sorted(f"{package}.{info.name}" for info in pkgutil.iter_modules(path))
    return [name for name in names if name != __name__]


def open_all(
    platforms: Mapping[str, Platform], settings: Settings, microsoft: Microsoft
) -> dict[str, Abilities]:
    """The abilities of each platform: none where it is not driven by API. Raises SettingsRefused."""
    known = tuple(f"{PLATFORM_PREFIX}{name.upper()}_" for name in platforms)
    strange = [name for name in os.environ if name.startswith(PLATFORM_PREFIX) and not name.startswith(known)]
    if strange:
        raise SettingsRefused(f"{name}: there is no such platform." for name in sorted(strange))
    return {
        name: Abilities() if platform.open is None else platform.open(settings, microsoft)
        for name, platform in platforms.items()
    }


class OwnSettings(BaseModel):
    """A platform's own settings: `REGISTRAR_PLATFORM_`, the platform's name, and the field's, in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, platform: str) -> Self:
        """Raises SettingsRefused for a value that does not fit and for a name that is no field."""
        prefix = f"{PLATFORM_PREFIX}{platform.upper()}_"
        given = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
        try:
            return cls(**{name.removeprefix(prefix).lower(): value for name, value in given.items()})
        except ValidationError as error:
            faults = error.errors(include_input=False, include_context=False, include_url=False)
            lines = [f"{prefix}{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in faults]
            raise SettingsRefused(lines) from None
