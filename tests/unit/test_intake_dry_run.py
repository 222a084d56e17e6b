"""A whole file judged as the service judges an order: duplicates, group tags, batches."""

import io
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from app.domain.identity import Device, IdentityKind, Rules
from app.domain.planning import OrderRules, Plan, PlannedRow
from app.intake.devices import check_row, device_of
from app.intake.dry_run import Review, Reviewed
from app.intake.rows import read
from app.local.synthetic import devices
from tests.unit.test_hardware_hash_damage import capture

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULES = Rules(frozenset(IdentityKind))


def reviewed(
    text: str, group_tag: str | None = None, max_devices: int = 1000
) -> tuple[Review, list[Reviewed]]:
    found = Review(OrderRules(RULES, max_devices, group_tag or ""), NOW)
    rows = [found.judge(row) for row in read(io.BytesIO(text.encode()))[1]]
    return found, rows


def planned(devices: Sequence[Device], order: OrderRules) -> tuple[Plan, list[PlannedRow]]:
    """As an order is planned: a second time where rows turn out late to be an earlier one's device."""
    plan = Plan(order, {}, NOW)
    rows = plan.add(plan.check(devices), [[] for _ in devices])
    if plan.late:
        plan = Plan(order, {}, NOW, plan.late)
        rows = plan.add(plan.check(devices), [[] for _ in devices])
    assert not plan.late
    return plan, rows


def test_it_judges_as_the_check_of_an_order_does() -> None:
    lines = ["Serial Number,Make,Model,PKID,Hash,Tag"]
    for number, device in enumerate(devices(60)):
        fields = device.fields()
        cells = [fields.get(name, "") for name in (
            "serial_number", "manufacturer", "model", "product_key", "hardware_hash",
        )]  # fmt: skip
        lines += [",".join([*cells, "Kiosk" if number % 4 else ""])] * (2 if number % 7 == 0 else 1)
    lines.append("1,HP,,,,")
    text = "\n".join(lines)
    review, rows = reviewed(text, "Desk", max_devices=20)
    source = list(read(io.BytesIO(text.encode()))[1])
    plan, expected = planned([device_of(row) for row in source], OrderRules(RULES, 20, "Desk"))
    assert [(r.device.kind, [f.code for f in r.device.findings]) for r in rows] == [
        (row.device.kind, [f.code for f in row.device.findings]) for row in expected
    ]
    assert review.batches == Counter(batch.group_tag for batch in plan.batches)
    assert review.tags.total() == sum(batch.devices for batch in plan.batches) == review.valid.total()
    assert review.invalid == 10


def test_the_same_device_with_another_tag_has_its_own_code_and_names_both() -> None:
    text = "PKID,Tag\n0284750002680,Kiosk\n0284750002680,Sales\n0284750002680,\n0284750002680,Kiosk\n"
    _, rows = reviewed(text)
    found = [[(p.code, p.column, p.value) for p in row.problems] for row in rows]
    assert found == [
        [],
        [("duplicate_with_other_tag", "Tag", "Sales")],
        [("duplicate_in_order", None, None)],
        [("duplicate_in_order", None, None)],
    ]
    assert '"Kiosk"' in rows[1].problems[0].detail
    assert '"Sales"' in rows[1].problems[0].detail
    _, rows = reviewed(text, "Default")
    assert rows[2].problems[0].code == "duplicate_with_other_tag"


def test_two_captures_of_one_device_are_one_device_though_their_texts_differ() -> None:
    one, other = capture(seconds=0), capture(seconds=3600)
    assert one != other
    _, rows = reviewed(f"Hash\n{one}\n{other}\n")
    assert [row.device.is_valid for row in rows] == [True, False]
    assert rows[1].problems[0].code == "duplicate_in_order"


def test_a_row_that_a_third_shows_to_be_a_duplicate_is_one_when_the_rows_are_judged_again() -> None:
    text = "Serial Number,Make,Model,PKID,Tag\n,,,0284750002680,Kiosk\n1,HP,X,,Sales\n1,HP,X,0284750002680,\n"
    first, rows = reviewed(text)
    assert [row.device.is_valid for row in rows] == [True, True, False]
    assert first.late[2].detail.startswith("The same device as row 1")
    again = Review(OrderRules(RULES, 1000), NOW, first.late)
    rows = [again.judge(row) for row in read(io.BytesIO(text.encode()))[1]]
    codes = [[problem.code for problem in row.problems] for row in rows]
    assert codes == [[], ["duplicate_with_other_tag"], ["duplicate_in_order", "identity_reduced"]]
    assert (again.invalid, again.tags, again.batches) == (2, {"Kiosk": 1}, {"Kiosk": 1})
    _, expected = planned([device_of(row.row) for row in rows], OrderRules(RULES, 1000))
    assert [row.device.is_valid for row in expected] == [row.device.is_valid for row in rows]


def test_tags_that_differ_in_capitals_only_are_refused() -> None:
    _, rows = reviewed("PKID,Tag\n0284750002680,Kiosk\n6767165464144,kiosk\n")
    assert [problem.code for problem in rows[1].problems] == ["group_tag_case_conflict"]


def test_a_row_in_error_is_never_valid_and_nobodys_duplicate() -> None:
    text = 'PKID,Make\n0284750002680,"HP\n0284750002680,HP\n'
    _, rows = reviewed(text)
    assert [row.device.is_valid for row in rows] == [False, True]
    assert check_row(rows[0].row, RULES, NOW).keys == ()


def test_a_long_file_is_several_orders_with_batches_of_their_own() -> None:
    text = "PKID\n" + "\n".join(f"{n:013d}" for n in range(1, 10_502))
    review, _ = reviewed(text)
    assert review.orders == 2
    assert review.batches == {None: 10 + 1}
