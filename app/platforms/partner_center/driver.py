"""The calls to Partner Center, each with the kind of token that it takes.

The batch id is the group tag that the customer sees. Success is judged per device, never by the status of the
batch. Creating a group tag and asking for a consent link need an App+User token; all other calls use one too
if the connection has it, otherwise the App-only token.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import orjson

from app.domain import autopilot_errors
from app.domain.budget import Priority
from app.domain.group_tag import tag_key
from app.domain.registration import Meaning
from app.domain.upstream import ConnectionTrouble, NoRelationship, NotUnderstood, Refused, Said
from app.kernel.settings import Settings
from app.microsoft.answer import Reply
from app.microsoft.http import Call, Microsoft, Service
from app.platforms.base import (
    Abilities,
    Accepted,
    Access,
    AccessBearer,
    CallIds,
    ListedCustomer,
    ListedDevice,
    Progress,
    Submission,
    TokenFor,
    TokenKind,
)
from app.platforms.partner_center import tag_answers, wire
from app.platforms.partner_center.refusals import failure_of

RESOURCE = "https://api.partnercenter.microsoft.com"
CUSTOMERS_PAGE = 500
"""Customers requested in one page; the service may return fewer."""
MAX_PAGES = 10_000
"""The most pages of one listing, in case the service's paging never ends."""


class PartnerCenter:
    """Has all abilities of `app.platforms.base`."""

    follows_devices = False
    devices_a_page = 100

    def __init__(self, settings: Settings, microsoft: Microsoft) -> None:
        self._microsoft = microsoft
        self._service = Service(settings.partner_center_url, failure_of)

    def meaning(self, code: str | None, name: str | None) -> Meaning | None:
        return autopilot_errors.meaning(code, name)

    def creates(self, outcomes: Sequence[str | None]) -> bool:
        return not tag_answers.is_there_unlisted(outcomes)

    def contradiction(self, refused: Refused, *, create: bool) -> str | None:
        return tag_answers.read(refused, create=create)

    async def check(self, access: Access) -> Sequence[str]:
        bearer = _usual(access)
        await bearer.token()
        proved = ["Entra issued an App+User token" if bearer.delegated else "Entra issued an App-only token"]
        reply = await self._get(
            "list_customers", bearer, "/v1/customers?size=1", Priority.ASKED, of_customer=False
        )
        wire.items_of(reply.json(), reply)
        return [*proved, "Partner Center accepted the token and listed the customers"]

    async def customers(self, access: Access) -> AsyncIterator[ListedCustomer]:
        """A broken or unreadable page raises: a list cut short would look like consent withdrawn."""
        path = f"/v1/customers?size={CUSTOMERS_PAGE}"
        pages = self._pages(
            "list_customers", _usual(access), path, f"{path}&seekOperation=Next", of_customer=False
        )
        async for items in pages:
            for item in items:
                customer = wire.listed_customer(item)
                if customer is not None:
                    yield customer

    async def consent_link(self, access: Access) -> str:
        path = "/v1/customers/relationshiprequests"
        reply = await self._get("consent_link", _delegated(access), path, of_customer=False)
        body = reply.json()
        link = body.get("url") if isinstance(body, dict) else None
        if not isinstance(link, str) or urlsplit(link).scheme != "https":
            raise NotUnderstood(Said(reply.status, None, "the answer has no link"))
        return link

    async def find_group_tag(self, access: Access, customer_tenant_id: UUID, group_tag: str) -> str | None:
        path = _batches(customer_tenant_id)
        alike: str | None = None
        # BEGUN, because a submission follows at once.
        pages = self._pages("list_batches", _usual(access), path, path, Priority.BEGUN, of_customer=True)
        async for items in pages:
            for item in items:
                name = item.get("id")
                if not isinstance(name, str):
                    # It might be this tag, and then it must not be created: no conclusion without its name.
                    raise NotUnderstood(Said(200, None, "a batch of the list has no name"))
                if name == group_tag:
                    return group_tag
                if alike is None and tag_key(name) == tag_key(group_tag):
                    alike = name
        return alike

    async def submit(self, access: Access, ids: CallIds, submission: Submission) -> Accepted:
        customer, tag = submission.customer_tenant_id, submission.group_tag
        devices = [wire.outgoing(device) for device in submission.devices]
        body: Any = devices
        if submission.create:
            body = {
                "batchId": tag,
                "devices": devices,
                "attributes": {"objectType": "DeviceBatchCreationRequest"},
            }
        call = Call(
            self._service,
            "create_batch" if submission.create else "append_devices",
            "POST",
            _batches(customer) if submission.create else _devices(customer, tag),
            Priority.BEGUN,
            of_customer=True,
            headers=_headers(ids),
            body=orjson.dumps(body),
        )
        reply = await self._microsoft.call(call, _delegated(access) if submission.create else _usual(access))
        return wire.accepted(reply, customer)

    async def poll(self, access: Access, customer_tenant_id: UUID, sent: Accepted) -> Progress:
        path = f"{_customer(customer_tenant_id)}/batchJobStatus/{_segment(sent.tracking_id or '')}"
        return wire.progress(await self._get("job_status", _usual(access), path, of_customer=True))

    async def listed(
        self, access: Access, customer_tenant_id: UUID, group_tag: str, *, max_pages: int
    ) -> AsyncIterator[ListedDevice]:
        """Lists the tag's devices; none if Microsoft does not know the tag."""
        started = False
        path = _devices(customer_tenant_id, group_tag)
        pages = self._pages("list_devices", _usual(access), path, path, of_customer=True, max_pages=max_pages)
        try:
            async for items in pages:
                started = True
                for item in items:
                    yield wire.listed_device(item)
        except Refused as refused:
            if started or refused.said.status != 404 or isinstance(refused, NoRelationship):
                raise

    async def _pages(
        self,
        operation: str,
        bearer: AccessBearer,
        first: str,
        following: str,
        priority: Priority = Priority.FIRST,
        *,
        of_customer: bool,
        max_pages: int = MAX_PAGES,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Yields the items page by page. The pages after the first one have a higher priority."""
        continuation: str | None = None
        for page in range(max_pages):
            reply = await self._get(
                operation,
                bearer,
                following if page else first,
                Priority.NEXT if continuation and priority is Priority.FIRST else priority,
                of_customer=of_customer,
                continuation=continuation,
            )
            body = reply.json()
            yield wire.items_of(body, reply)
            previous, continuation = continuation, wire.continuation_of(body)
            if continuation is None:
                return
            if continuation == previous or not continuation.isascii() or not continuation.isprintable():
                raise NotUnderstood(Said(reply.status, None, "the paging does not advance"))

    async def _get(
        self,
        operation: str,
        bearer: AccessBearer,
        path: str,
        priority: Priority = Priority.FIRST,
        *,
        of_customer: bool,
        continuation: str | None = None,
    ) -> Reply:
        headers = _headers(CallIds(uuid4(), uuid4()), continuation)
        call = Call(self._service, operation, "GET", path, priority, of_customer, headers)
        return await self._microsoft.call(call, bearer)


def open_abilities(settings: Settings, microsoft: Microsoft) -> Abilities:
    driver = PartnerCenter(settings, microsoft)
    return Abilities(registers=driver, lists=driver, consent=driver, group_tags=driver, checks=driver)


def delegated_token(access: Access) -> TokenFor:
    return TokenFor(access.entra_tenant_id, RESOURCE, TokenKind.DELEGATED, "user_impersonation")


def app_token(access: Access) -> TokenFor:
    return TokenFor(access.entra_tenant_id, RESOURCE, TokenKind.APP)


def _usual(access: Access) -> AccessBearer:
    return AccessBearer(access, delegated_token(access) if access.has_delegated else app_token(access))


def _delegated(access: Access) -> AccessBearer:
    if not access.has_delegated:
        raise ConnectionTrouble("credential_missing", Said(description="the connection has no refresh token"))
    return AccessBearer(access, delegated_token(access))


def _headers(ids: CallIds, continuation: str | None = None) -> Mapping[str, str]:
    headers = {
        "MS-RequestId": str(ids.request_id),
        "MS-CorrelationId": str(ids.correlation_id),
        "MS-Contract-Version": "v1",
        "X-Locale": "en-US",
        "MS-PartnerCenter-Application": "Registrar",
    }
    if continuation is not None:
        headers["MS-ContinuationToken"] = continuation
    return headers


def _segment(name: str) -> str:
    """Encodes one path segment. `.` and `..` would lead out of the path."""
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _customer(tenant_id: UUID) -> str:
    return f"/v1/customers/{tenant_id}"


def _batches(tenant_id: UUID) -> str:
    return f"{_customer(tenant_id)}/deviceBatches"


def _devices(tenant_id: UUID, group_tag: str) -> str:
    return f"{_batches(tenant_id)}/{_segment(group_tag)}/devices"
