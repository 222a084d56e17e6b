"""Checks events against the OpenAPI document: exactly the published fields of their types."""

from copy import deepcopy
from dataclasses import fields
from functools import cache
from typing import Any

import jsonschema_rs
import orjson

from app.domain.webhook import StoredEvent
from app.services.webhooks.deliveries import payload
from tests.support.document import openapi
from tests.support.world import World


def require_published(event: Any) -> None:
    """Raises AssertionError for an event that differs from its published shape."""
    type = event["type"]
    if type not in _document()["webhooks"]:
        raise AssertionError(f"No webhook {type} is published.")
    wrong = [f"{type}: {each.message}: {each.instance_path}" for each in _shape_of(type).iter_errors(event)]
    if wrong:
        raise AssertionError("\n".join(wrong))


async def require_all_published(world: World) -> None:
    """Checks the signed body of every event in the database."""
    names = ", ".join(field.name for field in fields(StoredEvent))
    for event in await world.select(f"SELECT {names} FROM events"):
        require_published(orjson.loads(payload(StoredEvent(**event))))


@cache
def _document() -> dict[str, Any]:
    """The document, in which objects have no other fields than those listed."""
    document = deepcopy(openapi())
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return document


@cache
def _shape_of(type: str) -> jsonschema_rs.Draft202012Validator:
    document = _document()
    body = document["webhooks"][type]["post"]["requestBody"]["content"]["application/json"]
    return jsonschema_rs.Draft202012Validator(
        {**body["schema"], "components": document["components"]}, validate_formats=True
    )
