"""Cutting an order into batches while its rows stream by: the same batches as if all were there at once."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.domain.catalogue import Finding
from app.domain.identity import Device, IdentityKind, Rules
from app.domain.planning import OrderRules, Plan

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULES = Rules(frozenset(IdentityKind))


@given(
    st.lists(st.none() | st.sampled_from(["", "Sales", "Kiosk", "Depot"]), min_size=1, max_size=60),
    st.integers(min_value=1, max_value=7),
    st.integers(min_value=1, max_value=20),
)
def test_rows_in_chunks_are_cut_as_all_at_once(tags: list[str | None], limit: int, chunk: int) -> None:
    """None: an invalid row. Empty: a row of the order's own tag."""
    devices = [
        Device(serial_number=f"SYN{row}", manufacturer="Contoso", model="Book", group_tag=tag or None)
        if tag is not None
        else Device(serial_number=f"SYN{row}")
        for row, tag in enumerate(tags)
    ]
    plan = Plan(OrderRules(RULES, limit, "Standard"), {}, NOW)
    placed = []
    for start in range(0, len(devices), chunk):
        checked = plan.check(devices[start : start + chunk])
        placed += plan.add(checked, [[] for _ in checked])

    of_tag: dict[str, list[int]] = {}
    for row, given_tag in enumerate(tags):
        if given_tag is not None:
            of_tag.setdefault(given_tag or "Standard", []).append(row)
    expected = [
        (tag, tuple(rows[at : at + limit]))
        for tag, rows in of_tag.items()
        for at in range(0, len(rows), limit)
    ]
    found: dict[int, list[int]] = {}
    for row, of in enumerate(placed):
        if of.batch is not None:
            assert of.position == len(found.setdefault(of.batch, []))
            found[of.batch].append(row)
    assert sorted((plan.batches[n].group_tag, tuple(rows)) for n, rows in found.items()) == sorted(expected)
    assert [batch.devices for batch in plan.batches] == [len(found[n]) for n in range(len(plan.batches))]
    assert plan.invalid == tags.count(None)


def test_a_device_with_an_error_from_earlier_orders_is_not_sent_and_one_with_a_warning_is() -> None:
    error, warning = Finding("incomplete_tuple", "", "Said."), Finding("already_registered_here", "", "Said.")
    devices = [Device(serial_number=f"SYN{n}", manufacturer="Contoso", model="Book") for n in range(3)]
    plan = Plan(OrderRules(RULES, 2, "Standard"), {}, NOW)

    rows = plan.add(plan.check(devices), [[error], [warning], []])

    assert [(row.batch, row.position, row.device.findings) for row in rows] == [
        (None, 0, (error,)),
        (0, 0, (warning,)),
        (0, 1, ()),
    ]
    assert (plan.valid, plan.invalid) == (2, 1)
    [again] = plan.add(plan.check(devices[:1]), [[warning]])
    assert [finding.code for finding in again.device.findings] == ["duplicate_in_order"]
