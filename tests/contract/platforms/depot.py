"""Depot: a made-up platform that differs from Partner Center in everything that a platform may choose.

Seven devices per call, serial tuples only, a number and an outcome per device, errors of its own, no group
tags, no list, and consent that people record. It tries out the recipe "A platform" in CONTRIBUTING.md.
"""

from uuid import UUID

import orjson

from app.domain.budget import Priority
from app.domain.identity import IdentityKind, OutgoingDevice
from app.domain.registration import Meaning, RegistrationState, UpstreamRow
from app.domain.upstream import (
    ConnectionTrouble,
    NoRelationship,
    NotUnderstood,
    Refused,
    Said,
    UpstreamFailure,
)
from app.kernel.settings import Settings
from app.microsoft.answer import Reply
from app.microsoft.http import Call, Microsoft, Service
from app.platforms.base import (
    Abilities,
    Accepted,
    Access,
    AccessBearer,
    CallIds,
    Capabilities,
    Channel,
    OwnSettings,
    Platform,
    Profiles,
    Progress,
    Submission,
    TagUse,
    TokenFor,
    TokenKind,
)

RESOURCE = "api://depot.example"
FAULTS = {
    "E_OURS": Meaning(RegistrationState.ALREADY_REGISTERED, "already_registered"),
    "E_THEIRS": Meaning(RegistrationState.CONFLICT, "assigned_to_other_tenant"),
    "E_SERIAL": Meaning(RegistrationState.FAILED, "device_not_found"),
    "E_BUSY": Meaning(RegistrationState.FAILED, "upstream_busy"),
}


class DepotSettings(OwnSettings):
    url: str = "https://depot.example"


class Depot:
    """Implements `Registers`."""

    follows_devices = True

    def __init__(self, url: str, microsoft: Microsoft) -> None:
        self._service = Service(url, refusal)
        self._microsoft = microsoft

    def meaning(self, code: str | None, name: str | None) -> Meaning | None:
        return FAULTS.get(code or "")

    async def submit(self, access: Access, ids: CallIds, submission: Submission) -> Accepted:
        body = orjson.dumps([item(device) for device in submission.devices])
        path = f"/tenants/{submission.customer_tenant_id}/enrolments"
        headers = {"Idempotency-Key": str(ids.request_id)}
        call = Call(self._service, "enrol", "POST", path, Priority.BEGUN, True, headers, body)
        reply = await self._microsoft.call(call, bearer(access))
        return Accepted(device_ids=numbers(reply, len(submission.devices)))

    async def poll(self, access: Access, customer_tenant_id: UUID, sent: Accepted) -> Progress:
        rows = [await self._row(access, customer_tenant_id, number) for number in sent.device_ids]
        return Progress(all(row.done for row in rows), rows)

    async def _row(self, access: Access, tenant_id: UUID, number: str | None) -> UpstreamRow:
        path = f"/tenants/{tenant_id}/enrolments/{number}"
        call = Call(self._service, "enrolment", "GET", path, Priority.FIRST, True)
        body = (await self._microsoft.call(call, bearer(access))).json()
        if not isinstance(body, dict) or body.get("phase") not in ("pending", "done", "failed"):
            raise NotUnderstood(Said(200, None, "the answer is no enrolment"))
        done = body["phase"] != "pending"
        return UpstreamRow(done, body.get("fault"), None, device_id=number)


def bearer(access: Access) -> AccessBearer:
    return AccessBearer(access, TokenFor(access.entra_tenant_id, RESOURCE, TokenKind.APP))


def item(device: OutgoingDevice) -> dict[str, str | None]:
    return {"sn": device.serial_number, "vendor": device.manufacturer, "type": device.model}


def numbers(reply: Reply, count: int) -> list[str | None]:
    found = reply.json()
    if not isinstance(found, list) or len(found) != count:
        raise NotUnderstood(Said(reply.status, None, "not every device has a number"))
    return [None if number is None else str(number) for number in found]


def refusal(said: Said, of_customer: bool) -> UpstreamFailure:
    match said.code:
        case "E_NOT_YOURS":
            return NoRelationship(said)
        case "E_CONTRACT":
            return ConnectionTrouble("access_denied", said)
        case _:
            return Refused("batch_refused", said, divisible=False)


def open_abilities(settings: Settings, microsoft: Microsoft) -> Abilities:
    return Abilities(registers=Depot(DepotSettings.of("depot").url, microsoft))


PLATFORM = Platform(
    name="depot",
    title="Depot",
    capabilities=Capabilities(
        max_devices=7,
        identities=frozenset({IdentityKind.TUPLE}),
        profiles=Profiles.NONE,
        channel=Channel.API,
        group_tags=TagUse.NONE,
    ),
    note="A made-up desk that takes seven serial numbers a call.",
    open=open_abilities,
)
