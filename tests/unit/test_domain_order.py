"""An order's state follows from the counts of its rows, whatever they are."""

from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.order import FINAL, OrderState, compute_state
from app.domain.registration import OPEN, SUCCESS, RegistrationState

S = RegistrationState
COUNTS = st.dictionaries(st.sampled_from(S), st.integers(min_value=0, max_value=10_000))


@given(COUNTS, st.booleans())
@example({}, False)
def test_every_combination_of_counts_has_a_state_that_agrees_with_it(
    counts: dict[RegistrationState, int], has_open_batches: bool
) -> None:
    present = {state for state, n in counts.items() if n}
    state = compute_state(counts, has_open_batches=has_open_batches)

    moving = bool(present & OPEN) or has_open_batches
    assert (state in FINAL) is not moving, "an order is over when nothing moves, and only then"
    match state:
        case OrderState.HELD:
            assert S.HELD in present
            assert not present & (OPEN - {S.HELD})
        case OrderState.COMPLETED:
            assert present <= SUCCESS
        case OrderState.COMPLETED_WITH_ERRORS:
            assert present & SUCCESS
            assert present - SUCCESS
        case OrderState.FAILED:
            assert not present & SUCCESS
        case OrderState.CANCELLED:
            assert S.CANCELLED in present
            assert present <= {S.CANCELLED, S.INVALID}
        case OrderState.IN_PROGRESS:
            assert moving


@given(COUNTS, st.booleans())
def test_states_without_rows_change_nothing(
    counts: dict[RegistrationState, int], has_open_batches: bool
) -> None:
    present = {state: n for state, n in counts.items() if n}
    everything = {**dict.fromkeys(S, 0), **present}
    assert compute_state(everything, has_open_batches=has_open_batches) is compute_state(
        present, has_open_batches=has_open_batches
    )


def _state(counts: dict[RegistrationState, int], *, open_batches: bool = False) -> OrderState:
    return compute_state(counts, has_open_batches=open_batches)


def test_success_is_success_whoever_registered_it() -> None:
    assert _state({S.REGISTERED: 3, S.ALREADY_REGISTERED: 2}) is OrderState.COMPLETED


def test_one_row_that_is_not_registered_is_an_error_of_the_order() -> None:
    for state in (S.FAILED, S.CONFLICT, S.UNKNOWN, S.INVALID, S.CANCELLED):
        assert _state({S.REGISTERED: 9, state: 1}) is OrderState.COMPLETED_WITH_ERRORS, state
        expected = OrderState.CANCELLED if state is S.CANCELLED else OrderState.FAILED
        assert _state({state: 1}) is expected, state


def test_an_unknown_row_moves_while_its_batch_is_open_and_waits_for_a_person_afterwards() -> None:
    counts = {S.UNKNOWN: 1, S.REGISTERED: 1}
    assert _state(counts, open_batches=True) is OrderState.IN_PROGRESS
    assert _state(counts) is OrderState.COMPLETED_WITH_ERRORS


def test_an_order_is_held_only_while_consent_is_all_that_it_waits_for() -> None:
    assert _state({S.HELD: 5, S.INVALID: 1}, open_batches=True) is OrderState.HELD
    assert _state({S.HELD: 5, S.PROCESSING: 1}, open_batches=True) is OrderState.IN_PROGRESS
    assert _state({S.HELD: 5, S.FAILED: 1}, open_batches=True) is OrderState.HELD


def test_an_order_with_devices_at_microsoft_is_not_called_held() -> None:
    counts = {RegistrationState.HELD: 2_000, RegistrationState.UNKNOWN: 4_000}
    assert compute_state(counts, has_open_batches=True) is OrderState.IN_PROGRESS
