"""Characters that a database cannot store or that deceive people, in every text of every call.

The texts come from the OpenAPI document, so new calls are tested from their first day.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from app.api.contract.texts import NAME_PATTERN
from app.domain.errors import NotFound, Unprocessable
from app.services.access import identities
from tests.integration.test_api_auth import everything
from tests.integration.test_api_bad_input import TUPLE, problem_of
from tests.support.document import openapi
from tests.support.import_scene import tuple_sheet
from tests.support.portals import portal_partner, tuple_of
from tests.support.world import World

HOSTILE = ("a\x00b", "a\x1b[2Jb", "a\x9bb", "a\u202eb", "a\u2066b\u061c", "a\u2028b", "\x00")
FIT = (
    "Stra\u00dfe 5, M\u00fcnchen",
    "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627",
    "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\U0001f468\u200d\U0001f469",
    "a\u00a0b",
    "a\u3000b",
)
"""Allowed texts: other scripts, joiners inside words and emoji, blanks of other widths."""

DOCUMENT = openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
BODIES = {
    name: content["application/json"]["schema"]
    for name, operation in OPERATIONS.items()
    if "application/json" in (content := operation.get("requestBody", {}).get("content", {}))
}
Path = tuple[str | int, ...]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its references resolved and without null."""
    if "$ref" in schema:
        return resolved(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if len(schema.get("allOf", ())) == 1:
        return resolved(schema["allOf"][0])
    if "anyOf" in schema:
        return resolved(next(part for part in schema["anyOf"] if part.get("type") != "null"))
    return schema


def sample(schema: dict[str, Any]) -> Any:
    """A value with every field of the schema."""
    schema = resolved(schema)
    if "enum" in schema or "const" in schema:
        return schema.get("const") or schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: sample(part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [sample(schema["items"])]
        case "string":
            uuid = "00000000-0000-4000-8000-000000000001"
            return {"uuid": uuid, "date-time": "2026-01-31T08:00:00Z"}.get(schema.get("format", ""), "text")
        case "boolean":
            return False
        case kind:
            assert kind in ("integer", "number"), schema
            return max(1, schema.get("minimum", 1))


def texts(schema: dict[str, Any], at: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The place of each text in a body, with its schema."""
    schema = resolved(schema)
    if schema.get("type") == "string":
        yield at, schema
    for name, part in schema.get("properties", {}).items():
        yield from texts(part, (*at, name))
    if schema.get("type") == "array":
        yield from texts(schema["items"], (*at, 0))


def changed(value: Any, at: Path, text: str) -> Any:
    if not at:
        return text
    if isinstance(value, list):
        return [changed(value[0], at[1:], text)]
    return {**value, str(at[0]): changed(value[at[0]], at[1:], text)}


def filled(path: str, ids: dict[str, str]) -> str:
    for name, id in ids.items():
        path = path.replace(f"{{{name}}}", id)
    return path


@pytest.mark.parametrize("name", BODIES)
async def test_no_text_of_a_body_is_a_servers_error_and_no_name_deceives(world: World, name: str) -> None:
    partner = await world.partner(consented=False)
    ids = dict.fromkeys(IDS, "00000000-0000-4000-8000-000000000002") | {
        "customer_id": str(partner.customer_id),
        "connection_id": str(partner.connection_id),
    }
    method, path = name.split()
    whole = sample(BODIES[name])
    for at, schema in texts(BODIES[name]):
        named = schema.get("pattern") == NAME_PATTERN
        for hostile in HOSTILE if named else HOSTILE[:4]:
            body = {key: ids.get(key, value) for key, value in changed(whole, at, hostile).items()}
            response = await world.client.request(
                method, filled(path, ids), headers=partner.headers, json=changed(body, at, hostile)
            )
            assert response.status_code < 500, (at, hostile, response.text)
            if named:
                found = problem_of(response, 422, "validation_failed")
                codes = {error["pointer"]: error["code"] for error in found["errors"]}
                pointer = "".join(f"/{part}" for part in at)
                assert codes[pointer] == "value_has_control_characters", (at, hostile, found)


IDS = (
    *("import_id", "profile_id", "order_id", "registration_id", "batch_id"),
    *("customer_id", "connection_id", "endpoint_id", "delivery_id"),
)


async def test_no_parameter_is_a_servers_error(world: World) -> None:
    partner = await world.partner()
    ids = await everything(world, partner)
    for name, operation in OPERATIONS.items():
        method, path = name.split()
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "header":
                continue
            schema = resolved(parameter["schema"]) if parameter["schema"] else {"type": "string"}
            for hostile in HOSTILE[:4]:
                at, query = path, ""
                if parameter["in"] == "path":
                    at = path.replace(f"{{{parameter['name']}}}", quote(hostile))
                else:
                    query = f"?{parameter['name']}={quote(hostile)}&"
                response = await world.client.request(
                    method,
                    f"{filled(at, ids)}{query}",
                    headers={**partner.headers, "Content-Type": "text/csv"},
                    content=tuple_sheet(1, "X") if name == "POST /v1/imports" else b"",
                )
                assert response.status_code != 500, (name, parameter["name"], hostile, response.text)
                if parameter["in"] == "query" and schema.get("type") == "string" and "\x00" in hostile:
                    assert response.status_code == 422 or path == "/readyz", (name, parameter, response.text)
                if name == "POST /v1/imports":
                    assert response.status_code == 422, (parameter["name"], hostile, response.text)


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Correlation-Id", "If-None-Match", "Content-Type"])
async def test_no_header_is_a_servers_error(world: World, header: str) -> None:
    partner = await world.partner(consented=False)
    customer = {"connection_id": str(partner.connection_id), "entra_tenant_id": str(partner.id), "name": "n"}
    for value in (b"a\x85b", b"a\x1bb", b"\xff\xfe", b"a\xe2\x80\xaeb"):
        headers: list[tuple[bytes, bytes]] = [
            (b"authorization", partner.headers["Authorization"].encode()),
            (b"content-type", b"application/json"),
        ]
        headers = [pair for pair in headers if pair[0] != header.lower().encode()]
        headers.append((header.encode(), value))
        response = await world.client.post(
            "/v1/customers", headers=headers, content=json.dumps(customer).encode()
        )
        assert response.status_code < 500, response.text
        if header == "Idempotency-Key":
            problem_of(response, 422, "idempotency_key_invalid")


@pytest.mark.parametrize("hostile", HOSTILE[:-1])
@pytest.mark.parametrize("form", [False, True], ids=["parameter", "form"])
async def test_the_name_of_an_uploaded_file_does_not_deceive(world: World, form: bool, hostile: str) -> None:
    partner = await world.partner(consented=False)
    sheet = tuple_sheet(1, "X")
    if form:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s.csv"\r\n\r\n'
        response = await world.client.post(
            "/v1/imports",
            headers={**partner.headers, "Content-Type": "multipart/form-data; boundary=x"},
            content=head % hostile.encode() + sheet + b"\r\n--x--\r\n",
        )
        # The header of a part cannot contain every character.
        assert response.status_code == 422, response.text
    else:
        response = await world.client.post(
            "/v1/imports",
            params={"file_name": hostile},
            headers={**partner.headers, "Content-Type": "text/csv"},
            content=sheet,
        )
        found = problem_of(response, 422, "validation_failed")
        assert [error["code"] for error in found["errors"]] == ["value_has_control_characters"]
    assert await world.count("imports") == 0


DEFINITIONS: dict[str, Any] = {
    "column": lambda text: {"columns": {f"Serial{text}": "serial_number"}},
    "field": lambda text: {"columns": {"Serial": text}},
    "setting": lambda text: {text: {}},
    "constant": lambda text: {"constants": {"manufacturer": f"Contoso{text}"}},
    "constant's field": lambda text: {"constants": {text: "x"}},
    "tag's column": lambda text: {"group_tag": {"column": f"Site{text}", "values": {}}},
    "tag's cell": lambda text: {"group_tag": {"column": "Site", "values": {f"Berlin{text}": "B"}}},
    "tag": lambda text: {"group_tag": {"column": "Site", "values": {"Berlin": f"B{text}"}}},
    "otherwise": lambda text: {"group_tag": {"column": "Site", "otherwise": f"B{text}"}},
    "encoding": lambda text: {"encoding": f"utf-8{text}"},
}


@pytest.mark.parametrize("where", DEFINITIONS)
async def test_no_text_of_a_profile_deceives(world: World, where: str) -> None:
    partner = await world.partner(consented=False)
    good = {"name": "Good", "definition": {"columns": {"Serial\nNumber": "serial_number"}}}
    made = await world.client.post("/v1/vendor-profiles", headers=partner.headers, json=good)
    assert made.status_code == 201, made.text
    path = f"/v1/vendor-profiles/{made.json()['id']}"
    for hostile in HOSTILE[:4]:
        body = {"definition": DEFINITIONS[where](hostile)}
        posted = await world.client.post(
            "/v1/vendor-profiles", headers=partner.headers, json={"name": f"P{hash(hostile)}", **body}
        )
        patched = await world.client.patch(path, headers=partner.headers, json=body)
        for response in (posted, patched):
            problem_of(response, 422, "validation_failed")
    assert (await world.client.get(path, headers=partner.headers)).json()["definition"] == made.json()[
        "definition"
    ]


async def test_a_list_of_results_and_a_file_with_such_characters_are_read_or_refused(world: World) -> None:
    portal = await portal_partner(world)
    order = await portal.order([tuple_of(1)])
    (file,) = await portal.files(order)
    for hostile in HOSTILE:
        response = await world.client.post(
            f"/v1/batches/{file['batch_id']}/portal-result",
            headers={**portal.headers, "Content-Type": "text/csv"},
            content=f"Serial number,Status\r\n{hostile},{hostile}\r\n".encode(),
        )
        assert response.status_code < 500, response.text


@pytest.mark.parametrize("text", FIT)
async def test_names_of_all_scripts_are_taken(world: World, text: str) -> None:
    partner = await world.partner()
    renamed = await world.client.patch(
        f"/v1/customers/{partner.customer_id}", headers=partner.headers, json={"name": f" {text}\n"}
    )
    assert (renamed.status_code, renamed.json()["name"]) == (200, text), renamed.text
    ordered = await world.post_order(partner, [TUPLE], reference=text)
    assert (ordered.status_code, ordered.json()["reference"]) == (201, text), ordered.text
    found = await world.client.get("/v1/orders", headers=partner.headers, params={"reference": text})
    assert [item["reference"] for item in found.json()["items"]] == [text]


@pytest.mark.parametrize("hostile", [*HOSTILE, "a\udce9b"])
async def test_names_of_partners_and_keys_do_not_deceive(world: World, hostile: str) -> None:
    """From the operator's command line, where a name that is not UTF-8 contains surrogates."""
    partner = await world.partner(consented=False)
    for made in (
        identities.create_partner(world.runtime, hostile, identities.PartnerRole.OEM),
        identities.create_key(world.runtime, partner, name=hostile),
    ):
        with pytest.raises(Unprocessable) as refused:
            await made
        assert refused.value.code == "value_has_control_characters"
    with pytest.raises(NotFound):
        await identities.find_partner(world.runtime, hostile)
