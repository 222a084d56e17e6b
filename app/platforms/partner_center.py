"""Microsoft Partner Center: device batches, their upload jobs, and the customers who have agreed.

The batch id is the group tag the customer sees. What the documents say twice and differently is
read both ways here: names of properties in any case, a job named in the Location header or in the
body, six words for a status. Success is judged per device only, never by the status of the batch.

Creating a group tag and asking for a consent link need an App+User token; all other calls take one
too where the connection has it, and the App-only token where it has not.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import orjson

from app.domain import hardware_hash
from app.domain.group_tag import tag_key
from app.domain.identity import IdentityKind, OutgoingDevice
from app.domain.registration import UpstreamRow
from app.domain.upstream import ConnectionTrouble, NoRelationship, NotUnderstood, Refused, Said
from app.kernel.settings import Settings
from app.microsoft.answer import Reply, tidy
from app.microsoft.http import Call, Gate, Microsoft
from app.platforms.base import (
    Accepted,
    Access,
    CallIds,
    Capabilities,
    Channel,
    FileFormat,
    ListedCustomer,
    ListedDevice,
    Platform,
    Profiles,
    Progress,
    Submission,
    TokenKind,
)

CUSTOMERS_PAGE = 500
"""Customers asked for in one page; the service may give fewer."""
MAX_PAGES = 10_000
"""Pages of one listing: an end for a service whose paging has none."""

_FINISHED, _FINISHED_WITH_ERRORS = "finished", "finishedwitherrors"
_STATUS_NUMBERS = {
    "0": "unknown",
    "1": "queued",
    "2": "processing",
    "3": _FINISHED,
    "4": _FINISHED_WITH_ERRORS,
}
"""The .NET enumeration behind the words, should it ever come as it is stored."""
_STATUS_WORDS = frozenset({*_STATUS_NUMBERS.values(), "inprogress"})
_NO_ERROR_CODES = frozenset({"", "0", "200"})
"""`errorCode` of a device without error. Its documentation calls it an HTTP status code."""


class PartnerCenter:
    """Implements `app.platforms.base.Driver`."""

    def __init__(self, settings: Settings, microsoft: Microsoft) -> None:
        self._microsoft = microsoft

    async def check(self, access: Access) -> Sequence[str]:
        bearer = _usual(access)
        await bearer.token()
        proved = ["Entra issued an App+User token" if bearer.delegated else "Entra issued an App-only token"]
        reply = await self._get(bearer, "/v1/customers?size=1", of_customer=False, of_check=True)
        _items(reply.json(), reply)
        return [*proved, "Partner Center accepted the token and listed the customers"]

    async def customers(self, access: Access) -> AsyncIterator[ListedCustomer]:
        """A broken or unreadable page raises: a list cut short would look like consent withdrawn."""
        path = f"/v1/customers?size={CUSTOMERS_PAGE}"
        pages = self._pages(_usual(access), path, f"{path}&seekOperation=Next", of_customer=False)
        async for items in pages:
            for item in items:
                customer = _listed_customer(item)
                if customer is not None:
                    yield customer

    async def consent_link(self, access: Access) -> str:
        reply = await self._get(_delegated(access), "/v1/customers/relationshiprequests", of_customer=False)
        body = reply.json()
        link = body.get("url") if isinstance(body, dict) else None
        if not isinstance(link, str) or urlsplit(link).scheme != "https":
            raise NotUnderstood(Said(reply.status, None, "the answer has no link"))
        return link

    async def find_group_tag(self, access: Access, customer_tenant_id: UUID, group_tag: str) -> str | None:
        path = _batches(customer_tenant_id)
        alike: str | None = None
        pages = self._pages(_usual(access), path, path, of_customer=True, of_submission=True)
        async for items in pages:
            for item in items:
                name = item.get("id")
                if not isinstance(name, str):
                    # Which tag it is decides whether one is created: no conclusion without it.
                    raise NotUnderstood(Said(200, None, "a batch of the list has no name"))
                if name == group_tag:
                    return group_tag
                if alike is None and tag_key(name) == tag_key(group_tag):
                    alike = name
        return alike

    async def submit(self, access: Access, ids: CallIds, submission: Submission) -> Accepted:
        customer, tag = submission.customer_tenant_id, submission.group_tag
        devices = [_outgoing(device) for device in submission.devices]
        body: Any = devices
        if submission.create:
            body = {
                "batchId": tag,
                "devices": devices,
                "attributes": {"objectType": "DeviceBatchCreationRequest"},
            }
        call = Call(
            "POST",
            _batches(customer) if submission.create else _devices(customer, tag),
            ids.request_id,
            ids.correlation_id,
            of_customer=True,
            body=orjson.dumps(body),
        )
        reply = await self._microsoft.call(call, _delegated(access) if submission.create else _usual(access))
        tracking_id = _tracking_id(reply, customer)
        return Accepted(tracking_id, _unread(reply) if tracking_id is None else None)

    async def poll(self, access: Access, customer_tenant_id: UUID, tracking_id: str) -> Progress:
        path = f"{_customer(customer_tenant_id)}/batchJobStatus/{_segment(tracking_id)}"
        reply = await self._get(_usual(access), path, of_customer=True)
        body = reply.json()
        if not isinstance(body, dict):
            raise NotUnderstood(Said(reply.status, None, "the answer is no job status"))
        finished = _status(body) in (_FINISHED, _FINISHED_WITH_ERRORS)
        items = body.get("devicesstatus")
        devices = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        doubt = _doubt(body, items, devices)
        rows = [_row(item, batch_finished=finished) for item in devices]
        return Progress(finished, rows, None if doubt is None else Said(reply.status, None, doubt))

    async def listed(
        self, access: Access, customer_tenant_id: UUID, group_tag: str, *, max_pages: int
    ) -> AsyncIterator[ListedDevice]:
        """A group tag that Microsoft does not know holds no devices."""
        started = False
        path = _devices(customer_tenant_id, group_tag)
        pages = self._pages(_usual(access), path, path, of_customer=True, max_pages=max_pages)
        try:
            async for items in pages:
                started = True
                for item in items:
                    yield _listed_device(item)
        except Refused as refused:
            if started or refused.said.status != 404 or isinstance(refused, NoRelationship):
                raise

    async def _pages(
        self,
        bearer: "_Bearer",
        first: str,
        following: str,
        *,
        of_customer: bool,
        max_pages: int = MAX_PAGES,
        of_submission: bool = False,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        continuation: str | None = None
        for page in range(max_pages):
            reply = await self._get(
                bearer,
                following if page else first,
                of_customer=of_customer,
                continuation=continuation,
                of_submission=of_submission,
            )
            body = reply.json()
            yield _items(body, reply)
            previous, continuation = continuation, _continuation(body)
            if continuation is None:
                return
            if continuation == previous or not continuation.isascii() or not continuation.isprintable():
                raise NotUnderstood(Said(reply.status, None, "the paging does not advance"))

    async def _get(
        self,
        bearer: "_Bearer",
        path: str,
        *,
        of_customer: bool,
        continuation: str | None = None,
        of_submission: bool = False,
        of_check: bool = False,
    ) -> Reply:
        call = Call(
            "GET",
            path,
            uuid4(),
            uuid4(),
            of_customer,
            continuation=continuation,
            of_submission=of_submission,
            of_check=of_check,
        )
        return await self._microsoft.call(call, bearer)


@dataclass(frozen=True, slots=True)
class _Bearer:
    """One connection's token of one kind, as `app.microsoft.http` asks for it."""

    access: Access
    kind: TokenKind

    @property
    def gate(self) -> Gate:
        return self.access.gate

    @property
    def delegated(self) -> bool:
        return self.kind is TokenKind.DELEGATED

    async def token(self) -> str:
        return await self.access.token(self.kind)

    def forget(self) -> None:
        self.access.forget_token(self.kind)


def _usual(access: Access) -> _Bearer:
    return _Bearer(access, TokenKind.DELEGATED if access.has_delegated else TokenKind.APP)


def _delegated(access: Access) -> _Bearer:
    if not access.has_delegated:
        raise ConnectionTrouble("credential_missing", Said(description="the connection has no refresh token"))
    return _Bearer(access, TokenKind.DELEGATED)


def _segment(name: str) -> str:
    """One path segment. Dots alone would be taken for a way upwards."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _customer(tenant_id: UUID) -> str:
    return f"/v1/customers/{tenant_id}"


def _batches(tenant_id: UUID) -> str:
    return f"{_customer(tenant_id)}/deviceBatches"


def _devices(tenant_id: UUID, group_tag: str) -> str:
    return f"{_batches(tenant_id)}/{_segment(group_tag)}/devices"


def _outgoing(device: OutgoingDevice) -> dict[str, str]:
    """Only the fields of the identity: an empty list of policies, say, breaks the service (500)."""
    serial_number, manufacturer, model, product_key, hash_data = device
    fields = {}
    if serial_number is not None:
        fields["serialNumber"] = serial_number
    if manufacturer is not None:
        fields["oemManufacturerName"] = manufacturer
    if model is not None:
        fields["modelName"] = model
    if product_key is not None:
        fields["productKey"] = product_key
    if hash_data is not None:
        fields["hardwareHash"] = hardware_hash.encode(hash_data)
    return fields


def _tracking_id(reply: Reply, customer: UUID) -> str | None:
    """The job's id: from the Location header, which clients in the field use, else from the body."""
    found = _job_in_link(reply.header("location"), customer)
    if found is not None or not reply.body:
        return found
    try:
        body = reply.json()
    except NotUnderstood:
        return None  # accepted all the same
    return _job_in_link(body, customer) if isinstance(body, str) else _job_in_body(body, customer)


def _unread(reply: Reply) -> Said | None:
    """An acceptance without a body is usual; a page in its place is not Partner Center's."""
    try:
        if reply.body:
            reply.json()
    except NotUnderstood as unread:
        return unread.said
    return None


def _job_in_body(value: Any, customer: UUID) -> str | None:
    """Documents promise a link without saying where: the first one found from the outside inwards."""
    if isinstance(value, str):
        return _job_in_link(value, customer) if "batchjobstatus/" in value.lower() else None
    if isinstance(value, dict):
        for name in ("batchtrackingid", "trackingid"):
            named = _text(value.get(name))
            if named is not None and _is_guid(named):
                return named
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = _job_in_body(item, customer)
            if found is not None:
                return found
    return None


def _job_in_link(link: str | None, customer: UUID) -> str | None:
    """The GUID at the end of a link of any prefix. A link that ends in the customer names no job."""
    try:
        last = urlsplit(link or "").path.rstrip("/").rpartition("/")[2].strip()
    except ValueError:
        return None
    return last if _is_guid(last) and UUID(last) != customer else None


def _is_guid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _items(body: Any, reply: Reply) -> list[dict[str, Any]]:
    """A collection's items. No collection at all is no empty one: conclusions are drawn from absence."""
    items = body.get("items") if isinstance(body, dict) else body
    if items is None and isinstance(body, dict) and body.get("totalcount") == 0:
        return []
    if not isinstance(items, list):
        raise NotUnderstood(Said(reply.status, None, "the answer is no collection"))
    if not all(isinstance(item, dict) for item in items):
        raise NotUnderstood(Said(reply.status, None, "an item of the collection is no object"))
    return items


def _continuation(body: Any) -> str | None:
    """The next page's token: in the body, or among the headers of the link to it."""
    if not isinstance(body, dict):
        return None
    if body.get("continuationtoken"):
        return str(body["continuationtoken"])
    links = body.get("links")
    following = links.get("next") if isinstance(links, dict) else None
    headers = following.get("headers") if isinstance(following, dict) else None
    for header in headers if isinstance(headers, list) else ():
        if isinstance(header, dict) and str(header.get("key")).lower() == "ms-continuationtoken":
            return _text(header.get("value"))
    return None


def _status(item: Mapping[str, Any]) -> str:
    return _status_word(str(item.get("status") or ""))


@lru_cache(maxsize=64)
def _status_word(status: str) -> str:
    """finished_with_errors, finishedWithErrors, in-progress: the letters only."""
    word = "".join(letter for letter in status.lower() if letter.isalnum())
    return _STATUS_NUMBERS.get(word, word)


def _doubt(body: Mapping[str, Any], items: Any, devices: Sequence[Mapping[str, Any]]) -> str | None:
    """What a job's status says that cannot be read; its readable devices count all the same."""
    if _status(body) not in _STATUS_WORDS:
        return f"the job's status is {_shown(body.get('status'))}"
    if items is not None and not isinstance(items, list):
        return "the job's devices are no list"
    if len(devices) < len(items or ()):
        return "a device of the job is no object"
    for device in devices:
        if _status(device) not in _STATUS_WORDS and not _row(device, batch_finished=True).done:
            return f"a device's status is {_shown(device.get('status'))}"
    return None


def _shown(status: Any) -> str:
    return "missing" if status is None else f"not a known word: {tidy(str(status), limit=40)!r}"


def _row(item: Mapping[str, Any], *, batch_finished: bool) -> UpstreamRow:
    """One device's answer.

    A finished batch settles its rows, except one that is neither finished nor has an error: a
    device still under way, or without any status, is not known to be registered.
    """
    status, code, name = _status(item), _text(item.get("errorcode")), _text(item.get("errordescription"))
    if status == _FINISHED and name is None and (code or "") in _NO_ERROR_CODES:
        code = None
    if status == _FINISHED_WITH_ERRORS and code is None and name is None:
        name = "finished_with_errors"
    own = status in (_FINISHED, _FINISHED_WITH_ERRORS)
    return UpstreamRow(
        done=own or (batch_finished and (code is not None or name is not None)),
        code=code,
        name=name,
        serial_number=_text(item.get("serialnumber")),
        product_key=_text(item.get("productkey")),
        device_id=_text(item.get("deviceid")),
    )


def _listed_device(item: Mapping[str, Any]) -> ListedDevice:
    return ListedDevice(
        device_id=_text(item.get("id")),
        serial_number=_text(item.get("serialnumber")),
        manufacturer=_text(item.get("oemmanufacturername")),
        model=_text(item.get("modelname")),
        product_key=_text(item.get("productkey")),
    )


def _listed_customer(item: Mapping[str, Any]) -> ListedCustomer | None:
    """The customer, if it is one with a reseller relationship.

    The list holds the partner's customers, so an item without the field counts as one; an item that
    says advisor or none does not. One whose tenant cannot be read is not passed over: it would look as
    if that customer had withdrawn its consent.
    """
    relationship = _text(item.get("relationshiptopartner"))
    if relationship is not None and relationship.lower() != "reseller":
        return None
    found = item.get("companyprofile")
    profile: Mapping[str, Any] = found if isinstance(found, dict) else {}
    named = (_text(item.get("id")), _text(profile.get("tenantid")))
    tenant_id = next((text for text in named if text is not None and _is_guid(text)), None)
    if tenant_id is None:
        raise NotUnderstood(Said(200, None, "a customer of the list has no tenant id"))
    return ListedCustomer(
        UUID(tenant_id), _text(profile.get("companyname")) or tenant_id, _text(profile.get("domain"))
    )


def _text(value: Any) -> str | None:
    """A value as text; None where there is none. A PKID may come as a number."""
    if value is None or isinstance(value, bool | dict | list):
        return None
    return str(value).strip() or None


PORTAL_FILE = FileFormat(
    # As Partner Center's own template writes them. The collector's capitals differ, and which of the two a
    # parser that minds capitals would take is not published.
    columns=(
        ("Device serial number", "serial_number"),
        ("Windows product ID", "product_key"),
        ("Hardware hash", "hardware_hash"),
        ("Manufacturer name", "manufacturer"),
        ("Device model", "model"),
    ),
    steps=(
        "Keep {file} ({rows}) as it is: do not open it in a spreadsheet program, which changes it.",
        "In Partner Center, as Admin agent or Sales agent: Customers > {customer} > Devices > Add devices. "
        "Check that it is the right customer.",
        "As the name of the group enter {tag}, to the letter with its capitals: it becomes the group tag "
        "that {customer} sees. If the group is there already, add the devices to it.",
        "Browse to {file}, upload it, and choose Save: nothing is registered before that. Then mark the file "
        "as uploaded here.",
        "When Partner Center has finished, look at every device and not only at the batch: 'finished' stands "
        "over failed devices too.",
        "Record the outcome here: all registered, device by device, or with Partner Center's own list of "
        "results.",
    ),
)

PLATFORM = Platform(
    name="partner_center",
    title="Microsoft Partner Center",
    capabilities=Capabilities(
        max_devices=1000,
        identities=frozenset(IdentityKind),
        profiles=Profiles.RETIRING,
        channel=Channel.API,
    ),
    note="Driven by API; consent is the reseller relationship, and the group tag is the batch's name.",
    # Microsoft: API access is not offered to indirect resellers; they use the portal.
    barred_roles=frozenset({"indirect_reseller"}),
    driver=PartnerCenter,
    file=PORTAL_FILE,
)
