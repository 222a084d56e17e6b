"""How a key's standing is written into headers: structured fields of the IETF's draft, to the letter."""

import re

import pytest

from app.api.quotas import render
from app.quotas import Quota


def test_a_key_with_calls_left_shows_policy_rest_and_seconds() -> None:
    assert render(Quota(limit=1200, used=50, resets_in=42)) == [
        (b"ratelimit-policy", b'"default";q=1200;w=60'),
        (b"ratelimit", b'"default";r=1150;t=42'),
    ]


@pytest.mark.parametrize(("used", "remaining", "exceeded"), [(1, 2, False), (3, 0, False), (4, 0, True)])
def test_nothing_left_is_no_refusal_yet_and_what_is_left_is_never_negative(
    used: int, remaining: int, exceeded: bool
) -> None:
    quota = Quota(limit=3, used=used, resets_in=1)
    assert (quota.remaining, quota.is_exceeded) == (remaining, exceeded)
    assert dict(render(quota))[b"ratelimit"] == f'"default";r={remaining};t=1'.encode()


@pytest.mark.parametrize("quota", [Quota(1, 1, 60), Quota(1_000_000, 1, 1), Quota(3000, 10**9, 60)])
def test_every_value_is_a_string_with_whole_numbers_for_parameters(quota: Quota) -> None:
    for _, value in render(quota):
        assert re.fullmatch(rb'"[a-z]+"(;[a-z]+=(0|[1-9][0-9]{0,14}))+', value)
