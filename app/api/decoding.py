"""A body of JSON as its model, or what is wrong with it: in bounds, whatever the body is."""

import codecs
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.api import repeated_keys
from app.api.bodies import Bound, too_complex
from app.api.problems import pydantic_error
from app.domain.errors import FieldError, Unprocessable
from app.domain.masking import NOT_SHOWN, shown

Body = TypeVar("Body", bound=BaseModel)

SHOWN: Final = 100
"""Errors that are told by name; the others are counted."""
_MANY: Final = 1_000
"""Errors up to which all are built, though few are shown."""


def decode(body: bytes, model: type[Body], bound: Bound, commas: int | None = None) -> Body:
    """Raises Unprocessable: not_json, body_too_complex, or validation_failed with its first errors.

    `commas`: those of the body, where they were counted.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # Windows PowerShell writes it, RFC 8259 lets us
    try:
        taken = model.model_validate_json(body)
    except ValidationError as error:
        raise refusal(_first(error, body, model), error.error_count(), bound) from None
    if (name := repeated_keys.find(body, taken, commas)) is not None:
        raise repeated(name)
    return taken


def refusal(found: list[ErrorDetails], count: int, bound: Bound) -> Unprocessable:
    """`found`: the first errors, of `count` in all."""
    if found[0]["type"] == "json_invalid":
        if "recursion limit" in found[0]["msg"]:
            return too_complex(bound)
        return Unprocessable("not_json", found[0]["msg"])
    return Unprocessable(
        "validation_failed",
        f"{count} field(s) are wrong." if count > 1 else found[0]["msg"],
        [pydantic_error(part) for part in found[:SHOWN]],
    )


def repeated(name: str) -> Unprocessable:
    name = shown(name) or NOT_SHOWN
    words = f"The name {name!r} stands twice in one object; it is unknown which value is meant."
    return Unprocessable("validation_failed", words, [FieldError("", "key_repeated", words)])


def details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False, include_context=False)


def _first(error: ValidationError, body: bytes, model: type[BaseModel]) -> list[ErrorDetails]:
    """The first errors. Where there are very many, each would cost a thousand bytes: then they are those of
    the beginning of each object and list."""
    if error.error_count() <= _MANY:
        return details(error)
    try:
        model.model_validate_json(orjson.dumps(_beginning(orjson.loads(body))))
    except ValidationError as first:
        # What is missing may have been cut off.
        return [part for part in details(first) if part["type"] != "missing"] or details(first)
    raise AssertionError("what was wrong is right at its beginning")


def _beginning(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _beginning(value[name]) for name in list(value)[:SHOWN]}
    return [_beginning(item) for item in value[:SHOWN]] if isinstance(value, list) else value
