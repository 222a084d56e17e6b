"""The chaos verdict: every number that must be zero becomes non-zero when it has to."""

from dataclasses import replace

import pytest

from tests.chaos.schedule import Accident, Disturbance, plan
from tests.chaos.verdict import (
    ZEROS,
    Attempt,
    Batch,
    Event,
    Evidence,
    Fate,
    Held,
    Row,
    Sent,
    Told,
    Upload,
    Verdict,
    judge,
)

TENANT, OTHER = "tenant", "other tenant"
FATES = {
    "fresh": Fate.FRESH,
    "ours": Fate.HELD_HERE,
    "theirs": Fate.HELD_ELSEWHERE,
    "wrong": Fate.INVALID,
}
STATES = {"fresh": "registered", "ours": "already_registered", "theirs": "conflict", "wrong": "invalid"}


def clean() -> Evidence:
    """One order of four devices that went well: one upload, one accident meanwhile."""
    return Evidence(
        sent=[Sent(name, "R-1", TENANT, "Sales", f"key-{name}", fate) for name, fate in FATES.items()],
        accepted=frozenset({"R-1"}),
        rows=[
            Row(f"id-{name}", name, TENANT, "Sales", state, None, None if name == "wrong" else "b-1")
            for name, state in STATES.items()
        ],
        batches=[Batch("b-1", "settled", uncertain=False, settled_at=110.0)],
        attempts=[Attempt("b-1", "create", "q-1", 100.0, "accepted")],
        held=[
            Held(("key-fresh",), TENANT, "Sales", call=7, submissions=1),
            Held(("key-ours",), TENANT, "", call=0, submissions=1),
            Held(("key-theirs",), OTHER, "", call=0, submissions=1),
        ],
        uploads=[Upload(7, "q-1", 100.1, counted=True)],
        events=[Event("e-1", "order.accepted", "R-1"), Event("e-2", "order.completed", "R-1")],
        told=Told(
            ids=frozenset({"e-1", "e-2"}),
            states={f"id-{name}": (state,) for name, state in STATES.items() if name != "wrong"},
            orders={"R-1": ("order.accepted", "order.completed_with_errors")},
            repeated=3,
            refused=0,
        ),
        accidents=[("worker killed", 104.0)],
    )


def with_row(evidence: Evidence, name: str, **changes: object) -> Evidence:
    """As it is, but one device's row is otherwise, and everybody was told so."""
    rows = [
        replace(row, **changes) if row.line_ref == name else row  # type: ignore[arg-type]
        for row in evidence.rows
    ]
    states = {row.id: (row.state,) for row in rows if row.state != "invalid"}
    return replace(evidence, rows=rows, told=replace(evidence.told, states=states))


def with_held(evidence: Evidence, key: str, **changes: object) -> Evidence:
    held = [
        replace(device, **changes) if key in device.keys else device  # type: ignore[arg-type]
        for device in evidence.held
    ]
    return replace(evidence, held=held)


def only(verdict: Verdict, zero: str, count: int = 1) -> bool:
    """Whether this zero, and no other one, has this number."""
    return {name: verdict.zeros[name] for name in ZEROS if verdict.zeros[name]} == {zero: count}


def test_a_run_without_a_fault_has_only_zeros() -> None:
    verdict = judge(clean())
    assert verdict.good
    assert not verdict.examples
    assert (verdict.registered, verdict.unknown, verdict.repeated_uploads) == (1, 0, 0)
    assert verdict.repeated_webhooks == 3


# --- lost, doubled ------------------------------------------------------------------------------------


def test_a_device_without_a_row_is_lost() -> None:
    evidence = clean()
    verdict = judge(replace(evidence, rows=[row for row in evidence.rows if row.line_ref != "fresh"]))
    assert only(verdict, "lost")


def test_an_order_that_was_never_accepted_loses_its_devices() -> None:
    assert judge(replace(clean(), accepted=frozenset())).zeros["lost"] == len(FATES)


@pytest.mark.parametrize("state", ["queued", "submitting", "processing", "held"])
def test_a_device_still_under_way_at_the_end_is_lost(state: str) -> None:
    verdict = judge(with_row(clean(), "fresh", state=state))
    assert only(verdict, "lost")


def test_an_unknown_device_whose_batch_still_moves_is_lost_and_not_unknown() -> None:
    evidence = with_row(clean(), "fresh", state="unknown")
    verdict = judge(replace(evidence, batches=[replace(evidence.batches[0], state="unknown")]))
    assert verdict.zeros["lost"] == 3  # all that are in the batch
    assert verdict.unknown == 0


def test_a_new_device_that_failed_and_is_not_at_microsoft_is_lost() -> None:
    evidence = with_row(clean(), "fresh", state="failed", error_code="upstream_other")
    held = [device for device in evidence.held if "key-fresh" not in device.keys]
    assert only(judge(replace(evidence, held=held)), "lost")


def test_two_rows_of_one_device_are_a_doubled_order() -> None:
    evidence = clean()
    twin = replace(evidence.rows[0], id="id-twin")
    states = {**evidence.told.states, "id-twin": ("registered",)}
    evidence = replace(evidence, rows=[*evidence.rows, twin], told=replace(evidence.told, states=states))
    assert only(judge(evidence), "doubled")


# --- wrong customer, tag, outcome ---------------------------------------------------------------------


def test_a_device_registered_for_another_customer_is_misplaced_and_its_report_false() -> None:
    verdict = judge(with_held(clean(), "key-fresh", tenant=OTHER))
    assert (verdict.zeros["misplaced"], verdict.zeros["false"]) == (1, 1)


def test_a_device_registered_under_another_tag_is_misplaced() -> None:
    assert only(judge(with_held(clean(), "key-fresh", tag="Kiosk")), "misplaced")


def test_a_device_nobody_ordered_is_misplaced() -> None:
    evidence = clean()
    extra = Held(("key-nobody",), TENANT, "Sales", call=8, submissions=1)
    assert only(judge(replace(evidence, held=[*evidence.held, extra])), "misplaced")


def test_an_invalid_device_that_was_registered_is_misplaced() -> None:
    evidence = clean()
    extra = Held(("key-wrong",), TENANT, "Sales", call=8, submissions=1)
    assert only(judge(replace(evidence, held=[*evidence.held, extra])), "misplaced")


def test_registered_without_a_device_at_microsoft_is_a_false_report() -> None:
    evidence = clean()
    held = [device for device in evidence.held if "key-fresh" not in device.keys]
    assert only(judge(replace(evidence, held=held)), "false")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("fresh", "already_registered"),
        ("fresh", "conflict"),
        ("fresh", "failed"),
        ("ours", "registered"),
        ("ours", "conflict"),
        ("theirs", "registered"),
        ("theirs", "already_registered"),
        ("theirs", "failed"),
        ("wrong", "registered"),
    ],
)
def test_a_state_the_ledger_contradicts_is_a_false_report(name: str, state: str) -> None:
    assert only(judge(with_row(clean(), name, state=state)), "false")


def test_held_by_its_customer_before_is_not_our_work_after_an_upload_of_unknown_effect() -> None:
    evidence = clean()
    doubtful = replace(evidence, batches=[replace(evidence.batches[0], uncertain=True)])
    assert judge(doubtful).good
    assert only(judge(with_row(doubtful, "ours", state="registered")), "false")


@pytest.mark.parametrize("change", [{"tenant": OTHER}, {"tag": "Kiosk"}])
def test_a_report_for_another_customer_or_tag_is_false(change: dict[str, str]) -> None:
    assert only(judge(with_row(clean(), "fresh", **change)), "false")


# --- unknown, webhooks --------------------------------------------------------------------------------


def test_a_visible_unknown_is_counted_and_allowed() -> None:
    verdict = judge(with_row(clean(), "fresh", state="unknown"))
    assert verdict.good
    assert verdict.unknown == 1


def test_an_unknown_nobody_was_told_of_is_silent() -> None:
    evidence = with_row(clean(), "fresh", state="unknown")
    states = {id: told for id, told in evidence.told.states.items() if id != "id-fresh"}
    verdict = judge(replace(evidence, told=replace(evidence.told, states=states)))
    assert (verdict.zeros["silent"], verdict.zeros["untold"]) == (1, 1)


def test_an_event_that_was_not_received_is_missing() -> None:
    evidence = clean()
    assert only(judge(replace(evidence, told=replace(evidence.told, ids=frozenset({"e-1"})))), "untold")


def test_an_outcome_without_an_event_is_missing_even_if_no_event_was_written() -> None:
    evidence = clean()
    states = {id: told for id, told in evidence.told.states.items() if id != "id-theirs"}
    assert only(judge(replace(evidence, told=replace(evidence.told, states=states))), "untold")


@pytest.mark.parametrize("types", [(), ("order.accepted",), ("order.completed",)])
def test_an_order_whose_beginning_or_end_was_not_told_is_missing(types: tuple[str, ...]) -> None:
    evidence = clean()
    assert only(judge(replace(evidence, told=replace(evidence.told, orders={"R-1": types}))), "untold")


def test_a_device_told_in_two_states_is_a_contradiction() -> None:
    evidence = clean()
    states = {**evidence.told.states, "id-fresh": ("failed", "registered")}
    assert only(judge(replace(evidence, told=replace(evidence.told, states=states))), "contradicted")


def test_an_order_that_ends_twice_is_a_contradiction() -> None:
    evidence = clean()
    ends = {"R-1": ("order.accepted", "order.failed", "order.completed")}
    assert only(judge(replace(evidence, told=replace(evidence.told, orders=ends))), "contradicted")


def test_a_webhook_that_does_not_verify_is_counted() -> None:
    evidence = clean()
    assert only(judge(replace(evidence, told=replace(evidence.told, refused=2))), "forged", 2)


# --- repetitions and recovery -------------------------------------------------------------------------


def repeated(evidence: Evidence, first_outcome: str) -> Evidence:
    """The device went out twice; `first_outcome` is what was recorded of the first time."""
    return replace(
        with_held(evidence, "key-fresh", submissions=2),
        attempts=[
            Attempt("b-1", "create", "q-1", 100.0, first_outcome),
            Attempt("b-1", "append", "q-1", 105.0, "accepted"),
        ],
        uploads=[Upload(7, "q-1", 100.1, counted=True), Upload(9, "q-1", 105.1, counted=True)],
    )


def test_a_repetition_after_a_clean_answer_was_not_needed() -> None:
    verdict = judge(repeated(clean(), "accepted"))
    assert only(verdict, "needless")
    assert verdict.repeated_uploads == 1


@pytest.mark.parametrize("outcome", ["interrupted", "unknown"])
def test_a_repetition_after_an_unclear_one_was_needed(outcome: str) -> None:
    verdict = judge(repeated(clean(), outcome))
    assert (verdict.zeros["needless"], verdict.repeated_uploads) == (0, 1)


def test_a_repetition_answered_from_memory_is_none() -> None:
    evidence = repeated(clean(), "unknown")
    uploads = [evidence.uploads[0], replace(evidence.uploads[1], counted=False)]
    verdict = judge(replace(with_held(evidence, "key-fresh", submissions=1), uploads=uploads))
    assert (verdict.zeros["needless"], verdict.repeated_uploads) == (0, 0)


def test_recovery_runs_from_the_accident_to_the_end_of_what_it_could_have_hit() -> None:
    verdict = judge(clean())
    assert (verdict.recovery, verdict.recovery_of) == (6.0, "worker killed")


def test_recovery_runs_from_the_first_failed_call_if_that_is_longer() -> None:
    verdict = judge(repeated(clean(), "unknown"))
    assert (verdict.recovery, verdict.recovery_of) == (10.0, "a failed call of batch b-1")


def test_an_accident_after_the_end_costs_nothing() -> None:
    verdict = judge(replace(clean(), accidents=[("worker killed", 111.0)], longest_intake_outage=2.5))
    assert (verdict.recovery, verdict.recovery_of) == (2.5, "intake")


# --- the schedule -------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_schedule_again_and_another_one_another() -> None:
    first, again, other = (plan(seed, upstream_timeout_s=3, lease_s=10) for seed in (5, 5, 7))
    assert first == again
    assert [step.what for step in first.steps] != [step.what for step in other.steps]


@pytest.mark.parametrize("seed", range(1, 11))
def test_every_schedule_has_every_accident_and_every_disturbance(seed: int) -> None:
    schedule = plan(seed, upstream_timeout_s=3, lease_s=10)
    assert {step.what for step in schedule.steps} == {*Accident, *Disturbance}
    for step in schedule.steps:
        assert bool(step.victims) == isinstance(step.what, Accident)
        assert bool(step.rules) == isinstance(step.what, Disturbance)


def test_seeds_take_turns_between_an_upstream_that_deduplicates_and_one_that_does_not() -> None:
    turns = [plan(seed, upstream_timeout_s=3, lease_s=10).deduplicates for seed in (1, 2, 3, 4)]
    assert turns == [False, True, False, True]
