"""The states of a registration and the meaning of Microsoft's words, as tables."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.autopilot_errors import meaning as meaning_of
from app.domain.catalogue import lookup
from app.domain.registration import (
    CORRECTIONS,
    OPEN,
    OUTCOME_MOVES,
    RETRYABLE,
    SUCCESS,
    TRANSIENT_CODES,
    TRANSITIONS,
    Meaning,
    RegistrationState,
    UpstreamRow,
    interpret,
    is_with_customer,
)
from app.domain.transitions import sources_of

S = RegistrationState
TERMINAL = {S.INVALID, S.CANCELLED} | SUCCESS


def _reachable(starts: Iterable[RegistrationState]) -> set[RegistrationState]:
    seen: set[RegistrationState] = set()
    to_see = list(starts)
    while to_see:
        state = to_see.pop()
        if state not in seen:
            seen.add(state)
            to_see += TRANSITIONS[state]
    return seen


def test_every_state_has_its_moves_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(S)
    assert _reachable([S.INVALID, S.HELD, S.QUEUED]) == set(S)


def test_only_what_is_over_for_good_has_no_way_on() -> None:
    assert {state for state, targets in TRANSITIONS.items() if not targets} == TERMINAL


def test_every_open_state_can_come_to_an_end() -> None:
    ends = TERMINAL | {S.CONFLICT, S.FAILED}
    for state in OPEN | {S.UNKNOWN}:
        assert _reachable([state]) & ends, state


def test_what_was_sent_is_not_cancelled() -> None:
    assert sources_of(TRANSITIONS, S.CANCELLED) == {S.HELD, S.QUEUED}


def test_only_what_can_be_tried_again_goes_back_to_the_queue_from_an_end() -> None:
    assert sources_of(TRANSITIONS, S.QUEUED) & {S.CONFLICT, S.FAILED, S.UNKNOWN} == RETRYABLE
    assert not sources_of(TRANSITIONS, S.QUEUED) & TERMINAL


def test_an_outcome_is_never_written_over_another_one() -> None:
    written_over = {old for old, _ in OUTCOME_MOVES}
    assert written_over == {S.QUEUED, S.SUBMITTING, S.PROCESSING, S.UNKNOWN}
    assert {new for _, new in OUTCOME_MOVES} == SUCCESS | RETRYABLE
    assert {new for old, new in OUTCOME_MOVES if old is S.QUEUED} == {S.FAILED}


def test_only_what_a_person_can_have_recorded_is_corrected_and_nothing_else_may_do_so() -> None:
    recorded = SUCCESS | {S.CONFLICT, S.FAILED}
    assert {(old, new) for old in recorded for new in recorded} == CORRECTIONS
    assert not CORRECTIONS & OUTCOME_MOVES
    assert not any(old in sources_of(TRANSITIONS, new) for old, new in CORRECTIONS)


KNOWN = [
    ("801", "InvalidZtdRequestBody", S.FAILED, "upstream_bad_request"),
    ("802", "InvalidZtdHardwareHash", S.FAILED, "upstream_invalid_hash"),
    ("803", "MissingZtdSerialNumberAndProductKey", S.FAILED, "upstream_missing_identity"),
    ("806", "ZtdDeviceAlreadyAssigned", S.ALREADY_REGISTERED, "already_registered"),
    ("808", "ZtdDeviceAssignedToOtherTenant", S.CONFLICT, "assigned_to_other_tenant"),
    ("811", "ZtdDeviceRegisteredByOtherTenant", S.CONFLICT, "registered_by_other_tenant"),
    ("812", "ZtdDeviceNotFound", S.FAILED, "device_not_found"),
    ("813", "ZtdDeviceIsNotUnique", S.FAILED, "device_not_unique"),
    ("814", "ZtdDeviceAlreadyAadRegistered", S.FAILED, "already_entra_registered"),
    ("640", "StorageError", S.FAILED, "upstream_busy"),
]


@pytest.mark.parametrize(("number", "name", "state", "code"), KNOWN)
def test_a_known_answer_means_the_same_by_number_by_name_or_by_both(
    number: str, name: str, state: RegistrationState, code: str
) -> None:
    for row in (
        UpstreamRow(True, number, name),
        UpstreamRow(True, number, None),
        UpstreamRow(True, None, name),
        UpstreamRow(True, f" {number} ", name.upper()),
    ):
        assert interpret(row, meaning_of, was_uncertain=False) == Meaning(state, code)
    assert lookup(code).code == code


def test_where_number_and_name_disagree_the_name_decides() -> None:
    row = UpstreamRow(True, "806", "ZtdDeviceAssignedToOtherTenant")
    assert interpret(row, meaning_of, was_uncertain=False) == Meaning(S.CONFLICT, "assigned_to_other_tenant")


def test_an_unknown_name_does_not_hide_a_known_number() -> None:
    assert interpret(UpstreamRow(True, "812", "SomethingNew"), meaning_of, was_uncertain=False) == Meaning(
        S.FAILED, "device_not_found"
    )


def test_had_before_is_to_be_looked_up_after_an_uncertain_attempt_and_a_conflict_stays_one() -> None:
    had = UpstreamRow(True, "806", None)
    assert interpret(had, meaning_of, was_uncertain=True) == Meaning(S.UNKNOWN, "outcome_unknown")
    elsewhere = UpstreamRow(True, "808", None)
    assert interpret(elsewhere, meaning_of, was_uncertain=True) == interpret(
        elsewhere, meaning_of, was_uncertain=False
    )


@pytest.mark.parametrize(
    ("code", "name", "is_there"),
    [
        ("806", None, True),
        (" 806 ", "SomethingNew", True),
        (None, "ztddevicealreadyassigned", True),
        ("806", "ZtdDeviceAssignedToOtherTenant", False),
        ("808", None, False),
        ("999", None, False),
        (None, None, False),
    ],
)
def test_which_words_say_that_the_customer_has_the_device(
    code: str | None, name: str | None, is_there: bool
) -> None:
    assert is_with_customer(meaning_of(code, name)) is is_there


def test_a_passing_trouble_is_a_code_of_the_table() -> None:
    meaning = interpret(UpstreamRow(True, None, "StorageError"), meaning_of, was_uncertain=False)
    assert meaning is not None
    assert meaning.code in TRANSIENT_CODES


@given(
    st.booleans(),
    st.none() | st.text(max_size=12) | st.sampled_from([row[0] for row in KNOWN]),
    st.none() | st.text(max_size=12) | st.sampled_from([row[1] for row in KNOWN]),
    st.booleans(),
)
def test_every_answer_has_a_meaning_once_it_is_done_and_none_before(
    done: bool, code: str | None, name: str | None, uncertain: bool
) -> None:
    meaning = interpret(UpstreamRow(done, code, name), meaning_of, was_uncertain=uncertain)
    if not done:
        assert meaning is None
        return
    assert meaning is not None
    assert (S.PROCESSING, meaning.state) in OUTCOME_MOVES
    if not code and not name:
        assert meaning == Meaning(S.REGISTERED, None)
    if meaning.state in RETRYABLE:
        assert meaning.code is not None
        assert lookup(meaning.code).title
