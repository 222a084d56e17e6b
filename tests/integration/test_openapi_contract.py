"""The OpenAPI document for client generators: stable names, and no types that surprise them."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from app.api.contract.examples import BODIES
from app.domain.event import EventType
from app.kernel.settings import Settings
from app.main import build
from tests.support.document import openapi

DOCUMENT = openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
VERBS = {
    "get", "list", "create", "update", "delete", "download", "cancel", "retry", "commit", "discard", "check",
    "test", "rotate", "redeliver", "request", "recheck", "record", "mark", "undo", "reset",
    "revoke",
}  # fmt: skip

RELEASED = [
    "getHealth",
    "getReadiness",
    "listPlatforms",
    "listErrorCodes",
    "getErrorCode",
    "getMe",
    "getLimits",
    "getStatus",
    "createOrder",
    "listOrders",
    "getOrder",
    "cancelOrder",
    "retryFailedDevices",
    "listOrderRegistrations",
    "downloadOrderResult",
    "listRegistrations",
    "getRegistration",
    "listDevices",
    "getDevice",
    "listBatches",
    "listBatchesOfOrder",
    "getBatch",
    "createImport",
    "listImports",
    "getImport",
    "listImportRows",
    "listImportProblems",
    "downloadImportErrors",
    "commitImport",
    "discardImport",
    "createVendorProfile",
    "listVendorProfiles",
    "getVendorProfile",
    "updateVendorProfile",
    "deleteVendorProfile",
    "listPortalFiles",
    "downloadPortalFile",
    "markBatchUploaded",
    "undoBatchUpload",
    "recordBatchOutcome",
    "recordPortalResult",
    "createCustomer",
    "listCustomers",
    "getCustomer",
    "updateCustomer",
    "getCustomerConsent",
    "requestCustomerConsent",
    "recheckCustomerConsent",
    "recordCustomerConsent",
    "createConnection",
    "listConnections",
    "getConnection",
    "updateConnection",
    "checkConnection",
    "createWebhookEndpoint",
    "listWebhookEndpoints",
    "getWebhookEndpoint",
    "updateWebhookEndpoint",
    "deleteWebhookEndpoint",
    "testWebhookEndpoint",
    "rotateWebhookSecret",
    "listWebhookEndpointDeliveries",
    "listWebhookDeliveries",
    "getWebhookDelivery",
    "redeliverWebhook",
    "deleteCustomer",
    "deleteConnection",
    "rotateOwnKey",
    "revokeOwnKey",
]
"""Clients have methods with these names: removing or renaming one breaks somebody's program."""


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a document, at every depth."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    if isinstance(node, list):
        for value in node:
            yield from nodes(value)


def reached_from(node: Any) -> set[str]:
    """The names of all schemas that are referred to, directly or through others."""
    found: set[str] = set()
    ahead = [node]
    while ahead:
        for part in nodes(ahead.pop()):
            name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in SCHEMAS and name not in found:
                found.add(name)
                ahead.append(SCHEMAS[name])
    return found


REQUESTS = reached_from([operation.get("requestBody") for operation in OPERATIONS.values()])
ANSWERS = reached_from([operation["responses"] for operation in OPERATIONS.values()]) | reached_from(
    DOCUMENT["webhooks"]
)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operations_id_is_a_short_verb_and_noun(name: str) -> None:
    id = OPERATIONS[name]["operationId"]
    assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", id), id
    assert len(id) <= 32
    assert re.split(r"(?=[A-Z])", id)[0] in VERBS


def test_operation_ids_are_unique_and_stay() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert sorted(ids) == sorted(RELEASED)
    ids += [webhook["post"]["operationId"] for webhook in DOCUMENT["webhooks"].values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_has_a_name_of_its_own_without_a_python_path(name: str) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)
    assert name in REQUESTS | ANSWERS, "nothing uses it"


def test_no_shape_is_both_written_by_the_caller_and_by_registrar() -> None:
    shared = {name for name in REQUESTS & ANSWERS if "enum" not in SCHEMAS[name]}
    assert shared == set()


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_what_a_caller_may_leave_out_is_optional_and_has_no_default(name: str) -> None:
    schema = SCHEMAS[name]
    for field, shape in schema.get("properties", {}).items():
        assert "default" not in shape, field  # generators would make the field required
        nullable = {"type": "null"} in shape.get("anyOf", [])
        assert not (nullable and field in schema.get("required", [])), field


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_in_a_body_has_a_default(name: str) -> None:
    assert not any("default" in part for part in nodes(OPERATIONS[name].get("requestBody", {})))


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_every_field_of_an_answer_is_there_always(name: str) -> None:
    schema = SCHEMAS[name]
    assert set(schema.get("required", [])) == set(schema.get("properties", {}))
    assert not any("default" in shape for shape in schema.get("properties", {}).values())


def test_times_are_times() -> None:
    told = {
        f"{name}.{field}"
        for name in ANSWERS
        for field, shape in SCHEMAS[name].get("properties", {}).items()
        if field.endswith("_at") and "date-time" not in {part.get("format") for part in nodes(shape)}
    }
    assert told == set()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_json_body_has_an_example_that_is_right(name: str) -> None:
    content = OPERATIONS[name].get("requestBody", {}).get("content", {})
    if "application/json" in content:
        body = content["application/json"]
        assert "example" in body, "add one to app/api/contract/examples.py"
        schema = {**body["schema"], "components": {"schemas": SCHEMAS}}
        jsonschema_rs.Draft202012Validator(schema).validate(body["example"])


def test_there_is_no_example_without_its_body() -> None:
    assert set(BODIES) <= REQUESTS


@pytest.mark.parametrize("name", OPERATIONS)
def test_security_is_said_of_every_operation(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["security"] in ([], [{"apiKey": []}])
    assert ("401" in operation["responses"]) is bool(operation["security"])


def test_the_document_says_where_the_service_is() -> None:
    assert DOCUMENT["servers"] == [{"url": "/", "description": "This installation."}]
    public = build(Settings(public_url="https://registrar.example/base/")).openapi()
    assert public["servers"][0]["url"] == "https://registrar.example/base"


def test_an_order_that_was_taken_and_one_that_was_checked_are_told_apart() -> None:
    responses = OPERATIONS["POST /v1/orders"]["responses"]
    names = [
        responses[status]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for status in ("200", "201")
    ]
    assert names == ["OrderValidated", "OrderAccepted"]
    assert [SCHEMAS[name]["properties"]["result"]["const"] for name in names] == ["validated", "accepted"]


def test_bodies_that_are_files_have_types_that_generators_know() -> None:
    known = {"application/json", "multipart/form-data", "application/octet-stream"}
    taken = {kind for o in OPERATIONS.values() for kind in o.get("requestBody", {}).get("content", {})}
    assert taken == known
    for operation in OPERATIONS.values():
        for response in operation["responses"].values():
            if "text/csv" in response.get("content", {}):
                assert response["content"]["text/csv"]["schema"] == {"type": "string"}


def test_there_is_a_webhook_for_each_type_of_event_with_that_type_alone() -> None:
    assert set(DOCUMENT["webhooks"]) == {type.value for type in EventType}
    for name, webhook in DOCUMENT["webhooks"].items():
        assert webhook["post"]["security"] == []
        shape, only = webhook["post"]["requestBody"]["content"]["application/json"]["schema"]["allOf"]
        type_of = SCHEMAS[shape["$ref"].rpartition("/")[2]]["properties"]["type"]
        assert only["properties"]["type"] == {"const": name}
        assert name in (type_of.get("enum") or [type_of["const"]])


def test_no_state_is_documented_that_nothing_reaches() -> None:
    text = str(DOCUMENT)
    assert "deregister" not in text
    assert set(SCHEMAS["Counts"]["properties"]) - {"total"} == set(SCHEMAS["RegistrationState"]["enum"])
