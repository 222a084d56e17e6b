"""The rate-limit headers of a key: structured fields exactly as the IETF's draft has them."""

import re

import pytest

from app.api.http.call_rates import render
from app.kernel.call_rates import CallRate


def test_a_key_with_calls_left_shows_policy_rest_and_seconds() -> None:
    assert render(CallRate(limit=1200, used=50, resets_in=42)) == [
        (b"ratelimit-policy", b'"default";q=1200;w=60'),
        (b"ratelimit", b'"default";r=1150;t=42'),
    ]


@pytest.mark.parametrize(("used", "remaining", "exceeded"), [(1, 2, False), (3, 0, False), (4, 0, True)])
def test_nothing_left_is_no_refusal_yet_and_what_is_left_is_never_negative(
    used: int, remaining: int, exceeded: bool
) -> None:
    rate = CallRate(limit=3, used=used, resets_in=1)
    assert (rate.remaining, rate.is_exceeded) == (remaining, exceeded)
    assert dict(render(rate))[b"ratelimit"] == f'"default";r={remaining};t=1'.encode()


@pytest.mark.parametrize("rate", [CallRate(1, 1, 60), CallRate(1_000_000, 1, 1), CallRate(3000, 10**9, 60)])
def test_every_value_is_a_string_with_whole_numbers_for_parameters(rate: CallRate) -> None:
    for _, value in render(rate):
        assert re.fullmatch(rb'"[a-z]+"(;[a-z]+=(0|[1-9][0-9]{0,14}))+', value)
