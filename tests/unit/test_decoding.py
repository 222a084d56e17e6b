"""Errors in a body are reported as the model reports them, within bounds."""

import json
from typing import Annotated, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from app.api.contract.problems import pydantic_error
from app.api.http.bodies import LISTS, ORDER
from app.api.http.decoding import decode, details
from app.api.imports.models import ProfileIn
from app.api.orders.models import DeviceIn, OrderIn
from app.domain.errors import FieldError, Unprocessable
from app.domain.order import MAX_DEVICES


class Plain(OrderIn):
    """Looks at every device at once."""

    devices: Annotated[list[DeviceIn], Field(min_length=1, max_length=MAX_DEVICES)]


def wrong(body: bytes) -> tuple[str, list[FieldError]]:
    with pytest.raises(Unprocessable) as refused:
        decode(body, OrderIn, ORDER)
    return refused.value.detail, list(refused.value.errors)


def plainly(body: Any) -> list[FieldError]:
    try:
        Plain.model_validate_json(json.dumps(body))
    except ValidationError as error:
        return [pydantic_error(part) for part in details(error)]
    return []


ID = "00000000-0000-4000-8000-000000000001"
VALUES: st.SearchStrategy[Any] = st.sampled_from(["x", "", None, 1, [], {}, ID])
DEVICES = st.dictionaries(st.sampled_from(["model", "serial_number", "more", "a/b"]), VALUES) | VALUES
BODIES = st.dictionaries(
    st.sampled_from(["customer_id", "reference", "group_tag", "on_invalid", "validate_only", "other"]), VALUES
)


@given(BODIES, st.lists(DEVICES, max_size=4) | VALUES)
@example({"customer_id": ID}, [{}])
def test_errors_are_those_of_all_rows_in_the_order_of_the_fields(body: dict[str, Any], devices: Any) -> None:
    body = {**body, "devices": devices}
    expected = plainly(body)
    if not expected:
        decode(json.dumps(body).encode(), OrderIn, ORDER)
        return
    detail, found = wrong(json.dumps(body).encode())
    assert found == expected
    assert detail == (f"{len(found)} field(s) are wrong." if len(found) > 1 else found[0].detail)


@pytest.mark.parametrize(
    ("names", "devices", "detail"),
    [
        (7, 10_000, "More than 10,000 fields are wrong"),
        (90_000, 1, "More than 10,000 fields are wrong"),
        (3, 3_000, "9000 field(s) are wrong."),
    ],
)
def test_very_many_errors_are_told_by_the_first(names: int, devices: int, detail: str) -> None:
    whole = {"customer_id": "00000000-0000-4000-8000-000000000001", "reference": "R"}
    device = {f"n{n}": 0 for n in range(names)}
    told, found = wrong(json.dumps({**whole, "devices": [device] * devices}).encode())
    assert told.startswith(detail)
    assert len(found) == 100
    assert [error.pointer for error in found[:3]] == [f"/devices/0/n{n}" for n in range(3)]


def test_a_repeated_name_is_told_in_bounds() -> None:
    name = "n" * 100_000
    with pytest.raises(Unprocessable) as refused:
        decode(f'{{"name":"P","definition":{{"{name}":1,"{name}":2}}}}'.encode(), ProfileIn, LISTS)
    (error,) = refused.value.errors
    assert error.code == "key_repeated"
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-" + "9" * 400])
def test_numbers_that_other_parsers_refuse_are_told_among_many_errors(number: str) -> None:
    names = ",".join(f'"n{n}":1' for n in range(2000))
    detail, found = wrong(f'{{"other":{number},{names}}}'.encode())
    assert detail == "2004 field(s) are wrong."
    assert [error.pointer for error in found][:2] == ["/other", "/n0"]
    _, found = wrong(f'{{"devices":[{{"other":{number}}},1]}}'.encode())
    assert {"/devices/0/other", "/devices/1"} <= {error.pointer for error in found}
