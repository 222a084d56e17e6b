"""Holds events to the shapes that the OpenAPI document publishes for their types.

Each field that is there, and no other.
"""

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
    """Raises AssertionError for an event that is not what a receiver was promised."""
    type = event["type"]
    if type not in _document()["webhooks"]:
        raise AssertionError(f"No webhook {type} is published.")
    wrong = [f"{type}: {each.message}: {each.instance_path}" for each in _shape_of(type).iter_errors(event)]
    if wrong:
        raise AssertionError("\n".join(wrong))


async def require_all_published(world: World) -> None:
    """For every event in the database, as the body that is signed for it."""
    names = ", ".join(field.name for field in fields(StoredEvent))
    for event in await world.select(f"SELECT {names} FROM events"):
        require_published(orjson.loads(payload(StoredEvent(**event))))


@cache
def _document() -> dict[str, Any]:
    """The document, in which an object has no field that is not written there."""
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
