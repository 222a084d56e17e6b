"""Decodes a JSON body into its model, or lists what is wrong with it, within bounds."""

import codecs
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from app.api.contract.problems import pydantic_error
from app.api.http import repeated_keys
from app.api.http.bodies import Bound, too_complex
from app.domain.errors import FieldError, Unprocessable
from app.domain.masking import NOT_SHOWN, shown

Body = TypeVar("Body", bound=BaseModel)

SHOWN: Final = 100
"""The most errors that are listed. The others are counted."""
_MANY: Final = 1_000
"""The most errors that are built, though fewer are shown."""
_COUNTED: Final = 10_000
"""The most errors that are counted."""


def decode(body: bytes, model: type[Body], bound: Bound, commas: int | None = None) -> Body:
    """Raises Unprocessable: not_json, body_too_complex, or validation_failed with its first errors.

    `commas`: the number in the body, if it was counted.
    """
    body = body.removeprefix(codecs.BOM_UTF8)  # Windows PowerShell writes it, and RFC 8259 allows ignoring it
    try:
        taken = model.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error, body, model, bound) from None
    if (name := repeated_keys.find(body, taken, commas)) is not None:
        raise repeated(name)
    return taken


def _refusal(error: ValidationError, body: bytes, model: type[BaseModel], bound: Bound) -> Unprocessable:
    found, count = _first(error, body, model), error.error_count()
    if found[0]["type"] == "json_invalid":
        if "recursion limit" in found[0]["msg"]:
            return too_complex(bound)
        return Unprocessable("not_json", found[0]["msg"])
    rows: tuple[str, type[BaseModel]] | None = getattr(model, "ROWS", None)
    if rows is not None and any(len(part["loc"]) > 1 and part["loc"][0] == rows[0] for part in found):
        found, count = _with_rows(found, count, body, *rows)
    errors = [pydantic_error(part) for part in found[:SHOWN]]
    if count > _COUNTED:
        detail = f"More than {_COUNTED:,} fields are wrong; the first ones are in `errors`."
    else:
        detail = f"{count} field(s) are wrong." if count > 1 else errors[0].detail
    return Unprocessable("validation_failed", detail, errors)


def _with_rows(
    found: list[ErrorDetails], count: int, body: bytes, name: str, row: type[BaseModel]
) -> tuple[list[ErrorDetails], int]:
    """Adds the errors of all rows of a list that stopped at its first wrong row. Returns errors and their
    number.

    Goes row by row, so that other callers are answered meanwhile.
    """
    places = [at for at, part in enumerate(found) if part["loc"][:1] == (name,)]
    # Errors of fields after the rows come after the rows' errors.
    before, behind = found[: places[0]], found[places[-1] + 1 :]
    wrong: list[ErrorDetails] = []
    count = len(before) + len(behind)
    for at, value in enumerate(from_json(body)[name]):
        written = _written(value)
        try:
            row.model_validate_json(written)
        except ValidationError as error:
            count += error.error_count()
            if len(wrong) < SHOWN:
                first = _first(error, written, row)[:SHOWN]
                wrong += [{**part, "loc": (name, at, *part["loc"])} for part in first]
            if count > _COUNTED:
                break
    return [*before, *wrong, *behind], count


def repeated(name: str) -> Unprocessable:
    name = shown(name) or NOT_SHOWN
    words = f"The name {name!r} appears twice in one object; it is not clear which value is meant."
    return Unprocessable("validation_failed", words, [FieldError("", "key_repeated", words)])


def details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False, include_context=False)


def _first(error: ValidationError, body: bytes, model: type[BaseModel]) -> list[ErrorDetails]:
    """The first errors. Each costs a thousand bytes, so if there are very many, only those at the beginning
    of each object and list are built."""
    if error.error_count() <= _MANY:
        return details(error)
    try:
        model.model_validate_json(_written(_beginning(from_json(body))))
    except ValidationError as first:
        # A missing value may have been cut off.
        return [part for part in details(first) if part["type"] != "missing"] or details(first)
    return details(error)  # all errors are after the beginning


def _written(value: Any) -> bytes:
    """Writes a part as JSON again, with the models' own parser: others refuse NaN and 1e999, which it
    accepts."""
    return to_json(value, inf_nan_mode="constants")


def _beginning(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _beginning(value[name]) for name in list(value)[:SHOWN]}
    return [_beginning(item) for item in value[:SHOWN]] if isinstance(value, list) else value
