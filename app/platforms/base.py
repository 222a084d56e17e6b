"""The protocol of a platform: its capabilities as data, and the few calls that services make of it.

A platform is one file in this package that defines `PLATFORM: Platform`, found by `discover()`.
A platform that Registrar can drive by API sets `driver`, a factory of a `Driver`. Drivers hold no
state of a partner: who calls is in the `Access` that every method takes. They raise the failures of
`app.domain.upstream` and nothing else. A platform with a portal where a person uploads a file sets
`file`, a `FileFormat`: everything that is particular to that file. With neither it is data only.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Protocol
from uuid import UUID
from zlib import crc32

from app.domain import hardware_hash
from app.domain.catalogue import Finding
from app.domain.identity import IdentityKind, OutgoingDevice
from app.domain.registration import UpstreamRow
from app.domain.upstream import Said
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


@dataclass(frozen=True, slots=True)
class Capabilities:
    max_devices: int
    """The most devices in one upload."""
    identities: frozenset[IdentityKind]
    profiles: Profiles
    channel: Channel
    retired: bool = False


class TokenKind(StrEnum):
    APP = "app"
    DELEGATED = "delegated"  # App+User, by refresh token


class Access(Protocol):
    """One connection's access to Microsoft, for one unit of work."""

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
        """A valid access token. Raises ConnectionTrouble or NotSent."""
        ...

    def forget_token(self, kind: TokenKind) -> None:
        """Drops a token that Microsoft refused; the next `token` fetches a fresh one."""
        ...


@dataclass(frozen=True, slots=True)
class CallIds:
    """MS-RequestId and MS-CorrelationId of one call, written to the database before it is made."""

    request_id: UUID
    correlation_id: UUID


@dataclass(frozen=True, slots=True)
class Submission:
    customer_tenant_id: UUID
    group_tag: str
    create: bool
    """True: make the group tag with these devices; False: add to the existing one."""
    devices: Sequence[OutgoingDevice]

    def fingerprint(self) -> bytes:
        """A fingerprint of the call: its method, path and body follow from these values."""
        digest = sha256(repr((self.create, self.customer_tenant_id, self.group_tag)).encode())
        for device in self.devices:
            digest.update(repr(tuple(device)).encode())
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Accepted:
    tracking_id: str | None
    """None: accepted, but Microsoft named no job; the listing has to tell the outcome."""
    not_understood: Said | None = dataclasses.field(default=None, compare=False)
    """Why the answer that came instead could not be read; None for one without a body."""


@dataclass(frozen=True, slots=True)
class Progress:
    finished: bool
    rows: Sequence[UpstreamRow]
    """The rows as Microsoft lists them; empty until it lists any."""
    not_understood: Said | None = None
    """The unreadable part of the answer; `rows` has the rest."""


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
class FileFormat:
    """The file that a person uploads at a platform's portal.

    Portals take no quotation marks and no encoding but ANSI, so a value that these cannot carry has no place
    in the file. ASCII is what every ANSI code page and UTF-8 have in common.
    """

    columns: tuple[tuple[str, str], ...]
    """Title, to the letter as the portal wants it, and the field below it: one of `OutgoingDevice`'s
    identity fields, `hardware_hash` or `group_tag`."""
    steps: tuple[str, ...]
    """The steps for the person, in order; `{customer}`, `{tag}`, `{file}` and `{rows}` are filled in."""
    serial_from_hash: bool = False
    """A serial number must be written: where a row has none that tells devices apart, the hash's own."""
    encoding: str = "ascii"
    delimiter: str = ","
    line_end: str = "\r\n"
    forbidden: str = '",'

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(title for title, _ in self.columns)

    @property
    def tag_is_the_lists_name(self) -> bool:
        """The file has no column for it: the person types it as the list's name."""
        return all(field != "group_tag" for _, field in self.columns)

    def cells(self, device: OutgoingDevice, group_tag: str) -> tuple[str, ...]:
        """One row, in the order of the columns; what does not belong to the device's identity stays blank."""
        text = None if device.hash_data is None else hardware_hash.encode(device.hash_data)
        serial = device.serial_number
        if serial is None and text is not None and self.serial_from_hash:
            serial = hardware_hash.decode(text).serial_number
        values = {
            "serial_number": serial,
            "product_key": device.product_key,
            "hardware_hash": text,
            "manufacturer": device.manufacturer,
            "model": device.model,
            "group_tag": group_tag,
        }
        return tuple(values[field] or "" for _, field in self.columns)

    def objection(self, cells: Sequence[str]) -> Finding | None:
        """The first value of a row that the file cannot contain."""
        for (title, field), value in zip(self.columns, cells, strict=True):
            if barred := next((character for character in value if character in self.forbidden), None):
                what = "a comma" if barred == "," else "a quotation mark" if barred == '"' else f"{barred!r}"
                return Finding(
                    "comma_in_value", field, f"It has {what}, which the column {title!r} cannot have."
                )
            try:
                value.encode(self.encoding)
            except UnicodeEncodeError as error:
                place = error.start
                detail = (
                    f"Character {place + 1} is U+{ord(value[place]):04X}; "
                    f"the file has only {self.encoding.upper()}."
                )
                return Finding("value_not_in_format", field, detail)
            if not value.isprintable():
                return Finding("value_not_in_format", field, "It has characters that cannot be seen.")
        return None

    def write(self, rows: Sequence[Sequence[str]]) -> bytes:
        """The exact bytes, header included. The rows have passed `objection`."""
        lines = (self.delimiter.join(cells) + self.line_end for cells in (self.header, *rows))
        return "".join(lines).encode(self.encoding)

    def file_name(self, group_tag: str, reference: str, number: int = 1) -> str:
        """From the group tag and the order's reference, safe on every system.

        So the files of two orders for one customer and tag have two names. `number` counts files of one order
        that would share a name.
        """
        tag = _safe(group_tag)[:LONGEST_NAME_PART].strip(" .") or "devices"
        order = _safe(reference)[:LONGEST_NAME_PART].strip(" .")
        if order != reference:
            # Two references that differ in what was replaced, or behind the end, still have two names.
            order = f"{order}-{crc32(reference.encode()):08x}".lstrip("-")
        if tag.partition(".")[0].rstrip().upper() in _RESERVED_NAMES:
            tag = f"_{tag}"
        return f"{tag} - {order}.csv" if number == 1 else f"{tag} - {order} ({number}).csv"

    def steps_for(self, *, customer: str, group_tag: str, file: str, rows: int) -> list[str]:
        amount = f"{rows:,} device" if rows == 1 else f"{rows:,} devices"
        filling = {"customer": customer, "tag": group_tag, "file": file, "rows": amount}
        return [step.format(**filling) for step in self.steps]


LONGEST_NAME_PART = 60
"""Characters of the group tag and of the reference in a file's name."""
_RESERVED_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)
"""Names that Windows keeps for devices."""


def _safe(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in " -_().") else "_" for c in text)


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
    file: FileFormat | None = None
    """The file to upload by hand if the API cannot be used."""

    @property
    def automated(self) -> bool:
        return self.driver is not None

    def is_driven_for(self, partner_role: str) -> bool:
        """Whether Registrar may drive it for a partner of this role."""
        return self.driver is not None and partner_role not in self.barred_roles


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
