"""Two records of one device: exact values, and what one side lacks contradicts nothing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.identity import Device, IdentityKind, Rules, check
from app.domain.same_device import DeviceNames, is_same

KEY, OTHER_KEY, UNUSUAL = "9999000000017", "9999000000024", "ABC1"
NAMES = st.builds(
    DeviceNames,
    st.sampled_from([None, "S1", "S2"]),
    st.sampled_from([None, "Contoso", "Fabrikam"]),
    st.sampled_from([None, "Book", "Desk"]),
    st.sampled_from([None, KEY, OTHER_KEY, UNUSUAL, "ABC2"]),
)
"""What names a device, from so few values that any two often share some."""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (DeviceNames(None, None, None, KEY), DeviceNames("S1", "Contoso", "Book", KEY), True),
        (DeviceNames("S2", None, None, KEY), DeviceNames("S1", None, None, KEY), True),
        (DeviceNames("S1", None, None, UNUSUAL), DeviceNames(None, None, None, UNUSUAL), True),
        (DeviceNames("S2", None, None, UNUSUAL), DeviceNames("S1", None, None, UNUSUAL), False),
        (DeviceNames("S1", None, None, None), DeviceNames("S1", "Contoso", "Book", KEY), True),
        (DeviceNames("S1", "Fabrikam", None, None), DeviceNames("S1", "Contoso", "Book", KEY), False),
        (DeviceNames("S1", None, "Desk", None), DeviceNames("S1", "Contoso", "Book", KEY), False),
        (DeviceNames("S1", None, None, OTHER_KEY), DeviceNames("S1", "Contoso", "Book", KEY), False),
        (DeviceNames("s1", None, None, None), DeviceNames("S1", None, None, None), False),
        (DeviceNames(None, "Contoso", "Book", None), DeviceNames(None, "Contoso", "Book", None), False),
    ],
)
def test_a_pkid_or_a_serial_number_that_nothing_contradicts_is_one_device(
    one: DeviceNames, other: DeviceNames, same: bool
) -> None:
    assert is_same(one, other) is same
    assert is_same(other, one) is same


@given(NAMES, NAMES)
def test_rows_of_one_order_that_share_a_key_are_the_same_device(one: DeviceNames, other: DeviceNames) -> None:
    rules, now = Rules(frozenset(IdentityKind)), datetime(2026, 6, 1, tzinfo=UTC)
    first, second = (check(Device(*names), rules, now) for names in (one, other))
    if set(first.keys) & set(second.keys):
        assert first.names is not None
        assert second.names is not None
        assert is_same(first.names, second.names)
