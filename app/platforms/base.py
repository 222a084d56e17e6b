"""What a platform is: its capabilities as data, and the few calls the services make of it.

A platform is one file in this package that defines `PLATFORM: Platform`, found by `discover()`.
A platform that Registrar can drive by API sets `driver`, a factory of a `Driver`. Drivers hold no
state of a partner: who calls is in the `Access` that every method takes. They raise the failures of
`app.domain.upstream` and nothing else. A platform with a portal where a person uploads a file sets
`file`, a `FileFormat`: everything that is particular to that file. With neither it is data only.
"""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple, Protocol
from uuid import UUID

from app.domain import hardware_hash
from app.domain.batch import SentRow
from app.domain.catalogue import Finding
from app.domain.identity import IdentityKind
from app.domain.registration import UpstreamRow
from app.domain.upstream import Said
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
        """A valid access token. Raises ConnectionTrouble or NotSent."""
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

    def fingerprint(self) -> bytes:
        """The same for the very same call only: its method, path and body follow from these values."""
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
    """As Microsoft lists them; empty while it says nothing yet."""
    not_understood: Said | None = None
    """What in the answer could not be read; the rows are what could."""


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
    """The file that a person uploads at a platform's portal, and the file that the portal gives back.

    Portals take no quotation marks and no encoding but ANSI, so a value that these can not carry has no place
    in the file. ASCII is what every ANSI code page and UTF-8 have in common.
    """

    columns: tuple[tuple[str, str], ...]
    """Title, to the letter as the portal wants it, and the field below it: one of `OutgoingDevice`'s
    identity fields, `hardware_hash` or `group_tag`."""
    steps: tuple[str, ...]
    """What the person does, in order; `{customer}`, `{tag}`, `{file}` and `{rows}` are filled in."""
    read_results: Callable[[Sequence[Mapping[str, str]]], Sequence["PortalAnswer"]]
    """The portal's result file, row by row: known columns of devices by our field names, all others by their
    titles. One answer for each row. Raises UnreadableResult where no column tells an outcome."""
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
        """The first value of a row that the file can not carry."""
        for (title, field), value in zip(self.columns, cells, strict=True):
            if barred := next((character for character in value if character in self.forbidden), None):
                what = "a comma" if barred == "," else "a quotation mark" if barred == '"' else f"{barred!r}"
                return Finding(
                    "comma_in_value", field, f"It has {what}, which the column {title!r} can not have."
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
                return Finding("value_not_in_format", field, "It has characters that can not be seen.")
        return None

    def write(self, rows: Sequence[Sequence[str]]) -> bytes:
        """The exact bytes, header included. The rows have passed `objection`."""
        lines = (self.delimiter.join(cells) + self.line_end for cells in (self.header, *rows))
        return "".join(lines).encode(self.encoding)

    def file_name(self, group_tag: str, number: int = 1) -> str:
        """From the group tag, safe on every system; `number` counts files that would share a name."""
        kept = "".join(c if c.isascii() and (c.isalnum() or c in " -_().") else "_" for c in group_tag)
        stem = kept.strip(" .")[:LONGEST_FILE_NAME].rstrip(" .") or "devices"
        if stem.partition(".")[0].rstrip().upper() in _RESERVED_NAMES:
            stem = f"_{stem}"
        return f"{stem}.csv" if number == 1 else f"{stem} ({number}).csv"

    def steps_for(self, *, customer: str, group_tag: str, file: str, rows: int) -> list[str]:
        amount = f"{rows:,} device" if rows == 1 else f"{rows:,} devices"
        filling = {"customer": customer, "tag": group_tag, "file": file, "rows": amount}
        return [step.format(**filling) for step in self.steps]


LONGEST_FILE_NAME = 80
"""Characters of a file's name before its ending."""
_RESERVED_NAMES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)
"""Names that Windows keeps for devices."""


class UnreadableResult(ValueError):
    """A portal's result file says nothing of outcomes. The words say what was looked for."""


@dataclass(frozen=True, slots=True)
class PortalAnswer:
    """What one row of a portal's result file says."""

    answer: UpstreamRow
    doubt: str | None = None
    """Why the row tells no outcome; None where it does. Then `answer.done` is false."""


@dataclass(frozen=True, slots=True)
class ResultTitles:
    """Titles under which a portal tells outcomes, compared by their letters and digits."""

    status: Collection[str]
    code: Collection[str]
    name: Collection[str]

    def read(self, rows: Sequence[Mapping[str, str]]) -> list[PortalAnswer]:
        """A `FileFormat.read_results` for files with one row a device and a column that says how it went."""
        known = [{_letters(title): value.strip() for title, value in row.items()} for row in rows]
        titles = {title for row in known for title in row}
        wanted = [*self.status, *self.code, *self.name]
        if not titles & {_letters(title) for title in wanted}:
            raise UnreadableResult(
                f"No column says what became of the devices. Looked for: {', '.join(wanted)}."
            )
        return [self._answer(row) for row in known]

    def _answer(self, row: Mapping[str, str]) -> PortalAnswer:
        status, code, name = (_first(row, titles) for titles in (self.status, self.code, self.name))
        if status is not None and _IS_CODE.fullmatch(status):
            # A person's own list has one column: a code in it says how it went as well as a word does.
            status, code = None, f"{status} {code}" if code else status
        word = _letters(status or "")
        failed = word in _FAILED or bool(code or name)
        doubt = None
        if not failed and word in _UNDER_WAY:
            doubt = "The portal is still working on it." if word else "The row does not say how it went."
        elif not failed and word not in _SUCCEEDED:
            doubt = "The word for how it went is not known."
        # Number and name may stand in one cell, in either order, or one of them in the other's column.
        said = f"{code or ''} {name or ''}"
        number, known = _NUMBER.search(said), _NAME.search(said)
        answer = UpstreamRow(
            done=doubt is None,
            code=number.group() if number else code,
            name=known.group() if known else name or (status if failed and not code else None),
            serial_number=row.get("serialnumber") or None,
            product_key=row.get("productkey") or None,
        )
        return PortalAnswer(answer, doubt)


_NUMBER = re.compile(r"\b[0-9]{3}\b")
_NAME = re.compile(r"[A-Za-z]*Ztd[A-Za-z]+|StorageError|HashNot4k")
_IS_CODE = re.compile(rf"{_NUMBER.pattern}|{_NAME.pattern}")
_SUCCEEDED = frozenset(
    {
        "success",
        "succeeded",
        "successful",
        "complete",
        "completed",
        "finished",
        "registered",
        "imported",
        "ok",
    }
)
_UNDER_WAY = frozenset({"", "unknown", "pending", "partial", "queued", "processing", "inprogress", "running"})
_FAILED = frozenset({"error", "errors", "failed", "failure", "finishedwitherrors", "rejected"})
_NO_ERROR = frozenset({"", "0", "200", "none", "noerror", "null", "na"})


def _first(row: Mapping[str, str], titles: Collection[str]) -> str | None:
    """The first value under one of the titles that says something."""
    values = (row.get(_letters(title), "") for title in titles)
    return next((value for value in values if _letters(value) not in _NO_ERROR), None)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


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
    """What a person uploads where the API can not be used."""

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
