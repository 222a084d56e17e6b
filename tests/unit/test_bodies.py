"""The contents of a body are counted while it arrives, and no text in it is taken for structure."""

import json
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st

from app.api.http import bodies
from app.api.http.arriving import Arriving
from app.api.http.bodies import BOUNDS, LISTS, ORDER, SHORT, Bound, Count, Scan
from app.domain.errors import Unprocessable
from tests.support.document import api

ANY = Bound(10**9, containers=10**9, values=10**9)
TEXTS = st.text(st.sampled_from('ab{}[],:"\\/ \n\u00e9\u2028\U0001f600')) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=40,
)


def truth(value: Any) -> tuple[int, int]:
    """Objects and lists; commas."""
    if isinstance(value, dict | list):
        inner = [truth(item) for item in (value.values() if isinstance(value, dict) else value)]
        return (
            1 + sum(openings for openings, _ in inner),
            max(len(value) - 1, 0) + sum(commas for _, commas in inner),
        )
    return (0, 0)


@given(JSON, st.integers(1, 7), st.booleans())
def test_a_scan_counts_structure_and_no_text_however_the_body_is_cut(
    value: Any, size: int, ascii_only: bool
) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    scan, count = Scan(ANY), Count(ANY)
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        scan.take(piece)
        assert count.fits(piece)
    assert (scan.openings, scan.commas) == truth(value)
    assert (count.openings, count.commas) == (body.count(b"{") + body.count(b"["), body.count(b","))


@pytest.mark.parametrize("body", [b"[" * 1_001, b'{"a":' * 1_001, b"[" + b"0," * 5_000, b'""' * 13_000])
def test_more_than_the_bound_is_refused_at_once(body: bytes) -> None:
    with pytest.raises(Unprocessable) as refused:
        Scan(SHORT).take(body)
    assert refused.value.code == "body_too_complex"
    assert "1,000 objects and lists, 5,000 values" in refused.value.detail


def test_the_fast_count_is_right_where_there_is_much_to_count() -> None:
    count = Count(ANY)
    count.fits(b",{[" * 5_000 + b"x" * 1_000)
    assert (count.openings, count.commas) == (10_000, 5_000)


def test_an_order_is_within_its_bound_with_names_too_many_and_devices_too_many() -> None:
    device = dict.fromkeys(("serial_number", "manufacturer", "model", "product_key", "group_tag"), "x")
    body = json.dumps({"devices": [{**device, "hardware_hash": "y", "line_ref": "z"}] * 9_990}).encode()
    assert Count(ORDER).fits(body.replace(b'"y"', b'"y","a":1,"b":2,"c":[]'))
    assert Count(ORDER).fits(json.dumps({"devices": [device] * 15_000}).encode())


def test_an_object_with_very_many_names_is_refused_and_a_list_of_texts_is_not() -> None:
    names = b'{"devices":[{' + b'"n":0,' * 13_000
    assert not Count(ORDER).fits(names)
    with pytest.raises(Unprocessable, match="10 for each object"):
        Scan(ORDER).take(names)
    assert Count(ORDER).fits(json.dumps({"devices": ["SYN"] * 10_001}).encode())


async def test_a_text_longer_than_any_field_is_refused_while_it_arrives() -> None:
    arriving = Arriving(ORDER, 0)
    await arriving.add(b'{"devices":[],')
    for _ in range(100):
        await arriving.add(b" " * 65_536)  # white space is no text
    await arriving.add(b'"reference":"')
    for _ in range(64):
        await arriving.add(b"x" * 65_536)
    with pytest.raises(Unprocessable, match="more than 4 MB"):
        await arriving.add(b"x")


def test_each_bound_belongs_to_a_route_and_limits_its_bytes() -> None:
    app = api()
    routes = {
        name: (next(iter(found.methods or ())), str(found.path).replace("{", "").replace("}", ""))
        for found in iter_route_contexts(app.routes)
        if (name := getattr(found.route, "name", "")) in BOUNDS
    }
    assert routes.keys() == BOUNDS.keys()
    limit_of = bodies.limits_of(app, {"create_import": 10**9}, ORDER.max_bytes)

    def limit(method: str, path: str, root: str = "") -> int:
        return limit_of({"method": method, "path": path, "root_path": root})

    for name, (method, path) in routes.items():
        assert limit(method, path) == limit(method, f"/proxy{path}", "/proxy") == BOUNDS[name].max_bytes
    assert limit("POST", "/v1/imports") == 10**9
    assert limit("GET", "/v1/orders") == limit("POST", "/v1/orders/x") == SHORT.max_bytes
    assert limit("POST", "/v1/customers") == limit("POST", "/nowhere") == SHORT.max_bytes
    assert limit("POST", "/v1/orders/x:retry-failed") == LISTS.max_bytes
