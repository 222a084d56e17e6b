"""Partner Center's JSON: requests, and how answers are read.

Where the documentation contradicts itself, both ways are read: a job named in the Location header or in the
body, six words for a status, a page's token in the body or in a link.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from app.domain import hardware_hash
from app.domain.identity import OutgoingDevice
from app.domain.registration import UpstreamRow
from app.domain.upstream import NotUnderstood, Said
from app.microsoft.answer import Reply, tidy
from app.platforms.base import Accepted, ListedCustomer, ListedDevice, Progress

_FINISHED, _FINISHED_WITH_ERRORS = "finished", "finishedwitherrors"
_STATUS_NUMBERS = {
    "0": "unknown",
    "1": "queued",
    "2": "processing",
    "3": _FINISHED,
    "4": _FINISHED_WITH_ERRORS,
}
"""The .NET enumeration behind the words, in case its numbers are ever sent."""
_STATUS_WORDS = frozenset({*_STATUS_NUMBERS.values(), "inprogress"})
_NO_ERROR_CODES = frozenset({"", "0", "200"})
"""Values of `errorCode` for a device without an error. The documentation calls it an HTTP status code."""


def outgoing(device: OutgoingDevice) -> dict[str, str]:
    """Only the fields of the identity: extra ones, such as an empty list of policies, cause a 500."""
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


def accepted(reply: Reply, customer: UUID) -> Accepted:
    """Reads an acceptance; without a job id the answer may say why."""
    found = _tracking_id(reply, customer)
    return Accepted(found, not_understood=_unread(reply) if found is None else None)


def _tracking_id(reply: Reply, customer: UUID) -> str | None:
    """The job's id: from the Location header, which existing clients use, otherwise from the body."""
    found = _job_in_link(reply.header("location"), customer)
    if found is not None or not reply.body:
        return found
    try:
        body = reply.json()
    except NotUnderstood:
        return None  # accepted all the same
    return _job_in_link(body, customer) if isinstance(body, str) else _job_in_body(body, customer)


def _unread(reply: Reply) -> Said | None:
    """The fault of an unreadable body, such as a gateway's page; None for no body, which is usual."""
    try:
        if reply.body:
            reply.json()
    except NotUnderstood as unread:
        return unread.said
    return None


def _job_in_body(value: Any, customer: UUID) -> str | None:
    """The documentation promises a link without its place: takes the outermost one."""
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
    """The GUID at the end of a link with any prefix. A link that ends with the customer names no job."""
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


def items_of(body: Any, reply: Reply) -> list[dict[str, Any]]:
    """A collection's items. A missing collection is not an empty one: absence leads to conclusions."""
    items = body.get("items") if isinstance(body, dict) else body
    if items is None and isinstance(body, dict) and body.get("totalcount") == 0:
        return []
    if not isinstance(items, list):
        raise NotUnderstood(Said(reply.status, None, "the answer is no collection"))
    if not all(isinstance(item, dict) for item in items):
        raise NotUnderstood(Said(reply.status, None, "an item of the collection is no object"))
    return items


def continuation_of(body: Any) -> str | None:
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


def progress(reply: Reply) -> Progress:
    body = reply.json()
    if not isinstance(body, dict):
        raise NotUnderstood(Said(reply.status, None, "the answer is no job status"))
    finished = _status(body) in (_FINISHED, _FINISHED_WITH_ERRORS)
    items = body.get("devicesstatus")
    devices = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    doubt = _doubt(body, items, devices)
    rows = [_row(item, batch_finished=finished) for item in devices]
    return Progress(finished, rows, None if doubt is None else Said(reply.status, None, doubt))


def _status(item: Mapping[str, Any]) -> str:
    return _status_word(str(item.get("status") or ""))


@lru_cache(maxsize=64)
def _status_word(status: str) -> str:
    """finished_with_errors, finishedWithErrors, in-progress: the letters only."""
    word = "".join(letter for letter in status.lower() if letter.isalnum())
    return _STATUS_NUMBERS.get(word, word)


def _doubt(body: Mapping[str, Any], items: Any, devices: Sequence[Mapping[str, Any]]) -> str | None:
    """What cannot be read in a job's status; its readable devices count nevertheless."""
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

    A finished batch settles its rows, except one that is neither finished nor has an error: a device still in
    progress, or without any status, is not known to be registered.
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


def listed_device(item: Mapping[str, Any]) -> ListedDevice:
    return ListedDevice(
        device_id=_text(item.get("id")),
        serial_number=_text(item.get("serialnumber")),
        manufacturer=_text(item.get("oemmanufacturername")),
        model=_text(item.get("modelname")),
        product_key=_text(item.get("productkey")),
    )


def listed_customer(item: Mapping[str, Any]) -> ListedCustomer | None:
    """The customer, if there is a reseller relationship.

    The list has the partner's customers, so an item without the field counts as one; an item that says
    advisor or none does not. An unreadable tenant id raises, because skipping the customer would look as if
    it had withdrawn its consent.
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
