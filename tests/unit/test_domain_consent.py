"""The table of consent, walked whole."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.consent import (
    CONSENT_TRANSITIONS,
    Change,
    ConsentState,
    Evidence,
    after_listing,
    after_refusal,
    after_tenant_change,
    after_time,
    lets_pass,
)

C = ConsentState
NOW = datetime(2026, 3, 1, tzinfo=UTC)
MONTH = timedelta(days=30)


def test_every_state_has_its_row_and_none_leads_to_itself() -> None:
    assert set(CONSENT_TRANSITIONS) == set(C)
    assert not any(state in following for state, following in CONSENT_TRANSITIONS.items())


def test_work_passes_while_consent_is_proved_or_its_proof_is_only_old() -> None:
    assert {state for state in C if lets_pass(state)} == {C.GRANTED, C.STALE}


@pytest.mark.parametrize("state", C)
@pytest.mark.parametrize("listed", [True, False])
def test_a_listing_decides_in_both_directions_by_legal_moves_only(state: ConsentState, listed: bool) -> None:
    change = after_listing(state, listed=listed)
    after = state if change is None else change.state
    if change is not None:
        assert change.state in CONSENT_TRANSITIONS[state]
        assert change.evidence is Evidence.CUSTOMERS_LIST
    if listed:
        assert after is C.GRANTED
    else:
        assert not lets_pass(after)


@pytest.mark.parametrize("state", [C.UNKNOWN, C.REQUESTED, C.REVOKED])
def test_absence_takes_nothing_from_who_had_nothing(state: ConsentState) -> None:
    assert after_listing(state, listed=False) is None


@pytest.mark.parametrize("state", C)
def test_a_403_and_time_cast_doubt_on_granted_consent_only_and_stop_no_work(state: ConsentState) -> None:
    refused = after_refusal(state)
    aged = after_time(state, proved_at=NOW - 2 * MONTH, now=NOW, valid_for=MONTH)
    if state is C.GRANTED:
        assert refused == Change(C.STALE, Evidence.UPSTREAM_403)
        assert aged == Change(C.STALE, Evidence.AGE)
        assert lets_pass(C.STALE)
    else:
        assert refused is None
        assert aged is None


@pytest.mark.parametrize("state", C)
def test_another_tenant_has_to_be_agreed_to_anew(state: ConsentState) -> None:
    change = after_tenant_change(state)
    assert (change is not None) is lets_pass(state)
    if change is not None:
        assert change == Change(C.UNKNOWN, Evidence.TENANT_CHANGED)
        assert change.state in CONSENT_TRANSITIONS[state]


@pytest.mark.parametrize(
    "age, stale", [(timedelta(0), False), (MONTH, False), (MONTH + timedelta(seconds=1), True), (None, True)]
)
def test_a_proof_is_old_after_its_time_and_not_before(age: timedelta | None, stale: bool) -> None:
    proved_at = None if age is None else NOW - age
    assert (after_time(C.GRANTED, proved_at=proved_at, now=NOW, valid_for=MONTH) is not None) is stale
