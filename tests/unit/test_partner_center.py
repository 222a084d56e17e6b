"""The Partner Center driver at the wire: what it sends, and how it reads what the documents leave open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from app.domain import autopilot_errors, hardware_hash
from app.domain.batch import match_answers
from app.domain.identity import OutgoingDevice
from app.domain.registration import RegistrationState, UpstreamRow, interpret
from app.domain.upstream import ConnectionTrouble, NoRelationship, NotUnderstood, OutcomeUnknown, Refused
from app.kernel.settings import Settings
from app.microsoft.http import Microsoft
from app.platforms.base import (
    Accepted,
    CallIds,
    ListedCustomer,
    ListedDevice,
    Submission,
    TokenFor,
)
from app.platforms.partner_center import PLATFORM
from app.platforms.partner_center.driver import PartnerCenter
from tests.support.gates import OpenGate

CUSTOMER = UUID("c0ffee00-1111-4222-8333-444455556666")
PARTNER = UUID("0badcafe-1111-4222-8333-444455556666")
JOB = "0127ed8e-dbd5-49e0-9d96-40d1e6ae3c7d"
IDS = CallIds(UUID(int=1), UUID(int=2))
SCOPES = {
    "https://api.partnercenter.microsoft.com/.default": "app",
    "https://api.partnercenter.microsoft.com/user_impersonation": "delegated",
}
BATCHES = f"/v1/customers/{CUSTOMER}/deviceBatches"


class Connection:
    """One connection with fixed tokens: `app` and, unless told otherwise, `delegated`."""

    connection_id = UUID(int=7)
    entra_tenant_id = PARTNER

    def __init__(self, *, has_delegated: bool = True) -> None:
        self.has_delegated = has_delegated
        self.gate = OpenGate()

    async def token(self, wanted: TokenFor) -> str:
        assert wanted.tenant_id == PARTNER
        return SCOPES[wanted.scope]

    def forget_token(self, wanted: TokenFor) -> None:
        """There is no other."""


class Wire:
    """Partner Center at the wire: the answers in their order, and the requests it got."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers.pop(0)

    @property
    def targets(self) -> list[str]:
        return [request.url.raw_path.decode() for request in self.requests]

    @property
    def tokens(self) -> list[str]:
        return [request.headers["authorization"].removeprefix("Bearer ") for request in self.requests]


@asynccontextmanager
async def driver(wire: Wire) -> AsyncIterator[PartnerCenter]:
    settings = Settings(partner_center_url="http://partner-center.test")
    microsoft = Microsoft.open(settings, transport=httpx.MockTransport(wire))
    try:
        yield PartnerCenter(settings, microsoft)
    finally:
        await microsoft.close()


def ok(body: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(200, headers=headers, content=b"" if body is None else orjson.dumps(body))


def page(*items: Any, **more: Any) -> httpx.Response:
    return ok({"totalCount": len(items), "items": list(items), **more})


# --- submitting -----------------------------------------------------------------------------------

TUPLE = OutgoingDevice(serial_number="1R9-ZNP67", manufacturer="Contoso Ltd.", model="Latitude é/7")
PKID = OutgoingDevice(product_key="0123456789012")
HASH = OutgoingDevice(hash_data=b"\x4f\x41" * 600)


def submission(*devices: OutgoingDevice, create: bool = True, tag: str = "Sales EU") -> Submission:
    return Submission(CUSTOMER, tag, create, devices)


async def submitted(answer: httpx.Response, wanted: Submission) -> tuple[Accepted, httpx.Request]:
    wire = Wire(answer)
    async with driver(wire) as partner_center:
        accepted = await partner_center.submit(Connection(), IDS, wanted)
    return accepted, wire.requests[0]


async def test_a_new_group_tag_is_made_with_its_devices_in_one_call() -> None:
    accepted, request = await submitted(
        httpx.Response(202, headers={"Location": f"/customers/{CUSTOMER}/batchJobStatus/{JOB}"}),
        submission(TUPLE, PKID, HASH),
    )
    assert accepted == Accepted(JOB)
    assert (request.method, request.url.path) == ("POST", BATCHES)
    expected = {
        "MS-RequestId": str(IDS.request_id),
        "MS-CorrelationId": str(IDS.correlation_id),
        "MS-Contract-Version": "v1",
        "X-Locale": "en-US",
        "MS-PartnerCenter-Application": "Registrar",
        "MS-ContinuationToken": None,
    }
    assert {name: request.headers.get(name) for name in expected} == expected
    assert orjson.loads(request.content) == {
        "batchId": "Sales EU",
        "devices": [
            {"serialNumber": "1R9-ZNP67", "oemManufacturerName": "Contoso Ltd.", "modelName": "Latitude é/7"},
            {"productKey": "0123456789012"},
            {"hardwareHash": hardware_hash.encode(b"\x4f\x41" * 600)},
        ],
        "attributes": {"objectType": "DeviceBatchCreationRequest"},
    }


async def test_an_existing_group_tag_gets_a_bare_array() -> None:
    _, request = await submitted(httpx.Response(202), submission(PKID, create=False))
    assert request.url.raw_path.decode() == f"{BATCHES}/Sales%20EU/devices"
    assert orjson.loads(request.content) == [{"productKey": "0123456789012"}]


@pytest.mark.parametrize(
    "tag, segment",
    [
        ("a/b", "a%2Fb"),
        ("50%", "50%25"),
        ("%2F", "%252F"),
        ("a?b#c", "a%3Fb%23c"),
        ("Zürich", "Z%C3%BCrich"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("v1.2", "v1.2"),
        ("a+b&c", "a%2Bb%26c"),
        (" x ", "%20x%20"),
    ],
)
async def test_any_group_tag_stays_one_path_segment_to_the_wire(tag: str, segment: str) -> None:
    _, request = await submitted(httpx.Response(202), submission(PKID, create=False, tag=tag))
    assert request.url.raw_path.decode() == f"{BATCHES}/{segment}/devices"


@pytest.mark.parametrize("create, has_delegated, token", [(False, True, "delegated"), (False, False, "app")])
async def test_appending_takes_the_best_token_there_is(create: bool, has_delegated: bool, token: str) -> None:
    wire = Wire(httpx.Response(202))
    async with driver(wire) as partner_center:
        await partner_center.submit(
            Connection(has_delegated=has_delegated), IDS, submission(PKID, create=create)
        )
    assert wire.tokens == [token]


async def test_creating_and_consent_links_need_a_refresh_token_and_ask_nobody_without() -> None:
    wire = Wire()
    async with driver(wire) as partner_center:
        for attempt in (
            partner_center.submit(Connection(has_delegated=False), IDS, submission(PKID)),
            partner_center.consent_link(Connection(has_delegated=False)),
        ):
            with pytest.raises(ConnectionTrouble) as raised:
                await attempt
            assert raised.value.code == "credential_missing"
    assert wire.requests == []


def located(location: str) -> httpx.Response:
    return httpx.Response(202, headers={"Location": location})


@pytest.mark.parametrize(
    "answer, tracking_id",
    [
        (located(f"/customers/{CUSTOMER}/batchJobStatus/{JOB}"), JOB),
        (located(f"/customers/{CUSTOMER}/batchjobstatus/{JOB}/"), JOB),
        (located(f"/v1//customers/{CUSTOMER}/batchJobStatus/{JOB}"), JOB),
        (located(f"customers/{CUSTOMER}/batchJobStatus/{JOB}"), JOB),
        (
            located(f"https://api.partnercenter.microsoft.com/v1/customers/{CUSTOMER}/batchJobStatus/{JOB}"),
            JOB,
        ),
        (located(f"/customers/{CUSTOMER}/batchJobStatus/{JOB}?api-version=1#x"), JOB),
        (located(f"/customers/{CUSTOMER}/batchJobStatus/{JOB.upper()}"), JOB.upper()),
        (located(f"/customers/{CUSTOMER}"), None),
        (located(f"/customers/{CUSTOMER}/deviceBatches/Sales"), None),
        (located("http://[broken"), None),
        (located(""), None),
        (httpx.Response(202), None),
        (httpx.Response(202, content=b""), None),
        (httpx.Response(202, text="<html>"), None),
        (httpx.Response(202, content=b"null"), None),
        (ok({"uri": f"/customers/{CUSTOMER}/batchJobStatus/{JOB}", "method": "GET", "headers": []}), JOB),
        (ok({"links": {"self": {"uri": f"/v1/customers/{CUSTOMER}/batchJobStatus/{JOB}"}}}), JOB),
        (ok([{"Location": f"/customers/{CUSTOMER}/batchJobStatus/{JOB}"}]), JOB),
        (ok(f"/customers/{CUSTOMER}/batchJobStatus/{JOB}"), JOB),
        (ok(JOB), JOB),
        (ok({"BatchTrackingId": JOB}), JOB),
        (ok({"correlationId": JOB}), None),
        (ok({"id": JOB, "self": f"/customers/{CUSTOMER}/deviceBatches/{JOB}"}), None),
        (httpx.Response(202, headers={"Location": f"/x/{JOB}"}, text="<html>"), JOB),
    ],
)
async def test_the_job_is_found_in_the_location_or_in_the_body(
    answer: httpx.Response, tracking_id: str | None
) -> None:
    accepted, _ = await submitted(answer, submission(PKID))
    assert accepted == Accepted(tracking_id)


async def test_a_thousand_devices_with_hashes_go_out_in_one_body() -> None:
    wanted = submission(*[OutgoingDevice(hash_data=index.to_bytes(4, "big") * 300) for index in range(1000)])
    _, request = await submitted(httpx.Response(202), wanted)
    sent = orjson.loads(request.content)["devices"]
    assert [len(device["hardwareHash"]) for device in sent] == [4000] * 1000
    assert len({device["hardwareHash"] for device in sent}) == 1000


# --- job status -----------------------------------------------------------------------------------


async def polled(body: Any) -> tuple[bool, list[UpstreamRow]]:
    wire = Wire(ok(body))
    async with driver(wire) as partner_center:
        progress = await partner_center.poll(Connection(), CUSTOMER, Accepted(JOB))
    assert wire.targets == [f"/v1/customers/{CUSTOMER}/batchJobStatus/{JOB}"]
    return progress.finished, list(progress.rows)


@pytest.mark.parametrize(
    "body, doubt",
    [
        ({"status": "processing"}, None),
        ({"status": "in-progress", "devicesStatus": None}, None),
        ({"status": "finished", "devicesStatus": [{"status": "Finished_With_Errors"}]}, None),
        ({"status": 2, "devicesStatus": [{"status": "unknown"}]}, None),
        ({"status": "finished", "devicesStatus": [{"errorCode": "812"}]}, None),
        ({}, "the job's status is missing"),
        ({"status": "done"}, "the job's status is not a known word: 'done'"),
        ({"status": "finished", "devicesStatus": {}}, "the job's devices are no list"),
        ({"status": "finished", "devicesStatus": 3}, "the job's devices are no list"),
        ({"status": "finished", "devicesStatus": ["?"]}, "a device of the job is no object"),
        ({"status": "finished", "devicesStatus": [{}]}, "a device's status is missing"),
        (
            {"status": "finished", "devicesStatus": [{"status": "done"}]},
            "a device's status is not a known word: 'done'",
        ),
    ],
)
async def test_what_a_job_status_says_and_cannot_be_read_is_told(body: Any, doubt: str | None) -> None:
    async with driver(Wire(ok(body))) as partner_center:
        progress = await partner_center.poll(Connection(), CUSTOMER, Accepted(JOB))
    told = progress.not_understood
    assert (told.description if told else None) == doubt


@pytest.mark.parametrize(
    "status, finished",
    [
        ("finished", True),
        ("finished_with_errors", True),
        ("FinishedWithErrors", True),
        (3, True),
        ("4", True),
        ("unknown", False),
        ("queued", False),
        ("processing", False),
        ("in-progress", False),
        ("in_progress", False),
        (0, False),
        (None, False),
        ("something new", False),
    ],
)
async def test_which_batch_status_is_the_end(status: Any, finished: bool) -> None:
    assert await polled({"batchTrackingId": JOB, "status": status, "devicesStatus": []}) == (finished, [])


@pytest.mark.parametrize(
    "batch, device, meaning",
    [
        ("finished", {"status": "finished"}, RegistrationState.REGISTERED),
        ("processing", {"status": "finished"}, RegistrationState.REGISTERED),
        ("finished_with_errors", {"status": "finished", "errorCode": ""}, RegistrationState.REGISTERED),
        ("finished", {"status": "finished", "errorCode": None}, RegistrationState.REGISTERED),
        ("finished", {"status": "finished", "errorCode": 0}, RegistrationState.REGISTERED),
        ("finished", {"status": "finished", "errorCode": "200"}, RegistrationState.REGISTERED),
        # the documented sample: the batch says finished, the device does not
        (
            "finished",
            {
                "status": "finished_with_errors",
                "errorCode": "808",
                "errorDescription": "ZtdDeviceAssignedToOtherTenant",
            },
            RegistrationState.CONFLICT,
        ),
        ("finished", {"status": "finished", "errorCode": "808"}, RegistrationState.CONFLICT),
        (
            "finished",
            {"status": "finished_with_errors", "errorCode": 806},
            RegistrationState.ALREADY_REGISTERED,
        ),
        ("finished", {"errorCode": "812"}, RegistrationState.FAILED),
        ("finished", {"status": "finished_with_errors"}, RegistrationState.FAILED),
        ("processing", {"status": "finished_with_errors"}, RegistrationState.FAILED),
        (
            "finished",
            {"status": "finished_with_errors", "errorDescription": "StorageError"},
            RegistrationState.FAILED,
        ),
        ("processing", {"status": "processing"}, None),
        ("processing", {"status": "queued", "errorCode": "808"}, None),
        # not known to be registered, whatever the batch says
        ("finished", {"status": "in-progress"}, None),
        ("finished", {"status": "unknown"}, None),
        ("finished", {}, None),
    ],
)
async def test_what_a_devices_status_means(
    batch: str, device: dict[str, Any], meaning: RegistrationState | None
) -> None:
    _, rows = await polled({"status": batch, "devicesStatus": [{"serialNumber": "S1", **device}]})
    found = interpret(rows[0], autopilot_errors.meaning, was_uncertain=False)
    assert (found.state if found else None) is meaning


async def test_errors_without_any_code_are_shown_by_the_name_of_the_status() -> None:
    _, rows = await polled({"status": "finished", "devicesStatus": [{"status": "finished_with_errors"}]})
    assert (rows[0].code, rows[0].name) == (None, "finished_with_errors")


async def test_the_rows_keep_their_order_and_are_read_in_any_casing() -> None:
    finished, rows = await polled(
        {
            "BatchTrackingId": JOB,
            "Status": "Finished",
            "DevicesStatus": [
                {"SerialNumber": " S1 ", "Status": "Finished", "DeviceId": "D1", " attributes": {}},
                {"productKey": 123456789012, "status": "finished"},
                None,
                {"status": "finished_with_errors", "errorCode": 808},
            ],
        }
    )
    assert finished
    assert rows == [
        UpstreamRow(True, None, None, "S1", None, "D1"),
        UpstreamRow(True, None, None, None, "123456789012", None),
        UpstreamRow(True, "808", None, None, None, None),
    ]
    assert len(match_answers([PKID.as_sent(), TUPLE.as_sent(), HASH.as_sent()], rows)) == 3


@pytest.mark.parametrize("devices", [None, {}, "none", []])
async def test_a_status_without_devices_has_no_rows(devices: Any) -> None:
    assert await polled({"status": "processing", "devicesStatus": devices}) == (False, [])


@pytest.mark.parametrize("answer", [ok(["?"]), ok(None), httpx.Response(200, text="<html>")])
async def test_a_status_that_can_not_be_read_is_no_status(answer: httpx.Response) -> None:
    async with driver(Wire(answer)) as partner_center:
        with pytest.raises(NotUnderstood) as raised:
            await partner_center.poll(Connection(), CUSTOMER, Accepted(JOB))
    assert raised.value.answered


async def test_a_job_microsoft_does_not_know_is_refused_with_its_status() -> None:
    answer = httpx.Response(404, json={"code": "1000", "description": "Batch job not found."})
    async with driver(Wire(answer)) as partner_center:
        with pytest.raises(Refused) as raised:
            await partner_center.poll(Connection(), CUSTOMER, Accepted(JOB))
    assert type(raised.value) is Refused
    assert raised.value.said.status == 404


# --- listings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, wanted, found",
    [
        (["Sales", "Ops"], "Sales", "Sales"),
        (["SALES", "Ops"], "Sales", "SALES"),
        (["SALES", "sales", "Sales"], "Sales", "Sales"),
        (["STRASSE"], "straße", "STRASSE"),
        (["Test batch"], "test batch", "Test batch"),
        (["Sales "], "Sales", None),
        ([], "Sales", None),
    ],
)
async def test_a_group_tag_is_found_without_case_but_the_exact_one_first(
    names: list[Any], wanted: str, found: str | None
) -> None:
    wire = Wire(page(*({"id": name, "deviceCount": 1} for name in names)))
    async with driver(wire) as partner_center:
        assert await partner_center.find_group_tag(Connection(), CUSTOMER, wanted) == found
    assert wire.targets == [BATCHES]


@pytest.mark.parametrize(
    "answer",
    [
        ok({}),
        ok({"items": None}),
        ok({"items": "?"}),
        ok({"items": ["?"]}),
        ok({"totalCount": 3}),
        ok("?"),
        ok(None),
        httpx.Response(200, text="<html>", headers={"content-type": "text/html"}),
        httpx.Response(200),
        httpx.Response(302, headers={"location": "https://proxy.test/"}),
    ],
)
async def test_an_answer_without_items_is_never_taken_for_an_empty_list(answer: httpx.Response) -> None:
    for ask in (
        lambda made: made.find_group_tag(Connection(), CUSTOMER, "Sales"),
        lambda made: collect(made.customers(Connection())),
        lambda made: collect(made.listed(Connection(), CUSTOMER, "Sales", max_pages=1)),
    ):
        async with driver(Wire(answer)) as partner_center:
            with pytest.raises(NotUnderstood):
                await ask(partner_center)


@pytest.mark.parametrize("name", [None, 5])
async def test_a_list_of_batches_with_a_nameless_one_leads_to_no_conclusion(name: Any) -> None:
    async with driver(Wire(page({"id": name}))) as partner_center:
        with pytest.raises(NotUnderstood):
            await partner_center.find_group_tag(Connection(), CUSTOMER, "Sales")


async def test_an_empty_collection_is_empty_in_either_form() -> None:
    for answer in (page(), ok({"totalCount": 0, "items": None}), ok({"TotalCount": 0}), ok([])):
        async with driver(Wire(answer)) as partner_center:
            assert await collect(partner_center.customers(Connection())) == []


async def collect(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


async def test_devices_are_listed_page_by_page_with_the_token_in_a_header() -> None:
    first = {
        "id": "9993-8627-3608-6844",
        "serialNumber": "S1",
        "productKey": "",
        "modelName": "M",
        "oemManufacturerName": "C",
        "policies": [{"key": "o_o_b_e", "value": None}],
        "uploadedDate": "2017-07-25T01:51:00.1234567-07:00",
        " attributes": {"objectType": "Device"},
    }
    second = {"Id": "D2", "ProductKey": "0123456789012", "uploadedDate": "0001-01-01T00:00:00"}
    wire = Wire(page(first, continuationToken="tok/2+="), page(second))
    async with driver(wire) as partner_center:
        found = await collect(partner_center.listed(Connection(), CUSTOMER, "Test batch", max_pages=9))
    assert found == [
        ListedDevice("9993-8627-3608-6844", "S1", "C", "M", None),
        ListedDevice("D2", None, None, None, "0123456789012"),
    ]
    assert wire.targets == [f"{BATCHES}/Test%20batch/devices"] * 2
    assert [request.headers.get("ms-continuationtoken") for request in wire.requests] == [None, "tok/2+="]
    assert len({request.headers["ms-requestid"] for request in wire.requests}) == 2


async def test_no_more_pages_are_read_than_allowed() -> None:
    wire = Wire(*(page({"id": str(n)}, continuationToken=f"t{n}") for n in range(5)))
    async with driver(wire) as partner_center:
        found = await collect(partner_center.listed(Connection(), CUSTOMER, "Sales", max_pages=3))
    assert [device.device_id for device in found] == ["0", "1", "2"]
    assert len(wire.requests) == 3


async def test_an_unknown_group_tag_holds_no_devices() -> None:
    answer = httpx.Response(404, json={"code": "1000", "description": "Device batch not found."})
    async with driver(Wire(answer)) as partner_center:
        assert await collect(partner_center.listed(Connection(), CUSTOMER, "Sales", max_pages=1)) == []


@pytest.mark.parametrize(
    "answers, failure",
    [
        ([httpx.Response(404, json={"code": 1000, "description": "Customer not found."})], NoRelationship),
        ([httpx.Response(400)], Refused),
        ([page({"id": "1"}, continuationToken="t"), httpx.Response(404)], Refused),
        ([page({"id": "1"}, continuationToken="t"), page({}, continuationToken="t")], NotUnderstood),
        ([page({"id": "1"}, continuationToken="two\r\nlines")], NotUnderstood),
        ([page({"id": "1"}, continuationToken="t"), httpx.Response(503)], OutcomeUnknown),
    ],
)
async def test_a_listing_that_breaks_is_not_taken_for_a_short_one(
    answers: list[httpx.Response], failure: type[Exception]
) -> None:
    async with driver(Wire(*answers)) as partner_center:
        with pytest.raises(failure) as raised:
            await collect(partner_center.listed(Connection(), CUSTOMER, "Sales", max_pages=9))
    assert type(raised.value) is failure


# --- customers and consent ------------------------------------------------------------------------


def customer(number: int, **more: Any) -> dict[str, Any]:
    tenant = str(UUID(int=number))
    profile = {"tenantId": tenant, "domain": f"c{number}.test", "companyName": f"Customer {number}"}
    return {"id": tenant, "companyProfile": profile, "relationshipToPartner": "reseller", **more}


async def test_customers_are_read_to_the_last_page() -> None:
    following = {"uri": "/customers?x", "headers": [{"key": "MS-ContinuationToken", "value": "two"}]}
    wire = Wire(
        page(customer(1), continuationToken="one"),
        page(customer(2), links={"next": following}),
        page(customer(3)),
    )
    async with driver(wire) as partner_center:
        found = await collect(partner_center.customers(Connection(has_delegated=False)))
    assert found == [ListedCustomer(UUID(int=n), f"Customer {n}", f"c{n}.test") for n in (1, 2, 3)]
    assert wire.targets == [
        "/v1/customers?size=500",
        "/v1/customers?size=500&seekOperation=Next",
        "/v1/customers?size=500&seekOperation=Next",
    ]
    assert [request.headers.get("ms-continuationtoken") for request in wire.requests] == [None, "one", "two"]
    assert wire.tokens == ["app"] * 3


@pytest.mark.parametrize(
    "item, counts",
    [
        (customer(1), True),
        (customer(1, relationshipToPartner="Reseller"), True),
        (customer(1, relationshipToPartner=None), True),
        (customer(1, relationshipToPartner="advisor"), False),
        (customer(1, relationshipToPartner="none"), False),
        (customer(1, relationshipToPartner="unknown"), False),
        (customer(1, id=None), True),
        (customer(1, id=str(UUID(int=1)).upper()), True),
        (customer(1, id="not a guid"), True),
        ({"Id": str(UUID(int=1)), "CompanyProfile": None}, True),
    ],
)
async def test_who_counts_as_a_customer(item: dict[str, Any], counts: bool) -> None:
    async with driver(Wire(page(item))) as partner_center:
        found = await collect(partner_center.customers(Connection()))
    assert [one.tenant_id for one in found] == ([UUID(int=1)] if counts else [])


@pytest.mark.parametrize("item", [{}, {"id": "not a guid"}, {"companyProfile": {"tenantId": ""}}])
async def test_a_customer_without_a_tenant_is_not_passed_over(item: dict[str, Any]) -> None:
    """Its absence would look as if it had withdrawn its consent."""
    async with driver(Wire(page(customer(2), item))) as partner_center:
        with pytest.raises(NotUnderstood):
            await collect(partner_center.customers(Connection()))


async def test_the_consent_link_is_asked_for_with_the_users_token() -> None:
    link = "https://admin.microsoft.com/Adminportal/Home?invType=ResellerRelationship#/partners/invitation"
    wire = Wire(ok({"url": link, "attributes": {"objectType": "RelationshipRequest"}}))
    async with driver(wire) as partner_center:
        assert await partner_center.consent_link(Connection()) == link
    assert (wire.targets, wire.tokens) == (["/v1/customers/relationshiprequests"], ["delegated"])


@pytest.mark.parametrize("body", [{}, {"url": None}, {"url": "javascript:alert(1)"}, ["?"]])
async def test_what_is_no_link_is_not_given_to_a_customer(body: Any) -> None:
    async with driver(Wire(ok(body))) as partner_center:
        with pytest.raises(NotUnderstood):
            await partner_center.consent_link(Connection())


async def test_the_check_reads_one_customer_and_says_what_it_proved() -> None:
    wire = Wire(page(customer(1)))
    async with driver(wire) as partner_center:
        proved = await partner_center.check(Connection())
    assert wire.targets == ["/v1/customers?size=1"]
    assert {request.method for request in wire.requests} == {"GET"}
    assert len(proved) == 2


async def test_a_partner_refused_its_own_customers_has_a_broken_connection() -> None:
    async with driver(
        Wire(httpx.Response(403, json={"code": "2032", "description": "Access denied"}))
    ) as made:
        with pytest.raises(ConnectionTrouble) as raised:
            await made.check(Connection())
    assert raised.value.code == "access_denied"


def test_indirect_resellers_are_barred() -> None:
    assert PLATFORM.barred_roles == {"indirect_reseller"}
